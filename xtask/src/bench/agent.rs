//! What the agent takes while nothing happens: memory and processor time, with 20 targets.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;

use super::background::{Agent, Background};
use super::victim;
use crate::build::Built;
use crate::shell;

const TARGETS: usize = 20;
/// Lets the agent finish reading its targets' binaries.
const SETTLE: Duration = Duration::from_secs(5);
const MEASURE: Duration = Duration::from_secs(20);

const GOAL_MIB: f64 = 64.0;
const GOAL_PERCENT: f64 = 0.2;

/// Measures and prints.
///
/// # Errors
/// When the agent does not start or ends early.
pub fn run(built: &Built) -> Result<()> {
    let sleepers = (0..TARGETS)
        .map(|_| Background::start(&mut victim(built, "idle")))
        .collect::<Result<Vec<_>>>()?;
    let targets: Vec<String> = sleepers
        .iter()
        .flat_map(|sleeper| ["--pid".to_owned(), sleeper.pid().to_string()])
        .collect();
    let agent = Agent::start(&built.helloops, &targets)?;
    shell::say(&format!(
        "the agent settles for {SETTLE:?} and is measured for {MEASURE:?}"
    ));
    thread::sleep(SETTLE);

    let pid = Pid::from_raw(i32::try_from(agent.pid())?);
    let (start, used) = (Instant::now(), processor_time(pid)?);
    thread::sleep(MEASURE);
    let used = processor_time(pid)?.saturating_sub(used);
    let percent = 100.0 * used.as_secs_f64() / start.elapsed().as_secs_f64();
    let mib = resident_mib(pid)?;

    println!("agent at rest with {TARGETS} targets:");
    println!(
        "resident        {mib:6.1} MiB   under {GOAL_MIB} MiB: {}",
        verdict(mib < GOAL_MIB)
    );
    println!(
        "processor time  {percent:6.3} % of a core   under {GOAL_PERCENT} %: {}",
        verdict(percent < GOAL_PERCENT)
    );
    Ok(())
}

fn verdict(reached: bool) -> &'static str {
    if reached { "reached" } else { "missed" }
}

/// What all threads of a process have used, those that have ended included.
fn processor_time(pid: Pid) -> Result<Duration> {
    clock_getcpuclockid(pid)
        .and_then(clock_gettime)
        .map(Duration::from)
        .with_context(|| format!("cannot read the processor time of process {pid}; did it end?"))
}

fn resident_mib(pid: Pid) -> Result<f64> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    let kib: f64 = status
        .lines()
        .find_map(|line| {
            line.strip_prefix("VmRSS:")?
                .trim()
                .strip_suffix(" kB")?
                .parse()
                .ok()
        })
        .with_context(|| format!("{path} does not say how much is resident"))?;
    Ok(kib / 1024.0)
}
