//! How processes end, and children's faults, as `helloops run` tells of them.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use helloops_tests::{Watching, eventually, own_functions, place, victim, watch};
use serde_json::{Value, json};

/// How long a program may take to start.
const STARTED: Duration = Duration::from_secs(60);

#[test]
fn a_shell_that_exits_with_3_is_a_fault_with_that_code() -> Result<()> {
    let report = watch("sh").args(["-c", "exit 3"]).run()?;
    let fault = report.fault("exit")?;
    assert_eq!(fault["message"], "exited with code 3");
    assert_eq!(fault["exit_code"], 3);
    assert_eq!(fault["signal"], Value::Null);
    assert_eq!(fault["comm"], "sh");
    assert_eq!(fault["pid"], report.json["pid"]);
    assert_eq!(report.json["exit"], json!({"code": 3}));
    assert_eq!(report.ended.code(), Some(3));
    Ok(())
}

#[test]
fn an_exit_after_the_main_thread_has_ended_is_told_once() -> Result<()> {
    let report = watch(victim("c_faults")?)
        .args(["leader_exits_first"])
        .run()?;
    let fault = report.fault("exit")?;
    assert_eq!(fault["exit_code"], 4);
    assert_eq!(report.ended.code(), Some(4));
    Ok(())
}

#[test]
fn a_program_that_became_another_is_told_as_that_one() -> Result<()> {
    let report = watch(victim("c_faults")?).args(["exec_other"]).run()?;
    let fault = report.fault("exit")?;
    assert_eq!(fault["exit_code"], 5);
    assert_eq!(fault["comm"], "sh");
    // By which of its names depends on whether the process is still there to be asked.
    let exe = Path::new(fault["exe"].as_str().context("no executable")?);
    assert_eq!(exe.canonicalize()?, Path::new("/bin/sh").canonicalize()?);
    Ok(())
}

#[test]
fn a_program_that_another_process_terminates_shows_who_did_it() -> Result<()> {
    let watching = watch(victim("c_faults")?).args(["sleep"]).start()?;
    let pid = sleeping_child(&watching)?;
    let killer = kill("TERM", pid)?;
    let report = watching.finish()?;
    let fault = report.fault("signal")?;
    assert_eq!(
        fault["signal"],
        json!({
            "number": 15,
            "name": "SIGTERM",
            "code": "SI_USER",
            "address": null,
            "sender_pid": killer,
            "sender_comm": "kill",
        })
    );
    let message = format!("killed by SIGTERM (SI_USER) sent by kill (pid {killer})");
    assert_eq!(fault["message"], message);
    assert_eq!(fault["pid"], pid);
    assert_eq!(report.ended.signal(), Some(libc::SIGTERM));
    Ok(())
}

#[test]
fn a_program_that_another_process_kills_shows_who_did_it() -> Result<()> {
    let watching = watch(victim("c_faults")?).args(["sleep"]).start()?;
    let pid = sleeping_child(&watching)?;
    let killer = kill("KILL", pid)?;
    let report = watching.finish()?;
    let fault = report.fault("signal")?;
    assert_eq!(fault["signal"]["name"], "SIGKILL");
    assert_eq!(fault["signal"]["sender_pid"], killer);
    assert_eq!(fault["signal"]["sender_comm"], "kill");
    let message = format!("killed by SIGKILL (SI_USER) sent by kill (pid {killer})");
    assert_eq!(fault["message"], message);
    assert_eq!(report.ended.signal(), Some(libc::SIGKILL));
    Ok(())
}

#[test]
fn a_childs_abort_is_a_fault_of_the_child() -> Result<()> {
    let report = watch(victim("c_faults")?)
        .args(["fork_child_aborts"])
        .run()?;
    let fault = report.fault("abort")?;
    assert_ne!(fault["pid"], report.json["pid"]);
    place("c_faults.c", "abort(); }")?.is_of(&fault["location"])?;
    assert_eq!(
        own_functions(fault),
        ["call_abort", "fork_child_aborts", "main"]
    );
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn an_orphans_abort_is_seen_while_the_command_runs() -> Result<()> {
    // The shell goes on until the orphan, which holds the pipe open, has ended.
    let report = watch("sh")
        .args(["-c", "\"$0\" double_fork | cat"])
        .args([victim("c_faults")?])
        .run()?;
    let fault = report.fault("abort")?;
    assert_eq!(own_functions(fault), ["call_abort", "double_fork", "main"]);
    assert_eq!(fault["signal"]["name"], "SIGABRT");
    assert_eq!(report.ended.code(), Some(0));
    Ok(())
}

#[test]
fn each_of_a_thousand_processes_that_panic_at_once_is_a_fault_with_a_stack() -> Result<()> {
    const PROCESSES: usize = 1_000;
    let report = watch(victim("rust_panics")?)
        .args(["processes".to_owned(), PROCESSES.to_string()])
        .limit(Duration::from_secs(300))
        .run()?;
    let at = place("rust_panics.rs", "panic!(\"at once\")")?;
    assert_eq!(report.faults_of("panic").len(), PROCESSES);
    assert_eq!(report.faults().len(), PROCESSES);
    let mut pids = HashSet::new();
    for fault in report.faults() {
        assert_eq!(fault["message"], "at once", "{fault:#}");
        at.is_exactly_of(&fault["location"])?;
        assert_eq!(own_functions(fault), ["rust_panics::main"], "{fault:#}");
        assert_eq!(fault["stack_truncated"], Value::Null, "{fault:#}");
        assert_eq!(fault["exit_code"], 101, "{fault:#}");
        pids.insert(fault["pid"].as_u64());
    }
    assert_eq!(pids.len(), PROCESSES);
    let lost = report.json["lost"]
        .as_object()
        .context("no counts of losses")?;
    ensure!(lost.values().all(|count| *count == 0), "lost {lost:?}");
    Ok(())
}

#[test]
fn a_program_that_the_kernel_kills_for_lack_of_memory_is_told_as_such() -> Result<()> {
    let Some(cgroup) = MemoryCgroup::create(64 << 20)? else {
        eprintln!(
            "NOT TESTED: no cgroup hierarchy here has the memory controller, so nothing can be \
             made to run out of memory without harm to everything else"
        );
        return Ok(());
    };
    let script = "echo $$ > \"$0/cgroup.procs\" && exec \"$1\" eat_memory 256";
    let report = watch("sh")
        .args(["-c", script])
        .args([&cgroup.path, &victim("c_faults")?])
        .run()?;
    let fault = report.fault("oom")?;
    assert_eq!(fault["message"], "killed by the kernel: out of memory");
    assert_eq!(fault["comm"], "c_faults");
    assert_eq!(fault["pid"], report.json["pid"]);
    assert_eq!(fault["signal"]["name"], "SIGKILL");
    assert_eq!(fault["signal"]["sender_pid"], Value::Null);
    assert_eq!(report.ended.signal(), Some(libc::SIGKILL));
    Ok(())
}

/// The watched command's process, once it sleeps.
fn sleeping_child(watching: &Watching) -> Result<u32> {
    let parent = watching.running.pid();
    eventually("sleeping victim", STARTED, || {
        let Some(child) = child_of(parent)? else {
            return Ok(None);
        };
        // Before its own code runs it may well sleep too, but not in pause.
        let call = fs::read_to_string(format!("/proc/{child}/syscall")).unwrap_or_default();
        let pauses = call.split(' ').next() == Some(&libc::SYS_pause.to_string());
        Ok(pauses.then_some(child))
    })
}

/// The youngest child of any of a process's threads.
fn child_of(parent: u32) -> Result<Option<u32>> {
    let threads = fs::read_dir(format!("/proc/{parent}/task"))?;
    let children = threads.filter_map(|thread| {
        let children = fs::read_to_string(thread.ok()?.path().join("children")).ok()?;
        children.split_whitespace().last()?.parse().ok()
    });
    Ok(children.max())
}

/// Has a process of its own send a signal, and gives back that process's id.
fn kill(signal: &str, pid: u32) -> Result<u32> {
    let mut kill = Command::new("/bin/kill")
        .args([&format!("-{signal}"), &pid.to_string()])
        .spawn()
        .context("cannot start /bin/kill; Debian has it in the package procps")?;
    ensure!(kill.wait()?.success(), "kill failed");
    Ok(kill.id())
}

/// A cgroup with little memory, removed when this is dropped.
struct MemoryCgroup {
    path: PathBuf,
}

impl MemoryCgroup {
    /// `None` where no hierarchy has the memory controller.
    fn create(bytes: u64) -> Result<Option<Self>> {
        let name = format!("helloops-test-{}", std::process::id());
        let mounts = fs::read_to_string("/proc/self/mounts")?;
        for mount in mounts.lines() {
            let [_, root, kind, options, ..] = *mount.split(' ').collect::<Vec<_>>() else {
                continue;
            };
            let root = Path::new(root);
            let limits: &[(&str, u64)] = match kind {
                "cgroup" if options.split(',').any(|option| option == "memory") => {
                    &[("memory.limit_in_bytes", bytes)]
                }
                "cgroup2" if has_memory_controller(root) => {
                    &[("memory.max", bytes), ("memory.swap.max", 0)]
                }
                _ => continue,
            };
            let cgroup = Self {
                path: root.join(&name),
            };
            fs::create_dir(&cgroup.path)?;
            for (file, limit) in limits {
                let file = cgroup.path.join(file);
                // Without swap there is no limit of swap.
                if file.exists() {
                    fs::write(&file, limit.to_string())
                        .with_context(|| format!("cannot set {}", file.display()))?;
                }
            }
            return Ok(Some(cgroup));
        }
        Ok(None)
    }
}

fn has_memory_controller(root: &Path) -> bool {
    let controllers = |file| fs::read_to_string(root.join(file)).unwrap_or_default();
    let has = |file| {
        controllers(file)
            .split_whitespace()
            .any(|name| name == "memory")
    };
    has("cgroup.controllers")
        && (has("cgroup.subtree_control")
            || fs::write(root.join("cgroup.subtree_control"), "+memory").is_ok())
}

impl Drop for MemoryCgroup {
    fn drop(&mut self) {
        // Its last process may still be on its way out.
        let removed = eventually("empty cgroup", Duration::from_secs(10), || {
            Ok(fs::remove_dir(&self.path).ok())
        });
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error:#}", self.path.display());
        }
    }
}
