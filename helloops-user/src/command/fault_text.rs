//! A fault as text: what happened, where and to whom, and the stack with the program's own code in
//! front.

use std::fmt::Write;

use unicode_width::UnicodeWidthStr;

use super::quantity::{count, number_of, ordinal, time};
use super::terminal::{Screen, Tone, clean};
use crate::fault::{Fault, FaultGroup, Kind, Location, Signal};
use crate::symbol::Frame;

/// Functions longer than this push their source line to the right instead of the column of all.
const FUNCTION_WIDTH: usize = 50;

/// Where a headline ends at the right, if there is room.
const HEADLINE_WIDTH: usize = 90;

/// Which frames of a stack to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frames {
    /// The program's own; runs of others are summed up in a line. All, if none is its own.
    InApp,
    /// All.
    All,
}

/// A fault in full, ending with a line break.
pub fn render(fault: &Fault, frames: Frames, screen: &Screen) -> String {
    let mut text = headline(fault, 0, screen);
    let _ = writeln!(
        text,
        "  {} (pid {}, thread {} {}) at {}   fault {}, fingerprint {}, {} time",
        clean(&fault.target),
        fault.pid,
        clean(&fault.comm),
        fault.tid,
        time(fault.time),
        clean(&fault.id),
        clean(&fault.fingerprint),
        ordinal(fault.count),
    );
    if let Some(location) = &fault.location {
        let _ = writeln!(text, "  at {}", screen.paint(Tone::Strong, place(location)));
    }
    if let Some(signal) = &fault.signal {
        let _ = writeln!(text, "  signal {}", describe(signal));
    }
    if let Some(code) = fault.exit_code {
        let _ = writeln!(text, "  exit code {code}");
    }
    if !fault.arguments.is_empty() {
        let arguments: Vec<_> = fault
            .arguments
            .iter()
            .map(|argument| clean(argument))
            .collect();
        let _ = writeln!(text, "  arguments: {}", arguments.join(", "));
    }
    stack(&mut text, fault, frames, screen);
    text
}

/// A group of faults in two lines: how often, when, and where.
pub fn render_group(group: &FaultGroup, screen: &Screen) -> String {
    let latest = &group.latest;
    let times = format!("{:>6}×  ", count(group.count));
    let mut text = format!("{times}{}", headline(latest, times.width(), screen));
    let top = latest.stack.iter().find(|frame| frame.in_app);
    let at = match (&latest.location, top) {
        (_, Some(frame)) => format!("in {}   {}", function(frame), source(frame)),
        (Some(location), None) => format!("at {}", place(location)),
        (None, None) => format!("in {}", clean(&latest.exe.to_string_lossy())),
    };
    let _ = writeln!(
        text,
        "         {}  {}",
        clean(&latest.target),
        at.trim_end()
    );
    let _ = writeln!(
        text,
        "         first {}, last {}   fingerprint {}, latest is fault {}",
        time(group.first_seen),
        time(group.last_seen),
        clean(&group.fingerprint),
        clean(&latest.id),
    );
    text
}

/// Kind and message, and whether it was caught. Further lines of the message are indented, and by
/// `indent` more columns, which the first line begins behind.
fn headline(fault: &Fault, indent: usize, screen: &Screen) -> String {
    let mut lines = fault.message.lines();
    let first = clean(lines.next().unwrap_or_default());
    let kind = kind_name(fault.kind);
    let caught = match (fault.caught, fault.kind) {
        (Some(true), _) => "caught: yes",
        (Some(false), Kind::Panic | Kind::Exception | Kind::Error) => "caught: no",
        _ => "",
    };
    let used = indent + kind.width() + 2 + first.width() + caught.width();
    let gap = screen
        .columns()
        .min(HEADLINE_WIDTH)
        .saturating_sub(used)
        .max(3);
    let mut text = format!(
        "{}  {}{}{}",
        screen.paint(Tone::Bad, kind),
        screen.paint(Tone::Strong, first),
        " ".repeat(if caught.is_empty() { 0 } else { gap }),
        caught,
    );
    text.push('\n');
    for line in lines {
        let indent = " ".repeat(indent + kind.width() + 2);
        let _ = writeln!(text, "{indent}{}", screen.paint(Tone::Strong, clean(line)));
    }
    text
}

fn describe(signal: &Signal) -> String {
    let mut text = format!("{} ({})", clean(&signal.name), signal.number);
    if let Some(code) = &signal.code {
        let _ = write!(text, ", {}", clean(code));
    }
    if let Some(address) = signal.address {
        let _ = write!(text, ", address {address:#x}");
    }
    if let Some(pid) = signal.sender_pid {
        let _ = write!(text, ", sent by pid {pid}");
        if let Some(comm) = &signal.sender_comm {
            let _ = write!(text, " ({})", clean(comm));
        }
    }
    text
}

fn stack(text: &mut String, fault: &Fault, frames: Frames, screen: &Screen) {
    let show_all = frames == Frames::All || !fault.stack.iter().any(|frame| frame.in_app);
    let shown = || fault.stack.iter().filter(|frame| show_all || frame.in_app);
    let width = shown()
        .map(|frame| function(frame).width())
        .max()
        .unwrap_or(0)
        .min(FUNCTION_WIDTH);
    let mut hidden = 0;
    for (index, frame) in fault.stack.iter().enumerate() {
        if !show_all && !frame.in_app {
            hidden += 1;
            continue;
        }
        fold(text, hidden, screen);
        hidden = 0;
        let function = function(frame);
        let padding = " ".repeat(width.saturating_sub(function.width()));
        let tone = if frame.in_app {
            Tone::Strong
        } else {
            Tone::Faint
        };
        let inlined = if frame.inlined { "   (inlined)" } else { "" };
        let line = format!(
            "  {index:>3} {}{padding}   {}{inlined}",
            screen.paint(tone, function.as_str()),
            source(frame),
        );
        text.push_str(line.trim_end());
        text.push('\n');
    }
    fold(text, hidden, screen);
    if let Some(reason) = &fault.stack_truncated {
        let line = format!("    … the stack goes on, but: {}", clean(reason));
        let _ = writeln!(text, "{}", screen.paint(Tone::Faint, line));
    }
}

fn fold(text: &mut String, hidden: u64, screen: &Screen) {
    if hidden > 0 {
        let line = format!(
            "    … {} (--all shows them)",
            number_of(hidden, "runtime frame")
        );
        let _ = writeln!(text, "{}", screen.paint(Tone::Faint, line));
    }
}

/// The function, and how far into it where no source line says so.
fn function(frame: &Frame) -> String {
    match (&frame.function, &frame.file, frame.offset) {
        (Some(function), None, Some(offset)) => format!("{}+{offset:#x}", clean(function)),
        (Some(function), _, _) => clean(function).into_owned(),
        (None, _, _) => format!("{:#x}", frame.address),
    }
}

/// The source line or, where that is not known, the module.
fn source(frame: &Frame) -> String {
    match (&frame.file, frame.line, &frame.module) {
        (Some(file), Some(line), _) => place(&Location {
            file: file.clone(),
            line,
            column: frame.column,
        }),
        (Some(file), None, _) => clean(&file.to_string_lossy()).into_owned(),
        (None, _, Some(module)) => {
            let module = module.to_string_lossy();
            match (&frame.function, frame.offset) {
                (None, Some(offset)) => format!("in {} at {offset:#x}", clean(&module)),
                _ => format!("in {}", clean(&module)),
            }
        }
        (None, _, None) => String::new(),
    }
}

fn place(location: &Location) -> String {
    let column = location
        .column
        .map_or_else(String::new, |column| format!(":{column}"));
    format!(
        "{}:{}{column}",
        clean(&location.file.to_string_lossy()),
        location.line
    )
}

fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Panic => "panic",
        Kind::Exception => "exception",
        Kind::Abort => "abort",
        Kind::Assert => "assert",
        Kind::Signal => "signal",
        Kind::Oom => "out of memory",
        Kind::Exit => "exit",
        Kind::Error => "error",
    }
}
