//! System-call latencies against the truth that the victim itself measured or knows.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{Agent, Report, Running, Waiting, eventually, victim, watch};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

/// Enough for any victim, also in an emulated machine.
const LIMIT: Duration = Duration::from_secs(300);

/// What the victim printed.
fn truth(report: &Report) -> Result<Value> {
    ensure!(report.ended.code() == Some(0), "{:?}", report.ended);
    serde_json::from_str(&report.ended.stdout).context("the victim printed no JSON")
}

/// Runs the victim under `helloops run`.
fn measured(options: &[&str], arguments: &[&str]) -> Result<Report> {
    let watch = watch(victim("syscalls")?).options(options).args(arguments);
    watch.limit(LIMIT).run()
}

/// That the report has what the truth says of each call: `{CALL:{"count","errors","unfinished"}}`.
fn agrees(report: &Report, truth: &Value) -> Result<()> {
    let calls = truth["calls"]
        .as_object()
        .context("the victim told of no calls")?;
    for (call, expected) in calls {
        let series = report.series(call)?;
        if let Some(count) = expected["count"].as_u64() {
            ensure!(
                series["count"] == count,
                "{call}: {expected}, but {series:#}"
            );
            ensure!(
                in_buckets(series) == count,
                "{call}: the buckets do not sum up: {series:#}"
            );
        }
        let unfinished = expected["unfinished"].as_u64().unwrap_or(0);
        ensure!(
            series["unfinished"] == unfinished,
            "{call}: {expected}, but {series:#}"
        );
        for (errno, count) in expected["errors"].as_object().into_iter().flatten() {
            ensure!(
                series["errors"][errno] == *count,
                "{call}: {expected}, but {series:#}"
            );
        }
        if expected["count"].is_u64() && expected["errors"].is_object() {
            ensure!(
                series["errors"] == expected["errors"],
                "{call}: {expected}, but {series:#}"
            );
        }
    }
    Ok(())
}

fn buckets(series: &Value) -> impl Iterator<Item = (u64, u64, u64)> {
    let buckets = series["buckets"].as_array().map_or(&[][..], Vec::as_slice);
    let number = |bucket: &Value, at: usize| bucket[at].as_u64().unwrap_or(0);
    buckets
        .iter()
        .map(move |bucket| (number(bucket, 0), number(bucket, 1), number(bucket, 2)))
}

fn in_buckets(series: &Value) -> u64 {
    buckets(series).map(|(_, _, count)| count).sum()
}

/// The bucket that holds the `rank`th shortest call, from 1.
fn bucket_of_rank(series: &Value, rank: u64) -> Result<(u64, u64)> {
    let mut before = 0;
    for (low, high, count) in buckets(series) {
        before += count;
        if rank <= before {
            return Ok((low, high));
        }
    }
    anyhow::bail!("there is no call of rank {rank} in {series:#}")
}

/// The rank that a quantile stands for among `count` values.
fn rank(quantile: f64, count: usize) -> usize {
    ((quantile * count as f64).ceil() as usize).clamp(1, count)
}

/// The victim reads its clock before it enters the kernel and after it has left, so its durations
/// are longer than the kernel side's, by what it measures of a call that does nothing
/// (`overhead_ns`). Both see the same delays of the timer and the scheduler but for those on the way
/// out of the kernel, which put single calls elsewhere in the order; hence the quantiles, whose
/// neighbours are close, and not the maximum.
#[test]
fn quantiles_are_within_one_percent_of_what_the_victim_measured() -> Result<()> {
    let report = measured(&[], &["bimodal", "200000", "200000000", "2000", "60"])?;
    let truth = truth(&report)?;
    let durations: Vec<u64> = truth["durations_ns"]
        .as_array()
        .context("no durations")?
        .iter()
        .filter_map(Value::as_u64)
        .collect();
    let overhead = truth["overhead_ns"].as_u64().context("no overhead")?;
    let series = report.series("nanosleep")?;
    ensure!(series["count"] == truth["count"], "{series:#}");
    ensure!(series["wait"] == true, "{series:#}");

    for quantile in [0.1, 0.25, 0.5, 0.75, 0.9, 0.98, 0.99] {
        let rank = rank(quantile, durations.len());
        let measured = durations[rank - 1];
        let (low, high) = bucket_of_rank(series, rank as u64)?;
        let shown = low.midpoint(high) as f64;
        let lowest = (measured - overhead) as f64 * 0.99;
        let highest = measured as f64 * 1.01;
        ensure!(
            (lowest..=highest).contains(&shown),
            "quantile {quantile}: the victim measured {measured} ns (overhead {overhead} ns), \
             shown is {low} to {high} ns"
        );
    }
    for (name, quantile) in [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99)] {
        let (low, high) = bucket_of_rank(series, rank(quantile, durations.len()) as u64)?;
        let shown = series["quantiles"][name]
            .as_u64()
            .context("no such quantile")?;
        ensure!(
            (low..=high).contains(&shown),
            "{name}: {shown} is not in {low} to {high}"
        );
    }
    Ok(())
}

#[test]
fn counts_and_error_counts_are_exactly_those_of_the_calls_made() -> Result<()> {
    let report = measured(&[], &["counts", "10000"])?;
    agrees(&report, &truth(&report)?)
}

#[test]
fn calls_of_many_threads_at_once_are_counted_exactly() -> Result<()> {
    let report = measured(&[], &["threads", "16", "50000"])?;
    agrees(&report, &truth(&report)?)
}

#[test]
fn a_call_that_never_returned_is_unfinished_and_has_no_latency() -> Result<()> {
    let report = measured(&[], &["in_flight"])?;
    agrees(&report, &truth(&report)?)
}

#[test]
fn a_call_that_was_in_flight_when_watching_started_is_not_counted() -> Result<()> {
    let victim = Waiting::start(victim("syscalls")?, ["in_flight_before", "100"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let ended = victim.go_and_end()?;
    let truth: Value = serde_json::from_str(&ended.stdout)?;
    let expected = &truth["calls"]["readv"]["count"];
    let series = agent.series("readv", |series| {
        series["count"].as_u64() >= expected.as_u64()
    })?;
    ensure!(
        series["count"] == *expected && series["unfinished"] == 0,
        "{series:#}"
    );
    Ok(())
}

#[test]
fn a_call_that_the_kernel_restarts_after_a_signal_is_counted_once() -> Result<()> {
    let report = measured(&[], &["interrupted", "restart", "20"])?;
    agrees(&report, &truth(&report)?)
}

#[test]
fn a_call_that_a_signal_interrupts_is_counted_once_and_failed_with_eintr() -> Result<()> {
    let report = measured(&[], &["interrupted", "fail", "20"])?;
    agrees(&report, &truth(&report)?)
}

#[test]
fn a_sleep_that_is_stopped_and_continued_is_one_call() -> Result<()> {
    let watching = watch(victim("syscalls")?)
        .args(["one_sleep", "2000"])
        .start()?;
    let pid = child_of(watching.running.pid(), "syscalls")?;
    until_in_call(pid, libc::SYS_nanosleep)?;
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, Signal::SIGSTOP)?;
    eventually("stopped victim", LIMIT, || {
        Ok(fs::read_to_string(format!("/proc/{pid}/stat"))?
            .contains(") T ")
            .then_some(()))
    })?;
    nix::sys::signal::kill(pid, Signal::SIGCONT)?;
    let report = watching.finish()?;
    ensure!(report.ended.code() == Some(0), "{:?}", report.ended);
    let series = report.series("nanosleep")?;
    ensure!(
        series["count"] == 1 && series["errors"] == json!({}),
        "{series:#}"
    );
    ensure!(series["min"].as_u64() >= Some(1_980_000_000), "{series:#}");
    ensure!(
        report.series("restart_syscall").is_err(),
        "{:#}",
        report.json
    );
    Ok(())
}

/// The child of a process that runs a program of this name.
fn child_of(parent: u32, name: &str) -> Result<u32> {
    eventually(name, LIMIT, || {
        let children = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let threads = fs::read_dir(format!("/proc/{parent}/task"))?;
        let of_threads = threads
            .flatten()
            .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
        let all: String = of_threads.chain(children).collect();
        let mut pids = all
            .split_whitespace()
            .filter_map(|pid| pid.parse::<u32>().ok());
        Ok(pids.find(|pid| {
            let comm = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            comm.trim() == name
        }))
    })
}

fn until_in_call(pid: u32, number: libc::c_long) -> Result<()> {
    let wanted = format!("{number} ");
    eventually("victim in its call", LIMIT, || {
        let call = fs::read_to_string(format!("/proc/{pid}/syscall"))?;
        Ok(call.starts_with(&wanted).then_some(()))
    })
}

#[test]
fn processes_that_are_counted_on_their_own_sum_up_to_the_target() -> Result<()> {
    let victim = Waiting::start(victim("syscalls")?, ["processes", "4", "1000"])?;
    let pid = victim.pid().to_string();
    let agent = Agent::start(["--per-process", "--pid", &pid])?;
    let ended = victim.go_and_end()?;
    let truth: Value = serde_json::from_str(&ended.stdout)?;
    let truth = truth["getppid"].as_object().context("no calls")?;
    let expected: u64 = truth.values().filter_map(Value::as_u64).sum();
    let mut seen = Value::Null;
    eventually("counts of all processes", LIMIT, || {
        seen = agent.ask(["hist", "--call", "getppid"])?;
        let counts = seen["series"].as_array().into_iter().flatten();
        let sum: u64 = counts.filter_map(|series| series["count"].as_u64()).sum();
        Ok((sum >= expected).then_some(()))
    })
    .with_context(|| format!("expected {truth:?}, there is {seen:#}"))?;
    let series = seen["series"].as_array().context("no series")?;
    for (pid, count) in truth {
        let own = series
            .iter()
            .find(|series| series["pid"].as_u64() == pid.parse().ok());
        let own = own.with_context(|| format!("no series of process {pid} in {seen:#}"))?;
        ensure!(
            own["count"] == *count,
            "process {pid}: {count}, but {own:#}"
        );
        let asked = agent.ask(["hist", "--call", "getppid", "--pid", pid])?;
        ensure!(asked["series"][0]["count"] == *count, "{asked:#}");
    }
    ensure!(series.len() == truth.len(), "{seen:#}");
    Ok(())
}

#[test]
fn processes_of_a_command_are_counted_on_their_own_when_asked_for() -> Result<()> {
    let victim = victim("syscalls")?;
    let script = "\"$0\" hot getppid 1000 & \"$0\" hot getppid 2000 & wait";
    let report = watch("/bin/sh")
        .options(["--per-process"])
        .args(["-c", script, &victim.to_string_lossy()])
        .run()?;
    let all = report.json["syscalls"].as_array().context("no series")?;
    let mut counts: Vec<(u64, bool)> = all
        .iter()
        .filter(|series| series["call"] == "getppid")
        .filter_map(|series| Some((series["count"].as_u64()?, series["pid"].is_u64())))
        .filter(|(count, _)| *count >= 1_000)
        .collect();
    counts.sort_unstable();
    ensure!(counts == [(1_000, true), (2_000, true)], "{counts:?}");
    Ok(())
}

#[test]
fn calls_of_a_32_bit_program_have_the_names_that_they_have_there() -> Result<()> {
    let compat = victim("compat")?;
    if !runs_here(&compat)? {
        eprintln!("SKIPPED: this kernel runs no 32-bit programs (CONFIG_IA32_EMULATION)");
        return Ok(());
    }
    let report = watch(compat).run()?;
    agrees(
        &report,
        &json!({"calls": {
            "getppid": {"count": 1_000, "errors": {}},
            "close": {"count": 10, "errors": {"EBADF": 10}},
        }}),
    )?;
    for other in ["semget", "lstat"] {
        ensure!(report.series(other).is_err(), "{:#}", report.json);
    }
    Ok(())
}

fn runs_here(program: &Path) -> Result<bool> {
    match Running::start(&mut Command::new(program), LIMIT) {
        Ok(running) => Ok(running.wait()?.code() == Some(0)),
        Err(error) => match error.root_cause().downcast_ref::<std::io::Error>() {
            Some(cause) if cause.raw_os_error() == Some(libc::ENOEXEC) => Ok(false),
            _ => Err(error),
        },
    }
}

#[test]
fn a_window_has_only_what_happened_in_it() -> Result<()> {
    let victim = Waiting::start(victim("syscalls")?, ["batches", "1000", "500"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    victim.go()?;
    agent.series("getppid", |series| series["count"] == 500)?;
    let getppid = |window: &[&str]| -> Result<Option<u64>> {
        let asked = ["hist", "--call", "getppid"].iter().chain(window);
        let answer = agent.ask(asked)?;
        Ok(answer["series"][0]["count"].as_u64())
    };
    eventually("window without the calls", LIMIT, || {
        Ok(getppid(&["--window", "3s"])?.is_none().then_some(()))
    })?;
    ensure!(getppid(&["--window", "1h"])? == Some(500));
    ensure!(getppid(&[])? == Some(500));
    Ok(())
}

#[test]
fn windows_that_cannot_be_shown_are_refused_with_those_that_can() -> Result<()> {
    for (window, says) in [
        ("25h", "1s to 24h"),
        ("0s", "1s to 24h"),
        ("soon", "30s, 5m"),
    ] {
        let ended = helloops_tests::cli(["hist", "--window", window])?;
        ensure!(ended.code() == Some(2), "{ended:?}");
        ensure!(ended.stderr.contains(says), "{ended:?}");
    }
    Ok(())
}

#[test]
fn a_series_has_all_that_the_documentation_names() -> Result<()> {
    let report = measured(&[], &["counts", "100"])?;
    for series in report.json["syscalls"].as_array().context("no series")? {
        for name in ["count", "unfinished", "min", "max"] {
            ensure!(series[name].is_u64(), "{name} in {series:#}");
        }
        ensure!(
            series["target"] == "syscalls" && series["pid"].is_null(),
            "{series:#}"
        );
        ensure!(
            series["metric"] == "syscall" && series["unit"] == "ns",
            "{series:#}"
        );
        ensure!(
            series["call"].is_string() && series["wait"].is_boolean(),
            "{series:#}"
        );
        ensure!(
            series["errors"].is_object() && series["mean"].is_number(),
            "{series:#}"
        );
        for name in ["0.5", "0.9", "0.99", "0.999"] {
            ensure!(series["quantiles"][name].is_u64(), "{name} in {series:#}");
        }
        for (low, high, count) in buckets(series) {
            ensure!(low <= high && count > 0, "{series:#}");
            // Two significant digits: no bucket is wider than 1/128 of its value.
            ensure!(high - low <= low / 128, "{series:#}");
        }
    }
    Ok(())
}
