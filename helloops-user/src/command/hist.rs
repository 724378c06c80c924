//! `helloops hist`: how long system calls take, as a table of all or drawn one by one.

use std::time::Duration;

use anyhow::Result;
use crossterm::cursor::MoveTo;
use crossterm::terminal::{Clear, ClearType};
use tokio::time::{MissedTickBehavior, interval};

use super::terminal::{self, Screen, Tone, clean};
use super::{distribution, json, loss, series_table};
use crate::api::{Client, HistogramQuery, Histograms, Window};

/// How often `--follow` draws anew; the agent reads the kernel's counters as often.
const REFRESH: Duration = Duration::from_secs(1);

/// What `helloops hist` is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Show only targets with this name (`*` and `?` are wildcards).
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Draw the distributions of system calls with this name (`*` and `?` are wildcards).
    #[arg(long, value_name = "NAME")]
    pub call: Option<String>,
    /// Show only this process, where histograms are kept per process.
    #[arg(long)]
    pub pid: Option<u32>,
    /// Show only what happened in the last so long, such as 10s, 5m or 24h [default: since start].
    #[arg(long, value_name = "TIME")]
    pub window: Option<Window>,
    /// Show anew each second, until interrupted.
    #[arg(long)]
    pub follow: bool,
    /// Print JSON; with --follow, one document a line.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    fn query(&self) -> HistogramQuery {
        HistogramQuery {
            target: self.target.clone(),
            pid: self.pid,
            call: self.call.clone(),
            window: self.window,
        }
    }
}

/// Asks and prints.
///
/// # Errors
/// If the instance cannot be asked, or standard output not be written to.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    terminal::allow_closed_pipe(show(client, options).await)
}

async fn show(client: &Client, options: &Options) -> Result<()> {
    let mut ticks = interval(REFRESH);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        // Each time, since the terminal's size may change.
        let screen = Screen::stdout();
        let histograms = client.histograms(&options.query()).await?;
        let text = match (options.json, options.follow) {
            (true, true) => json::line(&histograms)?,
            (true, false) => json::document(&histograms, &screen)?,
            (false, _) => render(&histograms, options, &screen),
        };
        let redraw = options.follow && !options.json && screen.width.is_some();
        let place = if redraw { home() } else { String::new() };
        let gap = if options.follow && !options.json && !redraw {
            "\n"
        } else {
            ""
        };
        terminal::print(&format!("{place}{text}{gap}"))?;
        if !options.follow {
            return Ok(());
        }
    }
}

/// What brings the cursor to the upper left corner of an empty screen.
pub(super) fn home() -> String {
    format!("{}{}", MoveTo(0, 0), Clear(ClearType::All))
}

/// A drawing of each series if a call was asked for, else a table of all.
pub fn render(histograms: &Histograms, options: &Options, screen: &Screen) -> String {
    let over = match options.window {
        Some(window) => format!("in the last {window}"),
        None => "since the start".to_owned(),
    };
    let mut text = String::new();
    match &options.call {
        _ if histograms.series.is_empty() => text.push_str(&nothing(options, &over)),
        Some(_) => {
            for series in &histograms.series {
                text.push_str(&distribution::draw(series, &over, screen));
                text.push('\n');
            }
        }
        None => {
            let title = format!("system calls {over}");
            text.push_str(&format!(
                "{}\n",
                screen.paint(Tone::Strong, screen.fit(&title))
            ));
            text.push_str(&series_table::render(&histograms.series, None, screen));
        }
    }
    text + &loss::render(&histograms.lost, screen)
}

fn nothing(options: &Options, over: &str) -> String {
    let call = options
        .call
        .as_ref()
        .map(|call| format!(" {}", clean(call)))
        .unwrap_or_default();
    let of = match (&options.target, options.pid) {
        (Some(target), _) => format!(" of {}", clean(target)),
        (None, Some(pid)) => format!(" of pid {pid}"),
        (None, None) => String::new(),
    };
    format!("no{call} system calls{of} {over}\n")
}
