//! What must work on every kernel: `cargo xtask vm` runs this file on Debian's other ones, and
//! `cargo xtask test` runs it on this machine's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{Running, functions, victim, watch};
use serde_json::Value;

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
fn a_victim_runs_here() -> Result<()> {
    let mut command = Command::new(victim("cpp_faults")?);
    let ended = Running::start(command.arg("runtime_error"), Duration::from_secs(20))?.wait()?;
    ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
    ensure!(ended.stderr.contains("order 7 is lost"), "{ended:?}");
    Ok(())
}

#[test]
fn a_rust_panic_shows_its_message_thread_and_inlined_frames() -> Result<()> {
    let report = watch(victim("rust_panics")?).args(["named_thread"]).run()?;
    let fault = report.only("panic")?;
    ensure!(
        fault["message"] == "invoice 42 has no customer",
        "{fault:#}"
    );
    ensure!(fault["comm"] == "billing-worker", "{fault:#}");
    ensure!(functions(fault).contains(&"rust_panics::bill"), "{fault:#}");
    ensure!(report.ended.code() == Some(0), "{:?}", report.ended);

    let report = watch(victim("rust_panics")?).args(["inlined", "3"]).run()?;
    let fault = report.only("panic")?;
    let names = functions(fault);
    let chain = [
        "rust_panics::innermost",
        "rust_panics::middle",
        "rust_panics::outermost",
        "rust_panics::through_inlined_functions",
        "rust_panics::main",
    ];
    ensure!(
        names.windows(chain.len()).any(|part| part == chain),
        "{names:#?}"
    );
    ensure!(report.ended.code() == Some(101), "{:?}", report.ended);
    Ok(())
}

#[test]
fn system_calls_and_their_errors_are_counted_exactly() -> Result<()> {
    let report = watch(victim("syscalls")?).args(["counts", "1000"]).run()?;
    let truth: Value = serde_json::from_str(&report.ended.stdout)?;
    let calls = truth["calls"]
        .as_object()
        .context("the victim tells no truth")?;
    for (call, truth) in calls {
        let series = report.series(call)?;
        if !truth["count"].is_null() {
            ensure!(series["count"] == truth["count"], "{call}: {series:#}");
        }
        let errors = truth["errors"].as_object().into_iter().flatten();
        for (errno, count) in errors {
            ensure!(
                &series["errors"][errno] == count,
                "{call}, {errno}: {series:#}"
            );
        }
    }
    Ok(())
}
