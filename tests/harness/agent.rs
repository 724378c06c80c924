//! `helloops agent` on a socket of its own, and the commands that ask it.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::artifacts;
use crate::process::{Ended, Running};
use crate::wait::eventually;

/// How long one test may keep its agent.
const LIMIT: Duration = Duration::from_secs(300);
/// How long an agent may take to load everything and answer, also in an emulated machine.
const READY: Duration = Duration::from_secs(60);
/// How long an answer may take.
const ANSWER: Duration = Duration::from_secs(30);

/// An agent, which is killed when this is dropped.
#[derive(Debug)]
pub struct Agent {
    running: Running,
    directory: TempDir,
}

impl Agent {
    /// Starts `helloops agent` with these arguments and waits until it answers.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with what it wrote.
    pub fn start<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Self> {
        let directory = TempDir::new().context("cannot create a temporary directory")?;
        let mut command = Command::new(artifacts::helloops()?);
        command
            .arg("--socket")
            .arg(directory.path().join(SOCKET))
            .arg("agent")
            .args(arguments);
        let mut agent = Self {
            running: Running::start(&mut command, LIMIT)?,
            directory,
        };
        let answers = eventually("answer from the agent", READY, || {
            let ended = !agent.running.is_running()?;
            Ok((ended || agent.ask(["status"]).is_ok()).then_some(!ended))
        });
        match answers {
            Ok(true) => Ok(agent),
            Ok(false) => {
                let ended = agent.running.wait()?;
                bail!(
                    "the agent ended ({}); it wrote:\n{}",
                    ended.status,
                    ended.stderr
                )
            }
            Err(error) => Err(error),
        }
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Its socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join(SOCKET)
    }

    /// Runs a command of the CLI against it, with `--json`, and gives back the answer.
    ///
    /// # Errors
    /// When the command fails, with what it wrote, or answers with something else than JSON.
    pub fn ask<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Value> {
        let mut command = Command::new(artifacts::helloops()?);
        command
            .arg("--socket")
            .arg(self.socket())
            .args(arguments)
            .arg("--json");
        let ended = Running::start(&mut command, ANSWER)?.wait()?;
        if !ended.status.success() {
            bail!("{command:?} failed ({}): {}", ended.status, ended.stderr);
        }
        serde_json::from_str(&ended.stdout)
            .with_context(|| format!("{command:?} answered with no JSON: {}", ended.stdout))
    }

    /// Sends it a signal.
    ///
    /// # Errors
    /// When it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        self.running.signal(signal)
    }

    /// Asks it to end, by SIGTERM, and waits until it has.
    ///
    /// # Errors
    /// When it does not end.
    pub fn stop(self) -> Result<Ended> {
        self.running.signal(Signal::SIGTERM)?;
        self.running.wait()
    }
}

const SOCKET: &str = "helloops.sock";
