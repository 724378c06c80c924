//! Processes that run beside a measurement, and end with it.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// How long an agent may take to answer.
const READY: Duration = Duration::from_secs(20);
const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

/// A process that is killed when this is dropped.
#[derive(Debug)]
pub struct Background(Child);

impl Background {
    /// Starts it, its output thrown away.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(command: &mut Command) -> Result<Self> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        Ok(Self(child))
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// What it wrote to standard error, if it has ended.
    fn last_words(&mut self) -> Result<Option<String>> {
        if self.0.try_wait()?.is_none() {
            return Ok(None);
        }
        let mut words = String::new();
        if let Some(stderr) = &mut self.0.stderr {
            stderr.read_to_string(&mut words)?;
        }
        Ok(Some(words))
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        // It may have ended; what matters is that it has afterwards.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A `helloops agent` on a socket of its own.
#[derive(Debug)]
pub struct Agent {
    process: Background,
    _directory: TempDir,
}

impl Agent {
    /// Starts it with these targets, as options, and waits until it answers.
    ///
    /// # Errors
    /// When it ends or does not answer in time.
    pub fn start(helloops: &Path, targets: &[String]) -> Result<Self> {
        let directory = TempDir::new().context("cannot create a temporary directory")?;
        let socket = directory.path().join("helloops.sock");
        let mut command = Command::new(helloops);
        command
            .arg("--socket")
            .arg(&socket)
            .arg("agent")
            .args(targets);
        let mut process = Background::start(&mut command)?;
        let start = Instant::now();
        while !answers(helloops, &socket)? {
            if let Some(words) = process.last_words()? {
                bail!("`helloops agent` ended: {}", words.trim());
            }
            if start.elapsed() > READY {
                bail!("`helloops agent` did not answer within {READY:?}");
            }
            thread::sleep(BETWEEN_LOOKS);
        }
        Ok(Self {
            process,
            _directory: directory,
        })
    }

    /// Its process ID.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // By SIGTERM it takes its socket and its probes with it; if not, it is killed after that.
        if let Ok(pid) = i32::try_from(self.pid()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(2) {
            if !matches!(self.process.0.try_wait(), Ok(None)) {
                return;
            }
            thread::sleep(BETWEEN_LOOKS);
        }
    }
}

fn answers(helloops: &Path, socket: &PathBuf) -> Result<bool> {
    let mut status = Command::new(helloops);
    status
        .arg("--socket")
        .arg(socket)
        .args(["status", "--json"]);
    status
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let ended = status.status().context("cannot start helloops")?;
    Ok(ended.success() && socket.exists())
}
