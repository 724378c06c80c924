//! `helloops top`: the busiest system calls of all targets, live.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use anyhow::Result;
use crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use crossterm::{cursor, execute, terminal as device};
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};

use super::terminal::{self, Screen, Tone};
use super::{hist, json, loss, series_table, status};
use crate::api::{Client, HistogramQuery, Histograms, Status, Window};

/// How often the table is drawn anew.
const REFRESH: Duration = Duration::from_secs(1);

/// What `helloops top` is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Show only targets with this name (`*` and `?` are wildcards).
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Show what happened in the last so long, such as 10s, 5m or 24h.
    #[arg(long, value_name = "TIME", default_value = "10s")]
    pub window: Window,
    /// Print JSON once.
    #[arg(long)]
    pub json: bool,
}

/// Shows the table until `q`, Escape or Ctrl-C; once, where standard output is no terminal.
///
/// # Errors
/// If the instance cannot be asked, or standard output not be written to.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    let shown = match io::stdout().is_terminal() && !options.json {
        true => watch(client, options).await,
        false => once(client, options).await,
    };
    terminal::allow_closed_pipe(shown)
}

async fn ask(client: &Client, options: &Options) -> Result<(Status, Histograms)> {
    let query = HistogramQuery {
        target: options.target.clone(),
        window: Some(options.window),
        ..HistogramQuery::default()
    };
    Ok((client.status().await?, client.histograms(&query).await?))
}

async fn once(client: &Client, options: &Options) -> Result<()> {
    let (status, histograms) = ask(client, options).await?;
    let screen = Screen::stdout();
    let text = match options.json {
        true => json::document(&histograms, &screen)?,
        false => render(
            &status,
            &histograms,
            options.window,
            Timestamp::now(),
            &screen,
        ),
    };
    Ok(terminal::print(&text)?)
}

async fn watch(client: &Client, options: &Options) -> Result<()> {
    // Asked first, so that a failure is not lost with the alternate screen.
    let mut answer = ask(client, options).await?;
    let mut ended = signal(SignalKind::terminate())?;
    let mut hung_up = signal(SignalKind::hangup())?;
    let mut interrupted = signal(SignalKind::interrupt())?;
    let _alternate = AlternateScreen::enter()?;
    loop {
        let screen = Screen::stdout();
        let text = render(
            &answer.0,
            &answer.1,
            options.window,
            Timestamp::now(),
            &screen,
        );
        draw(&text)?;
        tokio::select! {
            quit = quit_pressed_within(REFRESH) => if quit? { return Ok(()) },
            _ = ended.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            _ = interrupted.recv() => return Ok(()),
        }
        answer = ask(client, options).await?;
    }
}

/// As many lines as there is room for, since more would scroll the screen.
fn draw(text: &str) -> Result<()> {
    let rows = usize::from(device::size()?.1).max(1);
    let shown: Vec<&str> = text.lines().take(rows).collect();
    // Raw mode does not return the carriage by itself.
    Ok(terminal::print(&format!(
        "{}{}",
        hist::home(),
        shown.join("\r\n")
    ))?)
}

async fn quit_pressed_within(time: Duration) -> Result<bool> {
    if !io::stdin().is_terminal() {
        tokio::time::sleep(time).await;
        return Ok(false);
    }
    let pressed = tokio::task::spawn_blocking(move || -> io::Result<bool> {
        if !event::poll(time)? {
            return Ok(false);
        }
        let Event::Key(key) = event::read()? else {
            return Ok(false);
        };
        let interrupt =
            key.modifiers.contains(KeyModifiers::CONTROL) && key.code == KeyCode::Char('c');
        let quit = matches!(key.code, KeyCode::Char('q') | KeyCode::Esc);
        Ok(key.kind == KeyEventKind::Press && (quit || interrupt))
    });
    Ok(pressed.await??)
}

/// The alternate screen without a cursor, left again however the view ends.
struct AlternateScreen {
    raw: bool,
}

impl AlternateScreen {
    fn enter() -> io::Result<Self> {
        let raw = io::stdin().is_terminal();
        if raw {
            device::enable_raw_mode()?;
        }
        let entered = Self { raw };
        execute!(io::stdout(), device::EnterAlternateScreen, cursor::Hide)?;
        Ok(entered)
    }
}

impl Drop for AlternateScreen {
    fn drop(&mut self) {
        // On the way out there is nobody left to tell.
        let _ = execute!(io::stdout(), cursor::Show, device::LeaveAlternateScreen);
        if self.raw {
            let _ = device::disable_raw_mode();
        }
        let _ = io::stdout().flush();
    }
}

/// The table with the instance's state above it.
pub fn render(
    status: &Status,
    histograms: &Histograms,
    window: Window,
    now: Timestamp,
    screen: &Screen,
) -> String {
    let age = now.duration_since(status.started).as_secs_f64().max(1.0);
    let seconds = window.length().as_secs_f64().min(age);
    let mut text = status::headline(
        status,
        now,
        &Screen {
            colour: false,
            ..*screen
        },
    );
    text = format!("{}\n", screen.fit(text.trim_end()));
    let faults: Vec<String> = status
        .targets
        .iter()
        .filter(|target| target.faults > 0)
        .map(|target| format!("{} {}", terminal::clean(&target.name), target.faults))
        .collect();
    if !faults.is_empty() {
        let line = format!("faults: {}", faults.join(", "));
        text.push_str(&screen.paint(Tone::Bad, screen.fit(&line)));
        text.push('\n');
    }
    text.push_str(&loss::render(&histograms.lost, screen));
    text.push('\n');
    if histograms.series.is_empty() {
        return text + &format!("no system calls in the last {window}\n");
    }
    text + &series_table::render(&histograms.series, Some(seconds), screen)
}
