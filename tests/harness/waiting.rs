//! Victims that wait for SIGUSR1, so that a test can look at them before they fail.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

use crate::process::{Ended, Running};
use crate::wait::eventually;

/// Enough for any victim and what is done to it, also in an emulated machine.
const LIMIT: Duration = Duration::from_secs(300);
/// How long a victim may take to be ready.
const READY: Duration = Duration::from_secs(60);

/// A victim that waits for SIGUSR1.
#[derive(Debug)]
pub struct Waiting {
    running: Running,
}

impl Waiting {
    /// Starts a victim in a mode that waits, and lets it come so far.
    ///
    /// # Errors
    /// When it cannot start, or does not wait.
    pub fn start<S: AsRef<OsStr>>(
        program: impl AsRef<OsStr>,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
        let mut command = Command::new(program);
        // A victim's own backtrace is noise beside the stack that is looked for.
        command.args(arguments).env("RUST_BACKTRACE", "0");
        let waiting = Self {
            running: Running::start(&mut command, LIMIT)?,
        };
        until_it_waits(waiting.pid())?;
        Ok(waiting)
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// When it has ended.
    pub fn go(&self) -> Result<()> {
        self.running.signal(Signal::SIGUSR1)
    }

    /// Lets it go on, and waits for its end.
    ///
    /// # Errors
    /// When it has ended before, or does not end in time.
    pub fn go_and_end(self) -> Result<Ended> {
        self.go()?;
        self.running.wait()
    }
}

/// Lets a victim go on that somebody else started.
///
/// # Errors
/// When it does not wait, or has ended.
pub fn go(pid: u32) -> Result<()> {
    until_it_waits(pid)?;
    let pid = Pid::from_raw(i32::try_from(pid)?);
    nix::sys::signal::kill(pid, Signal::SIGUSR1)
        .with_context(|| format!("cannot send SIGUSR1 to {pid}"))
}

/// Its main thread is in `rt_sigtimedwait`, which `sigwait` makes of it. The blocked signals do not
/// tell, since the kernel lets those through that are waited for.
fn until_it_waits(pid: u32) -> Result<()> {
    let path = format!("/proc/{pid}/syscall");
    let waits = format!("{} ", libc::SYS_rt_sigtimedwait);
    eventually("victim that waits for SIGUSR1", READY, || {
        let call = fs::read_to_string(&path).with_context(|| path.clone())?;
        Ok(call.starts_with(&waits).then_some(()))
    })
}
