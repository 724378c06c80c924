//! What is asked for and cannot be had, or is too much: each time the user learns what is wrong and
//! what to do.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use helloops_tests::{
    Agent, Ended, OwnVictim, Running, cli, functions, helloops, open_directory, victim, watch,
};

const LIMIT: Duration = Duration::from_secs(120);

/// `helloops agent` with these arguments, which is to fail, and what it says.
fn refused<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<String> {
    let directory = open_directory()?;
    let socket = directory.path().join("socket");
    let mut command = Command::new(helloops()?);
    command
        .arg("--socket")
        .arg(&socket)
        .arg("agent")
        .args(arguments);
    let ended = Running::start(&mut command, LIMIT)?.wait()?;
    ensure!(ended.code() == Some(1), "{ended:?}");
    ensure!(!socket.exists(), "the socket is left behind");
    ensure!(!ended.stderr.contains("panicked"), "{ended:?}");
    Ok(ended.stderr)
}

fn says(text: &str, words: &[&str]) -> Result<()> {
    for word in words {
        ensure!(text.contains(word), "no '{word}' in: {text}");
    }
    Ok(())
}

/// A copy of `helloops` that anybody can start, run as nobody.
fn as_nobody(arguments: &[&str]) -> Result<Ended> {
    let directory = open_directory()?;
    let copy = directory.path().join("helloops");
    fs::copy(helloops()?, &copy)?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(copy)
        .args(arguments);
    Running::start(&mut command, LIMIT)?.wait()
}

#[test]
fn without_capabilities_they_are_named_with_the_way_to_grant_them() -> Result<()> {
    let ended = as_nobody(&["run", "--", "/bin/true"])?;
    ensure!(ended.code() == Some(125), "{ended:?}");
    says(
        &ended.stderr,
        &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE", "setcap", "sudo"],
    )?;
    let doctor = as_nobody(&["doctor"])?;
    ensure!(doctor.code() == Some(1), "{doctor:?}");
    says(
        &doctor.stdout,
        &["CAP_BPF", "CAP_PERFMON", "CAP_SYS_PTRACE"],
    )
}

#[test]
fn without_btf_the_loss_is_told_and_faults_are_still_captured() -> Result<()> {
    for btf in ["none", "/nonexistent", "/etc/passwd"] {
        let report = watch(victim("c_faults")?)
            .options(["--btf", btf])
            .args(["abort"])
            .run()?;
        ensure!(
            report.ended.signal() == Some(libc::SIGABRT),
            "{:?}",
            report.ended
        );
        says(
            &report.ended.stderr,
            &["kernel type information", "Lost without it"],
        )?;
        let abort = report.only("abort")?;
        ensure!(functions(abort).contains(&"call_abort"), "{abort:#}");

        let report = watch(victim("rust_panics")?)
            .options(["--btf", btf])
            .args(["main"])
            .run()?;
        let panic = report.only("panic")?;
        ensure!(
            functions(panic).contains(&"rust_panics::in_main"),
            "{panic:#}"
        );
    }
    Ok(())
}

#[test]
fn without_btf_system_calls_are_still_counted() -> Result<()> {
    let report = watch(victim("syscalls")?)
        .options(["--btf", "none"])
        .args(["hot", "getppid", "1000"])
        .run()?;
    ensure!(
        report.series("getppid")?["count"] == 1000,
        "{:#}",
        report.json
    );
    Ok(())
}

#[test]
fn an_agent_without_btf_says_in_its_status_what_is_lost() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let arguments = [
        OsStr::new("--btf"),
        OsStr::new("none"),
        OsStr::new("--exe"),
        own.path().as_os_str(),
    ];
    let agent = Agent::start(arguments)?;
    let status = agent.ask(["status"])?;
    let features = status["features"].as_array().cloned().unwrap_or_default();
    let missing: Vec<_> = features
        .iter()
        .filter(|feature| feature["available"] == false)
        .collect();
    ensure!(missing.len() == 1, "{status:#}");
    says(
        &missing[0].to_string(),
        &["kernel type information", "--btf none"],
    )
}

#[test]
fn a_process_that_is_not_there_is_refused() -> Result<()> {
    says(
        &refused(["--pid", "4194303"])?,
        &["no process 4194303", "ps"],
    )
}

#[test]
fn a_thread_given_for_a_process_is_refused_with_its_process() -> Result<()> {
    let own = std::process::id();
    let thread = std::thread::spawn(|| {
        let tid = nix::unistd::gettid().to_string();
        refused(["--pid", &tid])
    });
    let text = thread
        .join()
        .map_err(|_| anyhow::anyhow!("the thread panicked"))??;
    says(&text, &["is a thread", &format!("--pid {own}")])
}

#[test]
fn an_agent_without_a_target_is_refused() -> Result<()> {
    says(
        &refused::<&str>([])?,
        &["nothing to watch", "--exe", "--pid", "--comm", "--cgroup"],
    )
}

#[test]
fn a_path_that_leads_nowhere_is_refused() -> Result<()> {
    says(
        &refused(["--exe", "/nonexistent/shop"])?,
        &["/nonexistent/shop", "No such file"],
    )?;
    says(&refused(["--exe", "/etc"])?, &["/etc", "not a file"])?;
    says(
        &refused(["--cgroup", "no/such.service"])?,
        &["no/such.service", "system.slice"],
    )
}

#[test]
fn a_name_pattern_that_cannot_match_is_refused() -> Result<()> {
    says(&refused(["--comm", ""])?, &["empty"])?;
    says(&refused(["--comm", "[a"])?, &["[a", "`]`"])?;
    says(
        &refused(["--comm", &"x".repeat(40)])?,
        &["too long", "15 bytes"],
    )
}

/// A file with these bytes that may be executed.
fn program(directory: &Path, bytes: &[u8]) -> Result<PathBuf> {
    let path = directory.join("program");
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

#[test]
fn a_script_and_what_is_no_program_are_refused_as_executables() -> Result<()> {
    let directory = open_directory()?;
    let exe = |bytes: &[u8]| -> Result<String> {
        let path = program(directory.path(), bytes)?;
        refused([OsStr::new("--exe"), path.as_os_str()])
    };
    says(&exe(b"#!/bin/sh\nexit 0\n")?, &["a script", "interpreter"])?;
    says(
        &exe(b"hello, world, this is no program at all")?,
        &["not an ELF file"],
    )?;
    says(&exe(b"")?, &["not an ELF file"])
}

#[test]
fn a_truncated_executable_is_refused_wherever_it_was_cut() -> Result<()> {
    let directory = open_directory()?;
    let whole = fs::read(victim("c_faults")?)?;
    for length in [4, 40, 64, 200, 5_000] {
        let path = program(directory.path(), &whole[..length])?;
        let text = refused([OsStr::new("--exe"), path.as_os_str()])?;
        says(&text, &["a truncated ELF file"])?;
    }
    Ok(())
}

#[test]
fn a_watched_script_runs_as_it_does_without_helloops() -> Result<()> {
    let directory = open_directory()?;
    let path = program(directory.path(), b"#!/bin/sh\necho \"$1\"\nexit 4\n")?;
    let report = watch(path).args(["hello"]).run()?;
    ensure!(report.ended.code() == Some(4) && report.ended.stdout == "hello\n");
    report.only("exit")?;
    Ok(())
}

#[test]
fn a_command_that_is_not_there_ends_as_in_a_shell() -> Result<()> {
    let ended = cli(["run", "--", "no-such-command-anywhere"])?;
    ensure!(ended.code() == Some(127), "{ended:?}");
    says(&ended.stderr, &["no-such-command-anywhere", "PATH"])
}

#[test]
fn a_function_that_matches_nothing_is_refused_with_the_nearest_one() -> Result<()> {
    let rust = victim("rust_panics")?;
    let options = [
        OsStr::new("run"),
        "--probe".as_ref(),
        "rust_panics::bil".as_ref(),
    ];
    let command = [OsStr::new("--"), rust.as_os_str(), "main".as_ref()];
    let ended = cli(options.into_iter().chain(command))?;
    ensure!(ended.code() == Some(125), "{ended:?}");
    ensure!(ended.stdout.is_empty(), "{ended:?}");
    says(
        &ended.stderr,
        &["rust_panics::bil", "did you mean rust_panics::bill?"],
    )
}

#[test]
fn a_function_that_is_far_from_all_is_refused_without_a_guess() -> Result<()> {
    let rust = victim("rust_panics")?;
    let options = [
        OsStr::new("run"),
        "--probe".as_ref(),
        "zzzzzzzzzzzzzzzz".as_ref(),
    ];
    let command = [OsStr::new("--"), rust.as_os_str(), "main".as_ref()];
    let ended = cli(options.into_iter().chain(command))?;
    ensure!(ended.code() == Some(125), "{ended:?}");
    ensure!(!ended.stderr.contains("did you mean"), "{ended:?}");
    says(&ended.stderr, &["zzzzzzzzzzzzzzzz"])
}

#[test]
fn a_pattern_that_matches_thousands_of_functions_is_refused_with_their_number() -> Result<()> {
    let rust = victim("rust_panics")?;
    let options = [OsStr::new("run"), "--probe".as_ref(), "*".as_ref()];
    let command = [OsStr::new("--"), rust.as_os_str(), "main".as_ref()];
    let ended = cli(options.into_iter().chain(command))?;
    ensure!(ended.code() == Some(125), "{ended:?}");
    says(&ended.stderr, &["`*`", "functions"])?;
    ensure!(
        ended
            .stderr
            .contains(|character: char| character.is_ascii_digit()),
        "{ended:?}"
    );
    Ok(())
}

#[test]
fn what_finds_no_room_in_a_tiny_ring_is_counted_and_shown() -> Result<()> {
    const PANICS: u64 = 2_000;
    let report = watch(victim("rust_panics")?)
        .options(["--ring", "4"])
        .args(["many", &PANICS.to_string()])
        .run()?;
    ensure!(report.ended.code() == Some(0), "{:?}", report.ended);
    let lost = &report.json["lost"];
    let number = |cause: &str| lost[cause].as_u64().unwrap_or(0);
    ensure!(number("faults") + number("stacks") > 0, "{lost:#}");
    let seen = report.faults_of("panic").len() as u64;
    ensure!(
        seen + number("faults") == PANICS,
        "{seen} seen of {PANICS}, lost {lost:#}"
    );
    says(&report.ended.stderr, &["lost:"])
}

#[test]
fn an_agent_shows_what_it_lost_in_every_answer() -> Result<()> {
    let own = OwnVictim::of("rust_panics")?;
    let arguments = [
        OsStr::new("--ring"),
        OsStr::new("4"),
        OsStr::new("--exe"),
        own.path().as_os_str(),
    ];
    let agent = Agent::start(arguments)?;
    let mut storm = Command::new(own.path());
    let storm = storm.args(["many", "2000"]).env("RUST_BACKTRACE", "0");
    ensure!(Running::start(storm, LIMIT)?.wait()?.code() == Some(0));
    for verb in ["status", "faults", "hist", "top"] {
        let lost = helloops_tests::eventually("losses", LIMIT, || {
            let lost = agent.ask([verb])?["lost"].clone();
            let some = lost
                .as_object()
                .is_some_and(|causes| causes.values().any(|count| count.as_u64().unwrap_or(0) > 0));
            Ok(some.then_some(lost))
        })?;
        let text = agent.run([verb])?.stdout;
        ensure!(
            text.contains("lost: "),
            "{verb} does not show {lost}: {text}"
        );
    }
    Ok(())
}

#[test]
fn a_ring_that_the_kernel_cannot_have_is_refused() -> Result<()> {
    for size in ["0", "5", "3000000", "many"] {
        let ended = cli(["run", "--ring", size, "--", "/bin/true"])?;
        ensure!(ended.code() == Some(2), "{ended:?}");
        says(&ended.stderr, &["power of two"])?;
    }
    Ok(())
}
