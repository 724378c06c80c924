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
use crate::own::open_directory;
use crate::process::{Ended, Running};
use crate::wait::eventually;

/// How long one test may keep its agent.
const LIMIT: Duration = Duration::from_secs(300);
/// How long an agent may take to load everything and answer, also in an emulated machine.
const READY: Duration = Duration::from_secs(60);
/// How long it may take until something that happened is in the answers.
const FAULT: Duration = Duration::from_secs(60);
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
        Self::start_in(open_directory()?, arguments)
    }

    /// As [`Agent::start`], with its socket in this directory.
    ///
    /// # Errors
    /// When it ends, or does not answer in time; with what it wrote.
    pub fn start_in<S: AsRef<OsStr>>(
        directory: TempDir,
        arguments: impl IntoIterator<Item = S>,
    ) -> Result<Self> {
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

    /// Runs a command of the CLI against it, and gives back what it wrote, as for people.
    ///
    /// # Errors
    /// When the command cannot start, or takes too long.
    pub fn run<S: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = S>) -> Result<Ended> {
        let socket = self.socket().into_os_string();
        let asked = ["--socket".into(), socket].into_iter();
        let arguments = arguments
            .into_iter()
            .map(|argument| argument.as_ref().to_owned());
        artifacts::cli(asked.chain(arguments))
    }

    /// All faults that it keeps, first to last.
    ///
    /// # Errors
    /// As for [`Agent::ask`].
    pub fn faults(&self) -> Result<Vec<Value>> {
        let answer = self.ask(["faults", "--limit", "100000"])?;
        Ok(answer["faults"].as_array().cloned().unwrap_or_default())
    }

    /// Waits until a fault is there that `is_meant` knows, and gives it back.
    ///
    /// # Errors
    /// When none comes; with those that did.
    pub fn fault(&self, what: &str, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut seen = Vec::new();
        eventually(what, FAULT, || {
            seen = self.faults()?;
            Ok(seen.iter().find(|fault| is_meant(fault)).cloned())
        })
        .with_context(|| format!("the faults are: {seen:#?}"))
    }

    /// Waits until a process has a fault of a kind, and gives it back.
    ///
    /// # Errors
    /// When none comes; with those that did.
    pub fn fault_of(&self, pid: u32, kind: &str) -> Result<Value> {
        self.fault(&format!("{kind} of process {pid}"), |fault| {
            fault["pid"] == pid && fault["kind"] == kind
        })
    }

    /// Waits until a system call's latencies since the start are as `is_meant` knows them.
    ///
    /// # Errors
    /// When they do not become so; with those that are there.
    pub fn series(&self, call: &str, is_meant: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut seen = Value::Null;
        eventually(&format!("such latencies of {call}"), FAULT, || {
            seen = self.ask(["hist", "--call", call])?;
            let series = seen["series"].as_array().map_or(&[][..], Vec::as_slice);
            Ok(series.iter().find(|series| is_meant(series)).cloned())
        })
        .with_context(|| format!("there is {seen:#}"))
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
        Ok(self.end(Signal::SIGTERM)?.0)
    }

    /// Ends it by a signal, and gives back the directory of its socket.
    ///
    /// # Errors
    /// When it does not end.
    pub fn end(self, signal: Signal) -> Result<(Ended, TempDir)> {
        self.running.signal(signal)?;
        Ok((self.running.wait()?, self.directory))
    }
}

const SOCKET: &str = "helloops.sock";
