//! What is watched, and what is not: processes by id, file, name and cgroup, and those that come of
//! them.

use std::ffi::{CString, OsStr};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use helloops_tests::{
    Agent, OwnCgroup, OwnVictim, Running, Waiting, eventually, functions, go, open_directory,
    victim, watch,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::Value;

const LIMIT: Duration = Duration::from_secs(120);

/// Runs a program to its end.
fn run<S: AsRef<OsStr>>(
    program: &Path,
    arguments: impl IntoIterator<Item = S>,
) -> Result<(u32, helloops_tests::Ended)> {
    let mut command = Command::new(program);
    let running = Running::start(command.args(arguments).env("RUST_BACKTRACE", "0"), LIMIT)?;
    Ok((running.pid(), running.wait()?))
}

fn has_function(fault: &Value, name: &str) -> Result<()> {
    ensure!(
        functions(fault)
            .iter()
            .any(|function| function.contains(name)),
        "no {name} in {fault:#}"
    );
    Ok(())
}

/// The processes that a fault or series of this agent's is of, ascending.
fn processes_with_faults(agent: &Agent) -> Result<Vec<u64>> {
    let mut pids: Vec<u64> = agent
        .faults()?
        .iter()
        .filter_map(|fault| fault["pid"].as_u64())
        .collect();
    pids.sort_unstable();
    pids.dedup();
    Ok(pids)
}

#[test]
fn a_process_that_runs_already_is_watched_by_its_id() -> Result<()> {
    let victim = Waiting::start(victim("rust_panics")?, ["wait", "main"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let status = agent.ask(["status"])?;
    ensure!(status["targets"][0]["processes"] == 1, "{status:#}");
    let pid = victim.pid();
    ensure!(victim.go_and_end()?.code() == Some(101));
    let fault = agent.fault_of(pid, "panic")?;
    ensure!(fault["message"] == "main panicked", "{fault:#}");
    has_function(&fault, "rust_panics::in_main")
}

#[test]
fn a_later_child_of_a_process_given_by_its_id_is_watched() -> Result<()> {
    let victim = Waiting::start(victim("c_faults")?, ["wait", "fork_child_aborts"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let parent = victim.pid();
    ensure!(victim.go_and_end()?.code() == Some(0));
    let fault = agent.fault("abort", |fault| fault["kind"] == "abort")?;
    ensure!(fault["pid"] != parent, "{fault:#}");
    has_function(&fault, "call_abort")
}

#[test]
fn an_orphaned_grandchild_is_watched() -> Result<()> {
    let victim = Waiting::start(victim("c_faults")?, ["wait", "double_fork"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    ensure!(victim.go_and_end()?.code() == Some(0));
    let fault = agent.fault("abort", |fault| fault["kind"] == "abort")?;
    has_function(&fault, "call_abort")
}

#[test]
fn a_process_that_runs_already_is_watched_by_its_file() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let victim = Waiting::start(own.path(), ["wait", "abort"])?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let pid = victim.pid();
    ensure!(victim.go_and_end()?.signal() == Some(libc::SIGABRT));
    has_function(&agent.fault_of(pid, "abort")?, "call_abort")
}

#[test]
fn each_process_that_panics_right_after_its_exec_is_captured_with_its_stack() -> Result<()> {
    const TIMES: usize = 100;
    let own = OwnVictim::of("rust_panics")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let mut started = Vec::new();
    for _ in 0..TIMES {
        let (pid, ended) = run(own.path(), ["start_then_panic"])?;
        ensure!(ended.code() == Some(101), "{ended:?}");
        started.push(u64::from(pid));
    }
    let panics = eventually("panic of each process", LIMIT, || {
        let faults = agent.faults()?;
        let panics: Vec<Value> = faults
            .into_iter()
            .filter(|fault| fault["kind"] == "panic")
            .collect();
        Ok((panics.len() >= TIMES).then_some(panics))
    })?;
    let pids: Vec<u64> = panics
        .iter()
        .filter_map(|fault| fault["pid"].as_u64())
        .collect();
    ensure!(pids == started, "started {started:?}, captured {pids:?}");
    for panic in &panics {
        ensure!(panic["message"] == "at once", "{panic:#}");
        has_function(panic, "rust_panics::main")?;
    }
    Ok(())
}

#[test]
fn a_name_pattern_chooses_processes_that_run_and_that_start_later() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let running = Waiting::start(own.path(), ["wait", "abort"])?;
    let pattern = format!("?{}*", &own.name()[1..]);
    let agent = Agent::start(["--comm", &pattern])?;
    let (later, ended) = run(own.path(), ["abort"])?;
    ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
    agent.fault_of(later, "abort")?;
    let pid = running.pid();
    running.go_and_end()?;
    agent.fault_of(pid, "abort")?;
    Ok(())
}

#[test]
fn a_process_that_execs_in_a_watched_cgroup_is_captured() -> Result<()> {
    let cgroup = OwnCgroup::new()?;
    let agent = Agent::start([OsStr::new("--cgroup"), cgroup.path().as_os_str()])?;
    let procs = cgroup.path().join("cgroup.procs");
    let script = format!("echo $$ > {} && exec \"$0\" abort", procs.display());
    let (pid, ended) = run(
        Path::new("/bin/sh"),
        [
            OsStr::new("-c"),
            script.as_ref(),
            victim("c_faults")?.as_os_str(),
        ],
    )?;
    ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
    has_function(&agent.fault_of(pid, "abort")?, "call_abort")
}

#[test]
fn a_process_in_a_cgroup_below_a_watched_one_is_captured() -> Result<()> {
    let cgroup = OwnCgroup::new()?;
    let below = cgroup.path().join("below");
    fs::create_dir(&below)?;
    let agent = Agent::start([OsStr::new("--cgroup"), cgroup.path().as_os_str()])?;
    let script = format!(
        "echo $$ > {}/cgroup.procs && exec \"$0\" abort",
        below.display()
    );
    let (pid, _) = run(
        Path::new("/bin/sh"),
        [
            OsStr::new("-c"),
            script.as_ref(),
            victim("c_faults")?.as_os_str(),
        ],
    )?;
    let fault = agent.fault_of(pid, "abort");
    eventually("empty cgroup", LIMIT, || Ok(fs::remove_dir(&below).ok()))?;
    has_function(&fault?, "call_abort")
}

#[test]
fn a_process_that_is_moved_into_a_watched_cgroup_is_captured() -> Result<()> {
    let cgroup = OwnCgroup::new()?;
    let agent = Agent::start([OsStr::new("--cgroup"), cgroup.path().as_os_str()])?;
    let victim = Waiting::start(victim("rust_panics")?, ["wait", "main"])?;
    let before = probes(&agent)?;
    cgroup.take_in(victim.pid())?;
    eventually("process in the target", LIMIT, || {
        let status = agent.ask(["status"])?;
        Ok((status["targets"][0]["processes"] == 1).then_some(()))
    })?;
    until_more_probes(&agent, before)?;
    let pid = victim.pid();
    victim.go_and_end()?;
    has_function(&agent.fault_of(pid, "panic")?, "rust_panics::in_main")
}

#[test]
fn a_process_that_execs_into_something_else_stays_watched() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let (pid, ended) = run(own.path(), ["exec_other"])?;
    ensure!(ended.code() == Some(5), "{ended:?}");
    let fault = agent.fault_of(pid, "exit")?;
    ensure!(fault["target"] == own.name(), "{fault:#}");
    let exe = fault["exe"].as_str().unwrap_or_default();
    ensure!(exe.ends_with("sh"), "{fault:#}");
    Ok(())
}

#[test]
fn a_process_that_execs_from_a_thread_stays_watched_and_its_calls_are_counted_once() -> Result<()> {
    let report = watch(victim("c_faults")?)
        .args([
            OsStr::new("exec_from_thread"),
            victim("syscalls")?.as_os_str(),
            "counts".as_ref(),
        ])
        .run()?;
    ensure!(report.ended.code() == Some(0), "{:?}", report.ended);
    let getppid = report.series("getppid")?;
    ensure!(getppid["count"] == 1000, "{getppid:#}");
    Ok(())
}

#[test]
fn a_thread_of_a_process_given_by_its_id_is_watched() -> Result<()> {
    let victim = Waiting::start(victim("rust_panics")?, ["wait", "many_threads", "5"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    ensure!(victim.go_and_end()?.code() == Some(0));
    for number in 1..=5 {
        let message = format!("panic {number} of 5");
        let fault = agent.fault(&message, |fault| fault["message"] == message.as_str())?;
        ensure!(fault["tid"] != fault["pid"], "{fault:#}");
        ensure!(fault["comm"] == format!("worker-{number}"), "{fault:#}");
    }
    Ok(())
}

#[test]
fn a_thread_that_fails_after_its_leader_has_exited_is_captured() -> Result<()> {
    let victim = Waiting::start(victim("c_faults")?, ["wait", "leader_exits_abort"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let pid = victim.pid();
    ensure!(victim.go_and_end()?.signal() == Some(libc::SIGABRT));
    has_function(&agent.fault_of(pid, "abort")?, "call_abort")
}

#[test]
fn the_exit_code_is_that_of_the_process_when_its_leader_has_exited_first() -> Result<()> {
    let report = watch(victim("c_faults")?)
        .args(["leader_exits_first"])
        .run()?;
    ensure!(report.ended.code() == Some(4), "{:?}", report.ended);
    let exit = report.only("exit")?;
    ensure!(
        exit["message"]
            .as_str()
            .is_some_and(|message| message.contains('4')),
        "{exit:#}"
    );
    Ok(())
}

#[test]
fn a_process_whose_file_was_replaced_on_disk_has_a_stack_from_the_old_file() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let victim = Waiting::start(own.path(), ["wait", "abort"])?;
    own.replace_by("rust_panics")?;
    let pid = victim.pid();
    victim.go_and_end()?;
    let fault = agent.fault_of(pid, "abort")?;
    has_function(&fault, "call_abort")?;
    ensure!(in_c_faults(&fault), "{fault:#}");
    Ok(())
}

/// Whether a frame has its line in the victim's source.
fn in_c_faults(fault: &Value) -> bool {
    let stack = fault["stack"].as_array().map_or(&[][..], Vec::as_slice);
    stack.iter().any(|frame| {
        let file = frame["file"].as_str().unwrap_or_default();
        file.ends_with("c_faults.c") && frame["line"].is_u64()
    })
}

#[test]
fn a_process_that_ran_from_a_replaced_file_before_the_agent_came_has_its_stack() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let victim = Waiting::start(own.path(), ["wait", "abort"])?;
    own.replace_by("rust_panics")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let pid = victim.pid();
    victim.go_and_end()?;
    let fault = agent.fault_of(pid, "abort")?;
    ensure!(in_c_faults(&fault), "{fault:#}");
    Ok(())
}

#[test]
fn a_program_that_replaced_a_watched_one_is_watched_at_once() -> Result<()> {
    let own = OwnVictim::of("rust_panics")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    for _ in 0..10 {
        own.replace_by("c_faults")?;
        let (pid, ended) = run(own.path(), ["abort"])?;
        ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
        let fault = agent.fault_of(pid, "abort")?;
        has_function(&fault, "call_abort")?;
        ensure!(in_c_faults(&fault), "{fault:#}");
    }
    Ok(())
}

#[test]
fn panics_of_a_program_that_replaced_a_watched_one_are_captured() -> Result<()> {
    let own = OwnVictim::of("rust_panics")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let before = probes(&agent)?;
    own.replace_by("rust_panics")?;
    until_more_probes(&agent, before)?;
    let (pid, _) = run(own.path(), ["start_then_panic"])?;
    has_function(&agent.fault_of(pid, "panic")?, "rust_panics::main")
}

/// A probe that stayed where it was would be a breakpoint in the middle of something else.
#[test]
fn a_program_that_is_overwritten_in_place_runs_and_is_probed_anew() -> Result<()> {
    let own = OwnVictim::of("rust_panics_abort")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let before = probes(&agent)?;
    // One without a site of its own, and back again.
    own.overwrite_by("syscalls")?;
    own.overwrite_by("c_faults")?;
    eventually("fewer probes", LIMIT, || {
        Ok((probes(&agent)? < before).then_some(()))
    })?;
    let (pid, ended) = run(own.path(), ["abort"])?;
    ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
    let fault = agent.fault_of(pid, "abort")?;
    ensure!(in_c_faults(&fault), "{fault:#}");

    let between = probes(&agent)?;
    own.overwrite_by("rust_panics")?;
    until_more_probes(&agent, between)?;
    let (pid, ended) = run(own.path(), ["main"])?;
    ensure!(ended.code() == Some(101), "{ended:?}");
    has_function(&agent.fault_of(pid, "panic")?, "rust_panics::in_main")
}

fn probes(agent: &Agent) -> Result<Option<u64>> {
    Ok(agent.ask(["status"])?["probes"].as_u64())
}

/// Waits until a file has been probed that was not before.
fn until_more_probes(agent: &Agent, before: Option<u64>) -> Result<()> {
    eventually("more probes", LIMIT, || {
        Ok((probes(agent)? > before).then_some(()))
    })
}

#[test]
fn a_link_that_comes_to_lead_to_another_file_has_that_one_watched() -> Result<()> {
    let old = OwnVictim::of("c_faults")?;
    let new = OwnVictim::of("rust_panics")?;
    let directory = open_directory()?;
    let current = directory.path().join("current");
    symlink(old.path(), &current)?;
    let agent = Agent::start([OsStr::new("--exe"), current.as_os_str()])?;
    let (aborted, _) = run(&current, ["abort"])?;
    has_function(&agent.fault_of(aborted, "abort")?, "call_abort")?;

    let before = probes(&agent)?;
    let next = directory.path().join("next");
    symlink(new.path(), &next)?;
    fs::rename(&next, &current)?;
    until_more_probes(&agent, before)?;
    for path in [current.as_path(), new.path()] {
        let (pid, _) = run(path, ["start_then_panic"])?;
        let fault = agent.fault_of(pid, "panic")?;
        ensure!(fault["target"] == "current", "{fault:#}");
    }
    Ok(())
}

#[test]
fn a_process_whose_file_was_deleted_has_its_stack() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let victim = Waiting::start(own.path(), ["wait", "abort"])?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    fs::remove_file(own.path())?;
    let pid = victim.pid();
    victim.go_and_end()?;
    let fault = agent.fault_of(pid, "abort")?;
    ensure!(in_c_faults(&fault), "{fault:#}");
    Ok(())
}

#[test]
fn a_process_whose_file_was_deleted_before_the_agent_came_has_its_stack() -> Result<()> {
    let own = OwnVictim::of("rust_panics")?;
    let victim = Waiting::start(own.path(), ["wait", "main"])?;
    fs::remove_file(own.path())?;
    let agent = Agent::start(["--pid".to_owned(), victim.pid().to_string()])?;
    let pid = victim.pid();
    victim.go_and_end()?;
    has_function(&agent.fault_of(pid, "panic")?, "rust_panics::in_main")
}

#[test]
fn two_targets_side_by_side_do_not_mix() -> Result<()> {
    let one = OwnVictim::of("c_faults")?;
    let other = OwnVictim::of("syscalls")?;
    let agent = Agent::start([
        OsStr::new("--exe"),
        one.path().as_os_str(),
        OsStr::new("--exe"),
        other.path().as_os_str(),
    ])?;
    let (aborted, _) = run(one.path(), ["abort"])?;
    let (counted, ended) = run(other.path(), ["hot", "getppid", "1234"])?;
    ensure!(ended.code() == Some(0), "{ended:?}");
    let (failed, _) = run(other.path(), ["no such mode"])?;

    let abort = agent.fault_of(aborted, "abort")?;
    ensure!(abort["target"] == one.name(), "{abort:#}");
    let exit = agent.fault_of(failed, "exit")?;
    ensure!(exit["target"] == other.name(), "{exit:#}");
    let getppid = agent.series("getppid", |series| series["count"] == 1234)?;
    ensure!(getppid["target"] == other.name(), "{getppid:#}");
    let all = agent.ask(["hist", "--call", "getppid"])?;
    ensure!(all["series"].as_array().map(Vec::len) == Some(1), "{all:#}");
    let pids = processes_with_faults(&agent)?;
    ensure!(!pids.contains(&u64::from(counted)), "{pids:?}");
    let status = agent.ask(["status"])?;
    let names: Vec<&Value> = status["targets"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|target| &target["name"])
        .collect();
    ensure!(names == [&one.name(), &other.name()], "{status:#}");
    Ok(())
}

#[test]
fn a_bystander_s_faults_and_calls_are_not_reported() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    for mode in ["abort", "segv_null", "exit3", "assert"] {
        run(&victim("c_faults")?, [mode])?;
    }
    run(&victim("rust_panics")?, ["main"])?;
    run(&victim("syscalls")?, ["hot", "getppid", "1000"])?;
    let (pid, _) = run(own.path(), ["abort"])?;
    agent.fault_of(pid, "abort")?;
    let pids = processes_with_faults(&agent)?;
    ensure!(pids == [u64::from(pid)], "{pids:?}");
    let getppid = agent.ask(["hist", "--call", "getppid"])?;
    ensure!(
        getppid["series"].as_array().is_some_and(Vec::is_empty),
        "{getppid:#}"
    );
    Ok(())
}

#[test]
fn the_parent_and_the_siblings_of_a_watched_process_are_bystanders() -> Result<()> {
    let family = "\"$0\" wait abort & echo $! > \"$1\"; wait; \"$0\" abort; exit 7";
    let directory = open_directory()?;
    let told = directory.path().join("pid");
    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", family])
        .arg(victim("c_faults")?)
        .arg(&told);
    let shell = Running::start(&mut command, LIMIT)?;
    let child: u32 = eventually("child", LIMIT, || {
        let text = fs::read_to_string(&told).unwrap_or_default();
        Ok(text.trim().parse().ok())
    })?;
    let agent = Agent::start(["--pid".to_owned(), child.to_string()])?;
    go(child)?;
    ensure!(shell.wait()?.code() == Some(7));
    agent.fault_of(child, "abort")?;
    let pids = processes_with_faults(&agent)?;
    ensure!(pids == [u64::from(child)], "{pids:?}");
    Ok(())
}

#[test]
fn a_process_that_gets_the_id_of_a_watched_one_is_not_taken_for_it() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let pid = reused_after(|| Ok(run(own.path(), ["exit3"])?.0), &victim("c_faults")?)?;
    // One that is watched, afterwards: when it is there, the others would be too.
    let (last, _) = run(own.path(), ["abort"])?;
    agent.fault_of(last, "abort")?;
    let faults = agent.faults()?;
    let of_it: Vec<&Value> = faults.iter().filter(|fault| fault["pid"] == pid).collect();
    ensure!(of_it.len() == 1 && of_it[0]["kind"] == "exit", "{of_it:#?}");
    Ok(())
}

#[test]
fn a_watched_process_that_gets_the_id_of_an_earlier_one_has_its_own_stack() -> Result<()> {
    let own = OwnVictim::of("c_faults")?;
    let agent = Agent::start([OsStr::new("--exe"), own.path().as_os_str()])?;
    let pid = reused_after(|| Ok(run(own.path(), ["exit3"])?.0), own.path())?;
    let abort = agent.fault_of(pid, "abort")?;
    has_function(&abort, "call_abort")?;
    agent.fault_of(pid, "exit")?;
    Ok(())
}

/// Has `first` run a process and give back its id; then runs `program abort` under the same id.
/// Another process may take the id in between, hence more than one try.
fn reused_after(first: impl Fn() -> Result<u32>, program: &Path) -> Result<u32> {
    for _ in 0..50 {
        let pid = first()?;
        if abort_as(pid, program)? {
            return Ok(pid);
        }
    }
    bail!("other processes took the ids each time");
}

/// Runs `program abort` as the process `pid`, by clone3(2) with `set_tid`. False if the id is taken.
fn abort_as(pid: u32, program: &Path) -> Result<bool> {
    let path = CString::new(program.as_os_str().as_bytes())?;
    let mode = c"abort";
    let arguments = [path.as_ptr(), mode.as_ptr(), std::ptr::null()];
    let environment: [*const libc::c_char; 1] = [std::ptr::null()];
    let wanted = [i32::try_from(pid)?];
    // SAFETY: all fields of the structure may be 0.
    let mut how: libc::clone_args = unsafe { std::mem::zeroed() };
    how.exit_signal = u64::try_from(libc::SIGCHLD)?;
    how.set_tid = wanted.as_ptr() as u64;
    how.set_tid_size = 1;
    // SAFETY: the child has a copy of the memory, and makes only the two calls below, which are
    // async-signal-safe; all that they point to was made before.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const how, size_of_val(&how)) };
    if child == 0 {
        // SAFETY: as above.
        unsafe {
            libc::execve(path.as_ptr(), arguments.as_ptr(), environment.as_ptr());
            libc::_exit(126);
        }
    }
    if child < 0 {
        let error = std::io::Error::last_os_error();
        if error.raw_os_error() == Some(libc::EEXIST) {
            return Ok(false);
        }
        return Err(error).context("clone3 with set_tid");
    }
    let status = waitpid(
        Pid::from_raw(i32::try_from(child)?),
        Some(WaitPidFlag::__WALL),
    )?;
    ensure!(
        matches!(status, WaitStatus::Signaled(_, _, _)),
        "{status:?}"
    );
    Ok(true)
}
