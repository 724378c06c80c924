//! The agent as a service: its answers, who may have them, and how it starts and ends.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{
    Agent, Ended, OwnVictim, Running, Waiting, cli, eventually, helloops, open_directory, victim,
};
use nix::sys::signal::Signal;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);
const NOBODY: &str = "65534";

/// An agent, and what it watches: a process that has made calls, and one that has panicked.
fn busy_agent() -> Result<(Agent, OwnVictim, OwnVictim)> {
    let panics = OwnVictim::of("rust_panics")?;
    let calls = OwnVictim::of("syscalls")?;
    let agent = Agent::start([
        OsStr::new("--exe"),
        panics.path().as_os_str(),
        OsStr::new("--exe"),
        calls.path().as_os_str(),
    ])?;
    run(panics.path(), ["many", "3"])?;
    run(calls.path(), ["hot", "getppid", "1000"])?;
    agent.fault("third panic", |fault| fault["message"] == "panic 3 of 3")?;
    agent.series("getppid", |series| series["count"] == 1000)?;
    Ok((agent, panics, calls))
}

fn run<S: AsRef<OsStr>>(program: &Path, arguments: impl IntoIterator<Item = S>) -> Result<Ended> {
    let mut command = Command::new(program);
    let command = command.args(arguments).env("RUST_BACKTRACE", "0");
    Running::start(command, LIMIT)?.wait()
}

/// That an object has these members, each of a type that `null`, `bool`, `number`, `string`,
/// `array` and `object` name.
fn has(object: &Value, members: &[(&str, &[&str])]) -> Result<()> {
    for (name, types) in members {
        let member = object
            .get(name)
            .with_context(|| format!("no {name} in {object:#}"))?;
        let found = match member {
            Value::Null => "null",
            Value::Bool(_) => "bool",
            Value::Number(_) => "number",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        ensure!(types.contains(&found), "{name} is a {found} in {object:#}");
    }
    Ok(())
}

const STRING: &[&str] = &["string"];
const NUMBER: &[&str] = &["number"];
const MAYBE_STRING: &[&str] = &["string", "null"];
const MAYBE_NUMBER: &[&str] = &["number", "null"];
const ARRAY: &[&str] = &["array"];
const OBJECT: &[&str] = &["object"];

#[test]
fn every_answer_has_the_documented_shape() -> Result<()> {
    let (agent, panics, _calls) = busy_agent()?;

    let status = agent.ask(["status"])?;
    has(
        &status,
        &[
            ("version", STRING),
            ("pid", NUMBER),
            ("started", STRING),
            ("targets", ARRAY),
            ("features", ARRAY),
            ("probes", NUMBER),
            ("faults", NUMBER),
            ("lost", OBJECT),
        ],
    )?;
    ensure!(
        status["pid"] == agent.pid() && status["faults"] == 3,
        "{status:#}"
    );
    let target = &status["targets"][0];
    has(
        target,
        &[
            ("name", STRING),
            ("selector", STRING),
            ("processes", NUMBER),
            ("faults", NUMBER),
        ],
    )?;
    ensure!(
        target["name"] == panics.name() && target["faults"] == 3,
        "{status:#}"
    );
    let feature = &status["features"][0];
    has(
        feature,
        &[
            ("name", STRING),
            ("available", &["bool"]),
            ("detail", STRING),
        ],
    )?;

    let faults = agent.ask(["faults"])?;
    has(
        &faults,
        &[
            ("faults", ARRAY),
            ("groups", ARRAY),
            ("dropped", NUMBER),
            ("lost", OBJECT),
        ],
    )?;
    has_shape_of_a_fault(&faults["faults"][0])?;
    let group = &faults["groups"][0];
    has(
        group,
        &[
            ("fingerprint", STRING),
            ("count", NUMBER),
            ("first", OBJECT),
            ("latest", OBJECT),
        ],
    )?;
    ensure!(group["count"] == 3, "{group:#}");
    has_shape_of_a_fault(&group["latest"])?;

    for verb in ["hist", "top"] {
        let histograms = agent.ask([verb])?;
        has(&histograms, &[("series", ARRAY), ("lost", OBJECT)])?;
        ensure!(
            histograms["series"]
                .as_array()
                .is_some_and(|series| !series.is_empty())
        );
    }
    let doctor: Value = serde_json::from_str(&cli(["doctor", "--json"])?.stdout)?;
    has(
        &doctor,
        &[("version", STRING), ("kernel", STRING), ("features", ARRAY)],
    )
}

fn has_shape_of_a_fault(fault: &Value) -> Result<()> {
    has(
        fault,
        &[
            ("kind", STRING),
            ("runtime", STRING),
            ("message", STRING),
            ("location", &["object", "null"]),
            ("target", STRING),
            ("pid", NUMBER),
            ("tid", NUMBER),
            ("comm", STRING),
            ("exe", STRING),
            ("time", STRING),
            ("fingerprint", STRING),
            ("count", NUMBER),
            ("caught", &["bool", "null"]),
            ("signal", &["object", "null"]),
            ("stack", ARRAY),
        ],
    )?;
    has(
        &fault["stack"][0],
        &[
            ("address", &["number", "string"]),
            ("module", MAYBE_STRING),
            ("build_id", MAYBE_STRING),
            ("function", MAYBE_STRING),
            ("offset", MAYBE_NUMBER),
            ("file", MAYBE_STRING),
            ("line", MAYBE_NUMBER),
            ("column", MAYBE_NUMBER),
            ("inlined", &["bool"]),
            ("in_app", &["bool"]),
        ],
    )
}

#[test]
fn people_get_tables_with_what_happened() -> Result<()> {
    let (agent, panics, calls) = busy_agent()?;
    let shown = |arguments: &[&str]| -> Result<String> {
        let ended = agent.run(arguments)?;
        ensure!(ended.code() == Some(0), "{arguments:?}: {ended:?}");
        Ok(ended.stdout)
    };
    let status = shown(&["status"])?;
    ensure!(
        status.contains(&panics.name()) && status.contains(&calls.name()),
        "{status}"
    );
    let faults = shown(&["faults"])?;
    ensure!(faults.contains("panic 3 of 3"), "{faults}");
    let groups = shown(&["faults", "--group"])?;
    ensure!(groups.contains("3×"), "{groups}");
    let drawn = shown(&["hist", "--call", "getppid"])?;
    ensure!(
        drawn.contains("getppid") && drawn.contains("1,000"),
        "{drawn}"
    );
    let top = shown(&["top", "--window", "1h"])?;
    ensure!(top.contains("getppid"), "{top}");
    let one = shown(&["faults", "1"])?;
    ensure!(one.contains("panic 1 of 3"), "{one}");
    Ok(())
}

#[test]
fn answers_can_be_narrowed_by_target_and_kind() -> Result<()> {
    let (agent, panics, calls) = busy_agent()?;
    let others = agent.ask(["faults", "--target", &calls.name()])?;
    ensure!(
        others["faults"].as_array().is_some_and(Vec::is_empty),
        "{others:#}"
    );
    let own = agent.ask(["faults", "--target", &panics.name(), "--kind", "panic"])?;
    ensure!(own["faults"].as_array().map(Vec::len) == Some(3), "{own:#}");
    let latest = agent.ask(["faults", "--limit", "1"])?;
    ensure!(
        latest["faults"][0]["message"] == "panic 3 of 3",
        "{latest:#}"
    );
    let own = agent.ask(["hist", "--target", &panics.name(), "--call", "getppid"])?;
    ensure!(
        own["series"].as_array().is_some_and(Vec::is_empty),
        "{own:#}"
    );
    Ok(())
}

#[test]
fn the_socket_is_for_its_owner_and_group_only() -> Result<()> {
    let own = OwnVictim::of("syscalls")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let socket = fs::metadata(agent.socket())?;
    ensure!(socket.file_type().is_socket());
    ensure!(
        socket.permissions().mode() & 0o7777 == 0o660,
        "{:o}",
        socket.permissions().mode()
    );

    let denied = as_nobody(NOBODY, &agent)?;
    ensure!(denied.code() == Some(1), "{denied:?}");
    ensure!(denied.stderr.contains("ermission"), "{denied:?}");
    Ok(())
}

#[test]
fn another_user_is_turned_away_even_when_the_socket_is_open_to_all() -> Result<()> {
    let own = OwnVictim::of("syscalls")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    fs::set_permissions(agent.socket(), fs::Permissions::from_mode(0o666))?;
    let denied = as_nobody(NOBODY, &agent)?;
    ensure!(denied.code() == Some(1), "{denied:?}");
    ensure!(
        denied.stdout.is_empty() && !denied.stderr.is_empty(),
        "{denied:?}"
    );
    let admitted = as_nobody("0", &agent)?;
    ensure!(admitted.code() == Some(0), "{admitted:?}");
    Ok(())
}

/// `helloops status` as the user nobody, in this group.
fn as_nobody(group: &str, agent: &Agent) -> Result<Ended> {
    let directory = open_directory()?;
    let copy = directory.path().join("helloops");
    fs::copy(helloops()?, &copy)?;
    let mut command = Command::new("setpriv");
    command
        .args(["--reuid", NOBODY, "--regid", group, "--clear-groups"])
        .arg(&copy)
        .arg("--socket")
        .arg(agent.socket())
        .arg("status");
    Running::start(&mut command, LIMIT)?.wait()
}

/// `helloops agent` on this socket, which is to fail.
fn refused(socket: &Path) -> Result<Ended> {
    let own = OwnVictim::of("syscalls")?;
    let words: [&OsStr; 5] = [
        "--socket".as_ref(),
        socket.as_os_str(),
        "agent".as_ref(),
        "--exe".as_ref(),
        own.path().as_os_str(),
    ];
    cli(words)
}

#[test]
fn a_second_agent_on_the_same_socket_is_refused_and_told_of_the_first() -> Result<()> {
    let own = OwnVictim::of("syscalls")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let second = refused(&agent.socket())?;
    ensure!(second.code() == Some(1), "{second:?}");
    ensure!(second.stderr.contains("already"), "{second:?}");
    ensure!(
        second.stderr.contains(&agent.pid().to_string()),
        "{second:?}"
    );
    ensure!(agent.ask(["status"])?["pid"] == agent.pid());
    Ok(())
}

#[test]
fn a_file_in_the_socket_s_place_is_left_alone() -> Result<()> {
    let directory = open_directory()?;
    let path = directory.path().join("precious");
    fs::write(&path, "data")?;
    let ended = refused(&path)?;
    ensure!(ended.code() == Some(1), "{ended:?}");
    ensure!(
        ended.stderr.contains("no socket") && ended.stderr.contains("--socket"),
        "{ended:?}"
    );
    ensure!(fs::read_to_string(&path)? == "data");
    Ok(())
}

#[test]
fn a_socket_that_a_killed_agent_left_behind_is_taken_over() -> Result<()> {
    let own = OwnVictim::of("syscalls")?;
    let arguments = [OsStr::new("--exe"), own.path().as_os_str()];
    let agent = Agent::start(arguments)?;
    let socket = agent.socket();
    let (_, directory) = agent.end(Signal::SIGKILL)?;
    ensure!(socket.exists(), "the socket should be left behind");
    let next = Agent::start_in(directory, arguments)?;
    ensure!(next.socket() == socket);
    ensure!(next.ask(["status"])?["pid"] == next.pid());
    Ok(())
}

#[test]
fn an_agent_that_is_told_to_end_ends_well_and_removes_its_socket() -> Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let own = OwnVictim::of("syscalls")?;
        let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
        let socket = agent.socket();
        let (ended, _directory) = agent.end(signal)?;
        ensure!(ended.code() == Some(0), "{signal}: {ended:?}");
        ensure!(!socket.exists(), "{signal}: the socket is still there");
    }
    Ok(())
}

#[test]
fn commands_without_an_agent_say_how_to_start_one() -> Result<()> {
    let directory = open_directory()?;
    let socket = directory.path().join("none").into_os_string();
    for verb in ["status", "faults", "hist", "top"] {
        let words: [OsString; 3] = ["--socket".into(), socket.clone(), verb.into()];
        let ended = cli(words)?;
        ensure!(ended.code() == Some(1), "{verb}: {ended:?}");
        ensure!(ended.stderr.contains("helloops agent"), "{verb}: {ended:?}");
    }
    Ok(())
}

#[test]
fn a_killed_agent_leaves_no_program_behind_and_its_victim_undisturbed() -> Result<()> {
    let victim = Waiting::start(victim("rust_panics")?, ["wait", "main"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let programs = ids_held_by(agent.pid(), "prog_id:")?;
    let links = ids_held_by(agent.pid(), "link_id:")?;
    ensure!(
        !programs.is_empty() && !links.is_empty(),
        "{programs:?}, {links:?}"
    );
    ensure!(programs.iter().all(|id| exists(BPF_PROG_GET_FD_BY_ID, *id)));
    agent.end(Signal::SIGKILL)?;
    // The kernel frees them a while after the last descriptor is closed.
    eventually("end of all programs and links", LIMIT, || {
        let programs = programs.iter().any(|id| exists(BPF_PROG_GET_FD_BY_ID, *id));
        let links = links.iter().any(|id| exists(BPF_LINK_GET_FD_BY_ID, *id));
        Ok((!programs && !links).then_some(()))
    })?;
    let ended = victim.go_and_end()?;
    ensure!(ended.code() == Some(101), "{ended:?}");
    ensure!(ended.stderr.contains("main panicked"), "{ended:?}");
    Ok(())
}

#[test]
fn a_victim_lives_on_when_its_agent_ends() -> Result<()> {
    let victim = Waiting::start(victim("syscalls")?, ["processes", "2", "10"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    ensure!(agent.stop()?.code() == Some(0));
    let ended = victim.go_and_end()?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    Ok(())
}

/// Commands of bpf(2) (include/uapi/linux/bpf.h).
const BPF_PROG_GET_FD_BY_ID: libc::c_long = 13;
const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;

/// The BPF objects that a process holds, by a line of its descriptors' `fdinfo`.
fn ids_held_by(pid: u32, line: &str) -> Result<Vec<u32>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let found = text.lines().filter_map(|text| text.strip_prefix(line));
        ids.extend(found.filter_map(|id| id.trim().parse::<u32>().ok()));
    }
    Ok(ids)
}

/// Whether the kernel has a BPF object with this id. It gives each id once in a long while.
fn exists(command: libc::c_long, id: u32) -> bool {
    // The start of `union bpf_attr` for both commands: the id, the next one, flags.
    let attributes = [id, 0, 0];
    // SAFETY: the attributes are readable for the length that is given.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            attributes.as_ptr(),
            size_of_val(&attributes),
        )
    };
    match i32::try_from(descriptor) {
        Ok(descriptor) if descriptor >= 0 => {
            // SAFETY: the descriptor is new, and nobody else's.
            drop(unsafe { OwnedFd::from_raw_fd(descriptor) });
            true
        }
        _ => false,
    }
}
