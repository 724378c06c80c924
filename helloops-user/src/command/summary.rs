//! The end of `helloops run`: how the command ended, and its system calls in the manner of
//! `strace -c`, but with distributions.

use std::fmt::Write;

use super::quantity::{duration, number_of};
use super::terminal::{Screen, Tone, clean};
use super::{fault_text, loss, series_table};
use crate::api::{Exit, FaultGroup, Report};

/// Causes that are shown; the faults themselves were shown when they happened.
const GROUPS: usize = 10;

/// System calls that are shown: those that took the most time.
const CALLS: usize = 20;

/// The summary of a report as text. `groups` are the report's faults by cause.
pub fn render(report: &Report, groups: &[FaultGroup], screen: &Screen) -> String {
    let mut text = headline(report, screen);
    if !groups.is_empty() {
        text.push('\n');
    }
    let hidden = groups.len().saturating_sub(GROUPS);
    if hidden > 0 {
        let line = format!("{} before these:", number_of(hidden as u64, "other cause"));
        let _ = writeln!(text, "{}", screen.paint(Tone::Faint, line));
    }
    for group in groups.iter().skip(hidden) {
        text.push_str(&fault_text::render_group(group, screen));
    }
    if !report.syscalls.is_empty() {
        text.push('\n');
        let shown = report.syscalls.get(..CALLS).unwrap_or(&report.syscalls);
        text.push_str(&series_table::render(shown, None, screen));
        let hidden = report.syscalls.len() - shown.len();
        if hidden > 0 {
            let line = format!(
                "{} that took less; --report FILE has all",
                number_of(hidden as u64, "more call")
            );
            let _ = writeln!(text, "{}", screen.paint(Tone::Faint, line));
        }
    }
    let lost = loss::render(&report.lost, screen);
    text + if lost.is_empty() {
        "nothing was lost\n"
    } else {
        &lost
    }
}

fn headline(report: &Report, screen: &Screen) -> String {
    let lasted = report
        .ended
        .duration_since(report.started)
        .try_into()
        .unwrap_or_default();
    let ended = match report.exit {
        Exit::Code { code } => format!("ended with code {code}"),
        Exit::Signal { signal, core } => {
            let name = nix::sys::signal::Signal::try_from(signal)
                .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string());
            format!(
                "was ended by {name}{}",
                if core { " (core dumped)" } else { "" }
            )
        }
    };
    let command: Vec<_> = report.command.iter().map(|word| clean(word)).collect();
    let command = command.join(" ");
    let faults = report.faults.len() as u64 + report.dropped;
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} {ended} after {}, {}",
        screen.paint(Tone::Strong, command),
        duration(lasted),
        if faults == 0 {
            "no faults".to_owned()
        } else {
            number_of(faults, "fault")
        },
    );
    text
}
