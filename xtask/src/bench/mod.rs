//! `cargo xtask bench`: what watching costs, measured on this machine and printed as a table.

mod agent;
mod background;
mod empty_pair;
mod syscalls;

use std::env;
use std::process::Command;

use anyhow::{Context, Result};
use clap::Subcommand;

use crate::build::{self, Built};
use crate::packages::{self, BENCH};
use crate::shell;

/// What to measure.
#[derive(Debug, Clone, Copy, Subcommand)]
pub enum What {
    /// What a system call costs, unwatched, watched by HelloOps, bpftrace and strace, and beside.
    Syscalls,
    /// What the agent takes, at rest with 20 targets.
    Agent,
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Syscalls => "syscalls",
            Self::Agent => "agent",
        }
    }
}

/// Builds, becomes root, measures, prints.
///
/// # Errors
/// When something cannot be installed, built or measured.
pub fn run(what: What) -> Result<()> {
    if !shell::is_root() {
        return again_as_root(what, &build::everything()?);
    }
    packages::ensure(&[BENCH])?;
    let built = match Built::from_environment() {
        Some(built) => built,
        None => build::everything()?,
    };
    match what {
        What::Syscalls => syscalls::run(&built),
        What::Agent => agent::run(&built),
    }
}

/// Root may have no cargo, hence gets what this user has built.
fn again_as_root(what: What, built: &Built) -> Result<()> {
    let mut command = shell::as_root("env")?;
    command.args(
        built
            .environment()
            .map(|(name, path)| format!("{name}={}", path.display())),
    );
    command.arg(env::current_exe().context("xtask cannot find itself")?);
    shell::check(command.args(["bench", what.name()]))
}

/// A victim that makes system calls, in a mode.
fn victim(built: &Built, mode: &str) -> Command {
    let mut command = Command::new(built.victims.join("syscalls"));
    command.arg(mode);
    command
}

/// The value in the middle, or between the two in the middle; `None` of nothing.
fn median(values: &mut [f64]) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values.get(middle.checked_sub(1)?)? + upper) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(&mut []), None);
        assert_eq!(median(&mut [3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&mut [4.0, 1.0, 3.0, 2.0]), Some(2.5));
    }
}
