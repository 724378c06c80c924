//! A process that cannot outlive its test, whatever it or the test does.

use std::io::{self, Read};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A process in a session of its own. After its limit, and when this is dropped, its whole process
/// group is woken, in case it was stopped, and killed.
#[derive(Debug)]
pub struct Running {
    leader: Leader,
    stdout: JoinHandle<io::Result<String>>,
    stderr: JoinHandle<io::Result<String>>,
}

/// How a process ended, and what it wrote.
#[derive(Debug)]
pub struct Ended {
    /// How it ended.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// The exit code, unless a signal ended it.
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// The signal that ended it.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }
}

impl Running {
    /// Starts a command that may run for `limit`, without standard input, its output kept.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(command: &mut Command, limit: Duration) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        // SAFETY: setsid is async-signal-safe.
        unsafe { command.pre_exec(|| nix::unistd::setsid().map(drop).map_err(Into::into)) };
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let stdout = read_all(child.stdout.take().context("no standard output")?);
        let stderr = read_all(child.stderr.take().context("no standard error")?);
        Ok(Self {
            leader: Leader::guard(child, limit)?,
            stdout,
            stderr,
        })
    }

    /// Its process ID, which is also that of its process group.
    pub fn pid(&self) -> u32 {
        self.leader.child.id()
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.leader.group;
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {pid}"))
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn is_running(&mut self) -> Result<bool> {
        Ok(self.leader.child.try_wait()?.is_none())
    }

    /// Waits for its end, and for that of every process that holds its output open.
    ///
    /// # Errors
    /// When its limit passed and it had to be killed; with what it wrote until then.
    pub fn wait(self) -> Result<Ended> {
        let Self {
            mut leader,
            stdout,
            stderr,
        } = self;
        let status = leader.child.wait()?;
        let (stdout, stderr) = (joined(stdout)?, joined(stderr)?);
        if leader.watchdog.has_bitten() {
            bail!(
                "process {}'s time was up; it wrote:\n{stdout}\n{stderr}",
                leader.group
            );
        }
        Ok(Ended {
            status,
            stdout,
            stderr,
        })
    }
}

fn read_all(mut stream: impl Read + Send + 'static) -> JoinHandle<io::Result<String>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    })
}

fn joined(reader: JoinHandle<io::Result<String>>) -> Result<String> {
    match reader.join() {
        Ok(text) => Ok(text?),
        Err(_) => bail!("the thread that read a process's output panicked"),
    }
}

/// A process, the leader of its group, and what ends the group.
#[derive(Debug)]
struct Leader {
    child: Child,
    group: Pid,
    watchdog: Watchdog,
}

impl Leader {
    fn guard(child: Child, limit: Duration) -> Result<Self> {
        let group = Pid::from_raw(i32::try_from(child.id())?);
        Ok(Self {
            child,
            group,
            watchdog: Watchdog::set(group, limit),
        })
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        end_group(self.group);
        // Reaps it; there is nobody to tell how it ended.
        let _ = self.child.wait();
    }
}

/// Wakes and kills a process group. There is nothing to do about one that is gone already.
fn end_group(group: Pid) {
    let _ = killpg(group, Signal::SIGCONT);
    let _ = killpg(group, Signal::SIGKILL);
}

/// Ends a process group when its time is up, unless it is dropped first.
#[derive(Debug)]
struct Watchdog {
    /// Dropping it calls the watchdog off.
    _leash: Sender<()>,
    has_bitten: Arc<AtomicBool>,
}

impl Watchdog {
    fn set(group: Pid, limit: Duration) -> Self {
        let (leash, held) = mpsc::channel::<()>();
        let has_bitten = Arc::new(AtomicBool::new(false));
        let bite = Arc::clone(&has_bitten);
        thread::spawn(move || {
            if held.recv_timeout(limit) == Err(RecvTimeoutError::Timeout) {
                bite.store(true, Ordering::Release);
                end_group(group);
            }
        });
        Self {
            _leash: leash,
            has_bitten,
        }
    }

    fn has_bitten(&self) -> bool {
        self.has_bitten.load(Ordering::Acquire)
    }
}
