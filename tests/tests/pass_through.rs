//! `helloops run` is not in the way: what goes in and out of a command is the command's own, and so
//! is how it ends.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use helloops_tests::{Ended, Running, eventually, helloops, victim, watch};
use nix::sys::signal::Signal;
use serde_json::json;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `helloops run` with these arguments, without a report.
fn run(arguments: &[&str]) -> Result<Ended> {
    Running::start(Command::new(helloops()?).arg("run").args(arguments), LIMIT)?.wait()
}

#[test]
fn standard_input_and_output_are_the_commands_own() -> Result<()> {
    let directory = TempDir::new()?;
    // More than a pipe holds, of all bytes, also such as are no text.
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let (given, got) = (directory.path().join("in"), directory.path().join("out"));
    fs::write(&given, &bytes)?;
    let script = "cat \"$2\" | \"$1\" run -- cat | cat > \"$3\"";
    let mut command = Command::new("sh");
    command
        .args(["-c", script, "sh"])
        .args([&helloops()?, &given, &got]);
    let ended = Running::start(&mut command, LIMIT)?.wait()?;
    ensure!(ended.status.success(), "{ended:?}");
    ensure!(fs::read(got)? == bytes, "the bytes have changed");
    Ok(())
}

#[test]
fn what_helloops_has_to_say_goes_to_standard_error() -> Result<()> {
    let ended = run(&["--", "sh", "-c", "echo out; echo err >&2; exit 3"])?;
    assert_eq!(ended.stdout, "out\n");
    ensure!(ended.stderr.starts_with("err\n"), "{}", ended.stderr);
    ensure!(
        ended.stderr.contains("exited with code 3"),
        "{}",
        ended.stderr
    );

    let ended = run(&[
        "--quiet",
        "--",
        "sh",
        "-c",
        "echo out; echo err >&2; exit 3",
    ])?;
    assert_eq!((&*ended.stdout, &*ended.stderr), ("out\n", "err\n"));
    assert_eq!(ended.code(), Some(3));
    Ok(())
}

#[test]
fn arguments_and_environment_reach_the_command_as_they_are() -> Result<()> {
    let script = "printf '%s|' \"$0\" \"$@\" \"$PATH\"";
    let ended = run(&["--", "sh", "-c", script, "a b", "", "--report", "*", "--"])?;
    let path = std::env::var("PATH")?;
    assert_eq!(ended.stdout, format!("a b||--report|*|--|{path}|"));
    Ok(())
}

#[test]
fn helloops_ends_with_the_commands_exit_code() -> Result<()> {
    for code in [0, 3, 255] {
        let ended = run(&["--", "sh", "-c", &format!("exit {code}")])?;
        assert_eq!(ended.code(), Some(code), "{ended:?}");
    }
    Ok(())
}

#[test]
fn helloops_dies_by_the_signal_that_the_command_dies_by() -> Result<()> {
    let program = victim("c_faults")?;
    let program = program.to_string_lossy();
    assert_eq!(
        run(&["--", &program, "segv_null"])?.signal(),
        Some(libc::SIGSEGV)
    );
    let killed = run(&["--", "sh", "-c", "kill -KILL $$"])?;
    assert_eq!(killed.signal(), Some(libc::SIGKILL));
    Ok(())
}

#[test]
fn signals_reach_the_command() -> Result<()> {
    for (signal, number) in [(Signal::SIGTERM, 15), (Signal::SIGUSR1, 10)] {
        // The shell cannot take a signal while it waits for another program, but in `wait`.
        let script = format!(
            "trap 'exit {number}' {number}; echo > \"$0\"; sleep 60 > /dev/null 2>&1 & wait"
        );
        let directory = TempDir::new()?;
        let ready = directory.path().join("ready");
        let watching = watch("sh").args(["-c", &script]).args([&ready]).start()?;
        eventually("command", LIMIT, || Ok(ready.exists().then_some(())))?;
        watching.running.signal(signal)?;
        let report = watching.finish()?;
        assert_eq!(report.json["exit"], json!({"code": number}));
        assert_eq!(report.ended.code(), Some(number));
    }
    Ok(())
}

#[test]
fn a_command_that_does_not_exist_is_named_and_ends_with_127() -> Result<()> {
    for command in [
        "no-such-command-at-all",
        "/nonexistent/command",
        "/etc/passwd",
    ] {
        let ended = run(&["--", command])?;
        assert_eq!(ended.code(), Some(127), "{ended:?}");
        ensure!(ended.stderr.contains(command), "{}", ended.stderr);
    }
    Ok(())
}

#[test]
fn a_report_that_cannot_be_written_is_an_error_that_names_it() -> Result<()> {
    let ended = run(&["--report", "/nonexistent/report.json", "--", "true"])?;
    assert_eq!(ended.code(), Some(125), "{ended:?}");
    ensure!(
        ended.stderr.contains("/nonexistent/report.json"),
        "{}",
        ended.stderr
    );
    Ok(())
}

#[test]
fn a_report_is_for_its_owner_only_and_says_what_ran() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let directory = TempDir::new()?;
    let file = directory.path().join("report.json");
    let ended = run(&[
        "--report",
        &file.to_string_lossy(),
        "--",
        "sh",
        "-c",
        "exit 3",
    ])?;
    assert_eq!(ended.code(), Some(3));
    assert_eq!(fs::metadata(&file)?.permissions().mode() & 0o777, 0o600);
    let report: serde_json::Value = serde_json::from_slice(&fs::read(&file)?)?;
    assert_eq!(report["command"], json!(["sh", "-c", "exit 3"]));
    assert_eq!(report["exit"], json!({"code": 3}));
    ensure!(report["version"].is_string(), "{report:#}");
    ensure!(
        report["started"].as_str() < report["ended"].as_str(),
        "{report:#}"
    );
    Ok(())
}
