//! `helloops faults`: what went wrong, one by one, by cause, or as it happens.

use std::fmt::Write;

use anyhow::{Result, bail};
use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::Error as KindError;

use super::fault_text::{self, Frames};
use super::quantity::{count, number_of};
use super::terminal::{self, Screen, Tone};
use super::{json, loss};
use crate::api::{Client, FaultQuery, Faults, Followed};
use crate::fault::Kind;

/// What `helloops faults` is asked.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Show only the fault with this number.
    #[arg(conflicts_with_all = ["follow", "group", "target", "kind", "limit"])]
    pub id: Option<u64>,
    /// Show faults as they happen from now on, until interrupted.
    #[arg(long, conflicts_with = "group")]
    pub follow: bool,
    /// Show faults with the same cause together.
    #[arg(long)]
    pub group: bool,
    /// Show only faults of targets with this name (`*` and `?` are wildcards).
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Show only faults of this kind: panic, exception, abort, assert, signal, oom, exit or error.
    #[arg(long, value_parser = parse_kind)]
    pub kind: Option<Kind>,
    /// Show the latest N faults or groups.
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub limit: usize,
    /// Show all frames of stacks, those of language runtimes and libraries too.
    #[arg(long)]
    pub all: bool,
    /// Print JSON; with --follow, one fault a line.
    #[arg(long)]
    pub json: bool,
}

impl Options {
    fn query(&self) -> FaultQuery {
        FaultQuery {
            target: self.target.clone(),
            kind: self.kind,
            limit: Some(self.limit),
        }
    }

    fn frames(&self) -> Frames {
        if self.all { Frames::All } else { Frames::InApp }
    }
}

fn parse_kind(text: &str) -> Result<Kind, KindError> {
    Kind::deserialize(text.into_deserializer())
}

/// Asks and prints.
///
/// # Errors
/// If the instance cannot be asked, or standard output not be written to.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    let shown = match options.follow {
        true => follow(client, options).await,
        false => show(client, options).await,
    };
    terminal::allow_closed_pipe(shown)
}

async fn show(client: &Client, options: &Options) -> Result<()> {
    let screen = Screen::stdout();
    if let Some(id) = options.id {
        let fault = client.fault(id).await?;
        let text = match options.json {
            true => json::document(&fault, &screen)?,
            false => fault_text::render(&fault, options.frames(), &screen),
        };
        return Ok(terminal::print(&text)?);
    }
    let faults = client.faults(&options.query()).await?;
    let text = match options.json {
        true => json::document(&faults, &screen)?,
        false if options.group => render_groups(&faults, options.frames(), &screen),
        false => render(&faults, options.frames(), &screen),
    };
    Ok(terminal::print(&text)?)
}

async fn follow(client: &Client, options: &Options) -> Result<()> {
    let screen = Screen::stdout();
    let mut stream = client.follow_faults(&options.query()).await?;
    while let Some(followed) = stream.next().await? {
        match followed {
            Followed::Fault(fault) if options.json => terminal::print(&json::line(&fault)?)?,
            Followed::Fault(fault) => {
                let text = fault_text::render(&fault, options.frames(), &screen);
                terminal::print(&format!("{text}\n"))?;
            }
            Followed::Missed(missed) => {
                eprintln!(
                    "helloops: {} came too fast to be shown",
                    number_of(missed, "fault")
                );
            }
        }
    }
    bail!("the agent at {} has ended", client.path().display())
}

/// Faults one by one, oldest first.
pub fn render(faults: &Faults, frames: Frames, screen: &Screen) -> String {
    let mut text = String::new();
    for fault in &faults.faults {
        text.push_str(&fault_text::render(fault, frames, screen));
        text.push('\n');
    }
    if faults.faults.is_empty() {
        text.push_str("no faults\n");
    }
    text + &footer(faults, screen)
}

/// Faults by cause, the cause seen latest last; with all frames, each with its latest stack.
pub fn render_groups(faults: &Faults, frames: Frames, screen: &Screen) -> String {
    let mut text = String::new();
    for group in &faults.groups {
        text.push_str(&fault_text::render_group(group, screen));
        if frames == Frames::All {
            text.push('\n');
            text.push_str(&fault_text::render(&group.latest, frames, screen));
        }
        text.push('\n');
    }
    if faults.groups.is_empty() {
        text.push_str("no faults\n");
    }
    text + &footer(faults, screen)
}

fn footer(faults: &Faults, screen: &Screen) -> String {
    let mut text = String::new();
    if faults.dropped > 0 {
        let dropped = format!(
            "{} older faults are only counted now",
            count(faults.dropped)
        );
        let _ = writeln!(text, "{}", screen.paint(Tone::Faint, dropped));
    }
    text + &loss::render(&faults.lost, screen)
}
