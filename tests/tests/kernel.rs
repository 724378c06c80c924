//! What must work on every kernel: `cargo xtask vm` runs this file on Debian's other ones, and
//! `cargo xtask test` runs it on this machine's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{Running, frame, helloops, own_functions, place, victim, watch};
use serde_json::Value;

/// Emulation is some ten times slower than the real thing.
const LIMIT: Duration = Duration::from_secs(300);

/// `cargo xtask vm` says which kernel it boots.
#[test]
fn the_kernel_is_the_one_asked_for_and_has_btf() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if let Ok(wanted) = std::env::var("HELLOOPS_KERNEL") {
        ensure!(
            release.starts_with(&wanted),
            "this is {release}, not {wanted}"
        );
    }
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "{release} has no BTF"
    );
    Ok(())
}

#[test]
fn the_kernel_takes_every_program_and_offers_all_that_is_used() -> Result<()> {
    let mut command = Command::new(helloops()?);
    let ended = Running::start(command.args(["doctor", "--json"]), LIMIT)?.wait()?;
    let found: Value = serde_json::from_str(&ended.stdout).with_context(|| format!("{ended:?}"))?;
    let features = found["features"].as_array().context("no features")?;
    ensure!(!features.is_empty(), "{found:#}");
    for feature in features {
        assert_eq!(feature["available"], true, "{feature:#}");
    }
    assert_eq!(ended.code(), Some(0));
    Ok(())
}

#[test]
fn a_panic_shows_its_message_location_and_stack() -> Result<()> {
    let program = watch(victim("rust_panics")?).limit(LIMIT);
    let report = program.args(["inlined", "3"]).run()?;
    let fault = report.fault("panic")?;
    assert_eq!(fault["message"], "innermost got 8");
    let at = place("rust_panics.rs", "panic!(\"innermost got {number}\")")?;
    at.is_exactly_of(&fault["location"])?;
    at.is_exactly_of(frame(fault, "rust_panics::innermost")?)?;
    assert_eq!(
        own_functions(fault),
        [
            "rust_panics::innermost",
            "rust_panics::middle",
            "rust_panics::outermost",
            "rust_panics::through_inlined_functions",
            "rust_panics::main"
        ]
    );
    assert_eq!(fault["exit_code"], 101);
    assert_eq!(report.ended.code(), Some(101));
    Ok(())
}

#[test]
fn an_abort_shows_where_it_was_called_and_how_it_ended() -> Result<()> {
    let program = watch(victim("c_faults")?).limit(LIMIT);
    let report = program.args(["abort"]).run()?;
    let fault = report.fault("abort")?;
    place("c_faults.c", "abort(); }")?.is_of(&fault["location"])?;
    assert_eq!(own_functions(fault), ["call_abort", "main"]);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(())
}

#[test]
fn a_wild_write_shows_its_address_and_stack() -> Result<()> {
    let program = watch(victim("c_faults")?).limit(LIMIT);
    let report = program.args(["segv_addr"]).run()?;
    let fault = report.fault("signal")?;
    assert_eq!(fault["signal"]["name"], "SIGSEGV");
    assert_eq!(fault["signal"]["address"], 0xdead_0000_u32);
    assert_eq!(own_functions(fault), ["write_to", "main"]);
    Ok(())
}

#[test]
fn system_calls_and_their_errors_are_counted_exactly() -> Result<()> {
    let program = watch(victim("syscalls")?).limit(LIMIT);
    let report = program.args(["counts", "500"]).run()?;
    let truth: Value =
        serde_json::from_str(&report.ended.stdout).with_context(|| report.ended.stdout.clone())?;
    let calls = truth["calls"]
        .as_object()
        .context("the victim tells no truth")?;
    for (call, truth) in calls {
        let series = report.series(call)?;
        for (errno, count) in truth["errors"].as_object().into_iter().flatten() {
            assert_eq!(&series["errors"][errno], count, "{call}, {errno}");
        }
        // The loader makes some of them too.
        if truth["count"].is_null() {
            continue;
        }
        assert_eq!(series["count"], truth["count"], "{call}");
        let buckets = series["buckets"].as_array().context("no buckets")?;
        let counted: u64 = buckets.iter().filter_map(|bucket| bucket[2].as_u64()).sum();
        assert_eq!(truth["count"], counted, "{call}");
    }
    Ok(())
}
