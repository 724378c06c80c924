//! What a system call costs under each watcher, measured by the victim that makes it.
//!
//! All settings take turns for several rounds, so that a slow moment of the machine hits all alike,
//! and the medians are compared.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::background::{Agent, Background};
use super::empty_pair::EmptyPair;
use super::{median, victim};
use crate::build::Built;
use crate::shell;

const ROUNDS: usize = 7;
const CALLS: [&str; 2] = ["getppid", "read"];
const TRACEFS: &str = "/sys/kernel/tracing";
/// The most that HelloOps may add, as a share of what bpftrace adds.
const GOAL: f64 = 1.0 / 3.0;

/// What watches, while the victim calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setting {
    Unwatched,
    EmptyPair,
    Beside,
    Watched,
    Bpftrace,
    Strace,
}

impl Setting {
    const ALL: [Self; 6] = [
        Self::Unwatched,
        Self::EmptyPair,
        Self::Beside,
        Self::Watched,
        Self::Bpftrace,
        Self::Strace,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Unwatched => "unwatched",
            Self::EmptyPair => "empty pair of raw tracepoints",
            Self::Beside => "beside a watch of something else",
            Self::Watched => "watched: helloops run",
            Self::Bpftrace => "bpftrace, hist() per call",
            Self::Strace => "strace -c -f",
        }
    }

    /// How many calls fit a round, which takes a fraction of a second for each setting.
    fn calls(self) -> u32 {
        match self {
            Self::Strace => 3_000,
            _ => 1_000_000,
        }
    }

    /// One round: ns per call, as the victim measured it.
    fn measure(self, built: &Built, call: &str) -> Result<f64> {
        let mut victim = victim(built, "hot");
        victim.args([call, &self.calls().to_string()]);
        let words = || std::iter::once(victim.get_program()).chain(victim.get_args());
        let said = match self {
            Self::Unwatched => shell::output(&mut victim)?,
            Self::EmptyPair => {
                let _pair = EmptyPair::attach()?;
                shell::output(&mut victim)?
            }
            Self::Beside => {
                // Watched by executable, which must be another than the victim's.
                let other = built.victims.join("c_faults");
                let _idle = Background::start(Command::new(&other).arg("sleep"))?;
                let target = ["--exe".to_owned(), other.display().to_string()];
                let _agent = Agent::start(&built.helloops, &target)?;
                shell::output(&mut victim)?
            }
            Self::Watched => {
                let mut helloops = Command::new(&built.helloops);
                shell::output(helloops.args(["run", "--"]).args(words()))?
            }
            Self::Bpftrace => {
                let command: Vec<_> = words().map(|word| word.to_string_lossy()).collect();
                let mut bpftrace = Command::new("bpftrace");
                shell::output(bpftrace.args(["-e", BPFTRACE, "-c", &command.join(" ")]))?
            }
            Self::Strace => {
                let mut strace = Command::new("strace");
                strace.args(["-c", "-f", "-o", "/dev/null"]);
                shell::output(strace.args(words()))?
            }
        };
        ns_per_call(&said)
    }
}

/// What HelloOps does, in bpftrace's words: the latency of each call of one process, by call.
const BPFTRACE: &str = "
tracepoint:raw_syscalls:sys_enter /pid == cpid/ { @start[tid] = nsecs; }
tracepoint:raw_syscalls:sys_exit /pid == cpid && @start[tid]/ {
    @ns[args->id] = hist(nsecs - @start[tid]);
    delete(@start[tid]);
}";

/// The victim's own line is the one that is JSON.
fn ns_per_call(output: &str) -> Result<f64> {
    output
        .lines()
        .find_map(|line| serde_json::from_str::<Value>(line).ok()?["ns_per_call"].as_f64())
        .with_context(|| format!("the victim did not say what a call took, only: {output}"))
}

/// Measures all settings with all calls and prints the comparison.
///
/// # Errors
/// When a setting cannot be measured; after the others' results.
pub fn run(built: &Built) -> Result<()> {
    mount_tracefs()?;
    let mut failed = Vec::new();
    for call in CALLS {
        let results = measure_all(built, call, &mut failed);
        print(call, &results);
    }
    if !failed.is_empty() {
        bail!("not measured:\n{}", failed.join("\n"));
    }
    Ok(())
}

/// All rounds of one setting, in ns per call.
struct Measured {
    setting: Setting,
    rounds: Vec<f64>,
}

fn measure_all(built: &Built, call: &str, failed: &mut Vec<String>) -> Vec<Measured> {
    let mut all = Vec::from(Setting::ALL.map(|setting| Measured {
        setting,
        rounds: Vec::new(),
    }));
    for round in 1..=ROUNDS {
        shell::say(&format!("{call}: round {round} of {ROUNDS}"));
        all.retain_mut(|measured| match measured.setting.measure(built, call) {
            Ok(ns) => {
                measured.rounds.push(ns);
                true
            }
            Err(error) => {
                failed.push(format!("{call}, {}: {error:#}", measured.setting.name()));
                false
            }
        });
    }
    all
}

fn print(call: &str, all: &[Measured]) {
    let typical = |setting| {
        let measured = all.iter().find(|measured| measured.setting == setting)?;
        median(&mut measured.rounds.clone())
    };
    let Some(unwatched) = typical(Setting::Unwatched) else {
        return;
    };
    let bpftrace = typical(Setting::Bpftrace).map(|ns| ns - unwatched);

    println!("\n{call}: ns per call, median of {ROUNDS} rounds");
    println!(
        "{:34} {:>9} {:>19} {:>9} {:>12}",
        "", "median", "lowest-highest", "added", "of bpftrace"
    );
    for Measured { setting, rounds } in all {
        let Some(ns) = median(&mut rounds.clone()) else {
            continue;
        };
        let lowest = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let highest = rounds.iter().copied().fold(0.0, f64::max);
        let added = ns - unwatched;
        let share = bpftrace.map_or_else(String::new, |all| format!("{:.2}", added / all));
        println!(
            "{:34} {ns:>9.1} {:>19} {added:>9.1} {share:>12}",
            setting.name(),
            format!("{lowest:.1}-{highest:.1}")
        );
    }
    if let (Some(watched), Some(bpftrace)) = (typical(Setting::Watched), bpftrace) {
        let share = (watched - unwatched) / bpftrace;
        let verdict = if share <= GOAL { "reached" } else { "missed" };
        println!("watched adds {share:.2} of what bpftrace adds; at most {GOAL:.2}: {verdict}");
    }
    if let (Some(beside), Some(pair)) = (typical(Setting::Beside), typical(Setting::EmptyPair)) {
        println!(
            "beside: {:+.1} ns to an empty pair of raw tracepoints",
            beside - pair
        );
    }
}

/// bpftrace looks its tracepoints up there.
fn mount_tracefs() -> Result<()> {
    if Path::new(TRACEFS).join("events").is_dir() {
        return Ok(());
    }
    shell::say(&format!("mounting tracefs at {TRACEFS}, for bpftrace"));
    fs::create_dir_all(TRACEFS).with_context(|| format!("cannot create {TRACEFS}"))?;
    shell::check(Command::new("mount").args(["-t", "tracefs", "tracefs", TRACEFS]))
}

#[cfg(test)]
mod tests {
    use super::ns_per_call;

    #[test]
    fn the_victim_is_heard_among_a_watcher_s_output() {
        let output =
            "Attaching 2 probes...\n{\"call\":\"read\",\"ns_per_call\":151.5}\n@ns[0]: 1\n";
        assert!(ns_per_call(output).is_ok_and(|ns| ns == 151.5));
        assert!(ns_per_call("nothing").is_err());
    }
}
