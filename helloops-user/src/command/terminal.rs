//! The terminal, or whatever stands in for it: its width, whether it shows colours, and how texts
//! that others wrote get there unharmed.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The width of drawings where there is no terminal to ask.
const DEFAULT_WIDTH: usize = 100;

/// What a view is drawn for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Screen {
    /// Columns of the terminal; none for a file or a pipe, in which lines may have any length.
    pub width: Option<usize>,
    /// Whether to use colours and bold type.
    pub colour: bool,
}

/// How a piece of text stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// The most important of its kind.
    Strong,
    /// There for completeness.
    Faint,
    /// Something went wrong.
    Bad,
    /// A mark to find one's way by.
    Mark,
}

impl Screen {
    /// A file or a pipe.
    pub const PLAIN: Self = Self {
        width: None,
        colour: false,
    };

    /// What standard output is.
    pub fn stdout() -> Self {
        Self::of(&io::stdout())
    }

    /// What standard error is.
    pub fn stderr() -> Self {
        Self::of(&io::stderr())
    }

    fn of(stream: &impl IsTerminal) -> Self {
        if !stream.is_terminal() {
            return Self::PLAIN;
        }
        let columns = crossterm::terminal::size().map_or(0, |(columns, _)| usize::from(columns));
        // See https://no-color.org: any value but the empty one counts.
        let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
        Self {
            width: (columns > 0).then_some(columns),
            colour: !no_color && !dumb,
        }
    }

    /// Columns to draw in.
    pub fn columns(&self) -> usize {
        self.width.unwrap_or(DEFAULT_WIDTH)
    }

    /// The text in a tone, where tones can be shown.
    pub fn paint<'a>(&self, tone: Tone, text: impl Into<Cow<'a, str>>) -> Cow<'a, str> {
        let text = text.into();
        if !self.colour || text.is_empty() {
            return text;
        }
        let code = match tone {
            Tone::Strong => "1",
            Tone::Faint => "2",
            Tone::Bad => "1;31",
            Tone::Mark => "36",
        };
        Cow::Owned(format!("\x1b[{code}m{text}\x1b[0m"))
    }

    /// A line of plain text, cut to the terminal's width.
    pub fn fit<'a>(&self, line: &'a str) -> Cow<'a, str> {
        match self.width {
            Some(width) => cut(line, width),
            None => Cow::Borrowed(line),
        }
    }
}

/// A text without a tone, cut to a number of columns; an ellipsis stands for what is gone.
pub fn cut(text: &str, columns: usize) -> Cow<'_, str> {
    if text.width() <= columns {
        return Cow::Borrowed(text);
    }
    let mut left = columns.saturating_sub(1);
    let fits = |letter: &char| {
        let width = letter.width().unwrap_or(0);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    };
    let mut cut: String = text.chars().take_while(fits).collect();
    if columns > 0 {
        cut.push('…');
    }
    Cow::Owned(cut)
}

/// A text that a watched program wrote, made harmless: characters that a terminal would obey (and
/// those that turn the direction of writing) are shown as escapes.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(is_command) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len() + 8);
    for letter in text.chars() {
        if is_command(letter) {
            cleaned.extend(letter.escape_default());
        } else {
            cleaned.push(letter);
        }
    }
    Cow::Owned(cleaned)
}

fn is_command(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Writes to standard output at once.
///
/// # Errors
/// Whatever the write fails with, such as a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// A reader of standard output that goes away early, such as `head`, is no failure.
///
/// # Errors
/// All others.
pub fn allow_closed_pipe(result: anyhow::Result<()>) -> anyhow::Result<()> {
    match result {
        Err(error) if is_closed_pipe(&error) => Ok(()),
        result => result,
    }
}

fn is_closed_pipe(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<io::Error>();
    cause.is_some_and(|cause| cause.kind() == io::ErrorKind::BrokenPipe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cannot_steer_the_terminal() {
        assert_eq!(clean("plain äöü 漢字"), "plain äöü 漢字");
        assert_eq!(
            clean("a\x1b[2J\r\nb\u{9b}\u{202e}"),
            "a\\u{1b}[2J\\r\\nb\\u{9b}\\u{202e}"
        );
    }

    #[test]
    fn lines_are_cut_at_the_width_that_they_take_on_screen() {
        assert_eq!(cut("short", 5), "short");
        assert_eq!(cut("longer", 5), "long…");
        assert_eq!(cut("漢字漢字", 5), "漢字…");
        assert_eq!(cut("漢字漢字", 4), "漢…");
        assert_eq!(cut("x", 0), "");
    }
}
