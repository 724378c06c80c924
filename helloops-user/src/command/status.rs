//! `helloops status`: what an instance watches, what it can do, and what it lost.

use anyhow::Result;
use comfy_table::{CellAlignment, Table, presets};
use jiff::Timestamp;

use super::quantity::{count, duration, number_of, time};
use super::terminal::{self, Screen, Tone, clean};
use super::{features, json, loss};
use crate::api::{Client, Status};

/// Show what is watched, what works on this kernel, and what was lost.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Options {
    /// Print JSON.
    #[arg(long)]
    pub json: bool,
}

/// Asks and prints.
///
/// # Errors
/// If the instance cannot be asked, or standard output not be written to.
pub async fn run(client: &Client, options: &Options) -> Result<()> {
    terminal::allow_closed_pipe(show(client, options).await)
}

async fn show(client: &Client, options: &Options) -> Result<()> {
    let status = client.status().await?;
    let screen = Screen::stdout();
    let text = match options.json {
        true => json::document(&status, &screen)?,
        false => render(&status, Timestamp::now(), &screen),
    };
    Ok(terminal::print(&text)?)
}

/// The status as text. `now` is what its age is counted from.
pub fn render(status: &Status, now: Timestamp, screen: &Screen) -> String {
    let mut text = headline(status, now, screen);
    text.push('\n');
    targets(&mut text, status, screen);
    if !status.features.is_empty() {
        text.push_str("\nfeatures\n");
    }
    text.push_str(&features::render(&status.features, screen));
    let lost = loss::render(&status.lost, screen);
    text.push('\n');
    text.push_str(if lost.is_empty() {
        "nothing was lost\n"
    } else {
        &lost
    });
    text
}

/// The instance in a line.
pub(super) fn headline(status: &Status, now: Timestamp, screen: &Screen) -> String {
    let age = now
        .duration_since(status.started)
        .try_into()
        .unwrap_or_default();
    let name = format!("helloops {}", clean(&status.version));
    format!(
        "{}  pid {}, up {} (since {}), {}, {}\n",
        screen.paint(Tone::Strong, name),
        status.pid,
        duration(age),
        time(status.started),
        number_of(status.probes, "probe"),
        number_of(status.faults, "fault"),
    )
}

fn targets(text: &mut String, status: &Status, screen: &Screen) {
    if status.targets.is_empty() {
        text.push_str("no targets\n");
        return;
    }
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_header(["target", "processes", "faults", "chosen by"]);
    for target in &status.targets {
        table.add_row([
            clean(&target.name).into_owned(),
            count(target.processes),
            count(target.faults),
            clean(&target.selector).into_owned(),
        ]);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if matches!(index, 1 | 2) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for (index, line) in table.lines().enumerate() {
        let line = screen.fit(line.trim_end());
        text.push_str(&match index {
            0 => screen.paint(Tone::Faint, line),
            _ => line,
        });
        text.push('\n');
    }
}
