//! Faults of programs that nobody wrote for HelloOps.

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{Report, eventually, own_functions, watch};
use serde_json::{Value, json};
use tempfile::TempDir;

const REDIS: &str = "/usr/bin/redis-server";
const STARTED: Duration = Duration::from_secs(60);

/// Runs Debian's redis-server under watch and sends it one command.
fn redis(command: &str) -> Result<Report> {
    ensure!(
        Path::new(REDIS).exists(),
        "{REDIS} is missing: install Debian's package redis-server"
    );
    let directory = TempDir::new()?;
    let socket = directory.path().join("redis.sock");
    let watching = watch(REDIS)
        .args(["--enable-debug-command", "yes"])
        .args(["--save", "", "--port", "0", "--unixsocket"])
        .args([&socket])
        .args(["--dir".as_ref(), directory.path().as_os_str()])
        .start()?;
    let mut connection = eventually("redis", STARTED, || Ok(UnixStream::connect(&socket).ok()))?;
    connection
        .write_all(format!("{command}\r\n").as_bytes())
        .context("redis takes no command")?;
    watching.finish()
}

/// Checks that redis's own way to the fault is in the stack: Debian strips its static functions, and
/// leaves the others.
fn expect_redis_stack(fault: &Value) {
    let own = own_functions(fault);
    let way = [
        "debugCommand",
        "call",
        "processCommand",
        "processInputBuffer",
        "readQueryFromClient",
        "aeMain",
        "main",
    ];
    let mut rest = own.iter();
    for function in way {
        let found = rest.any(|name| *name == function);
        assert!(found, "no {function} in its place in {own:?}");
    }
}

fn expect_redis(fault: &Value, report: &Report) -> Result<()> {
    assert_eq!(fault["comm"], "redis-server");
    assert_eq!(fault["exe"], json!(Path::new(REDIS).canonicalize()?));
    assert_eq!(fault["pid"], report.json["pid"]);
    assert_eq!(fault["target"], "redis-server");
    expect_redis_stack(fault);
    Ok(())
}

#[test]
fn redis_that_is_told_to_crash_shows_the_address_and_the_command_that_did_it() -> Result<()> {
    let report = redis("DEBUG SEGFAULT")?;
    let fault = report.fault("signal")?;
    expect_redis(fault, &report)?;
    // It writes to a page that it made read-only; its handler reports, and raises the signal again.
    assert_eq!(fault["signal"]["name"], "SIGSEGV");
    assert_eq!(fault["signal"]["code"], "SEGV_ACCERR");
    ensure!(fault["signal"]["address"].as_u64() > Some(0), "{fault:#}");
    assert_eq!(fault["signal"]["sender_pid"], Value::Null);
    assert_eq!(report.ended.signal(), Some(libc::SIGSEGV));
    Ok(())
}

#[test]
fn redis_that_is_told_to_panic_shows_its_abort_and_the_command_that_did_it() -> Result<()> {
    let report = redis("DEBUG PANIC")?;
    let fault = report.fault("abort")?;
    expect_redis(fault, &report)?;
    ensure!(own_functions(fault).contains(&"_serverPanic"), "{fault:#}");
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    assert_eq!(report.ended.signal(), Some(libc::SIGABRT));
    Ok(())
}

#[test]
fn redis_that_is_shut_down_has_no_fault() -> Result<()> {
    let report = redis("SHUTDOWN NOSAVE")?;
    assert_eq!(report.faults(), [] as [Value; 0]);
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}
