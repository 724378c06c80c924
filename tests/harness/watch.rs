//! `helloops run --report FILE -- COMMAND`, and its report.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::artifacts;
use crate::process::{Ended, Running};

/// Enough for any victim, also in an emulated machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A watch to be: `watch(victim("rust_panics")?).args(["main"]).run()?`.
#[derive(Debug)]
pub struct Watch {
    options: Vec<OsString>,
    command: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    limit: Duration,
}

/// Prepares to watch a program.
pub fn watch(program: impl AsRef<OsStr>) -> Watch {
    Watch {
        options: Vec::new(),
        command: vec![program.as_ref().to_owned()],
        environment: Vec::new(),
        limit: LIMIT,
    }
}

impl Watch {
    /// Adds arguments for the program.
    pub fn args<S: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = S>) -> Self {
        self.command.extend(
            arguments
                .into_iter()
                .map(|argument| argument.as_ref().to_owned()),
        );
        self
    }

    /// Adds options for `helloops run`.
    pub fn options<S: AsRef<OsStr>>(mut self, options: impl IntoIterator<Item = S>) -> Self {
        self.options
            .extend(options.into_iter().map(|option| option.as_ref().to_owned()));
        self
    }

    /// Sets an environment variable for `helloops` and the program.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment
            .push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets how long all of it may take, instead of two minutes.
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Starts `helloops run` and leaves it running.
    ///
    /// # Errors
    /// When it cannot start.
    pub fn start(self) -> Result<Watching> {
        let directory = TempDir::new().context("cannot create a temporary directory")?;
        let mut command = Command::new(artifacts::helloops()?);
        command
            .arg("run")
            .arg("--report")
            .arg(directory.path().join(REPORT));
        command
            .args(&self.options)
            .arg("--")
            .args(&self.command)
            .envs(self.environment);
        // A victim's own backtrace is noise beside the stack that is looked for.
        command.env("RUST_BACKTRACE", "0");
        Ok(Watching {
            running: Running::start(&mut command, self.limit)?,
            directory,
        })
    }

    /// Runs `helloops run` to its end.
    ///
    /// # Errors
    /// When it cannot start, takes too long, or leaves no report.
    pub fn run(self) -> Result<Report> {
        self.start()?.finish()
    }
}

const REPORT: &str = "report.json";

/// A `helloops run` under way.
#[derive(Debug)]
pub struct Watching {
    /// The `helloops` process.
    pub running: Running,
    directory: TempDir,
}

impl Watching {
    /// Waits for its end and reads its report.
    ///
    /// # Errors
    /// When it takes too long or leaves no report.
    pub fn finish(self) -> Result<Report> {
        let ended = self.running.wait()?;
        let json = read(&self.directory.path().join(REPORT))
            .with_context(|| format!("{}; it wrote:\n{}", ended.status, ended.stderr))?;
        Ok(Report { json, ended })
    }
}

fn read(path: &Path) -> Result<Value> {
    let text = fs::read(path).context("`helloops run` left no report")?;
    serde_json::from_slice(&text).context("the report is no JSON")
}

/// What `helloops run` left behind. The shape of the JSON is the one that users rely on.
#[derive(Debug)]
pub struct Report {
    /// The report.
    pub json: Value,
    /// How `helloops` ended, and what it and the program wrote.
    pub ended: Ended,
}

impl Report {
    /// All faults, first to last.
    pub fn faults(&self) -> &[Value] {
        self.json["faults"].as_array().map_or(&[], Vec::as_slice)
    }

    /// The faults of one kind, such as `panic`.
    pub fn faults_of(&self, kind: &str) -> Vec<&Value> {
        self.faults()
            .iter()
            .filter(|fault| fault["kind"] == kind)
            .collect()
    }

    /// The only fault of all, which is of this kind.
    ///
    /// # Errors
    /// When there is none, more than one, or one of another kind; with the whole report.
    pub fn fault(&self, kind: &str) -> Result<&Value> {
        let fault = self.only(kind)?;
        if self.faults().len() != 1 {
            bail!("expected one fault alone, found\n{:#}", self.json["faults"]);
        }
        Ok(fault)
    }

    /// The only fault of a kind.
    ///
    /// # Errors
    /// When there is none, or more than one; with the whole report.
    pub fn only(&self, kind: &str) -> Result<&Value> {
        match self.faults_of(kind).as_slice() {
            [fault] => Ok(fault),
            faults => bail!(
                "expected one fault of kind '{kind}', found {}:\n{:#}\n{}",
                faults.len(),
                self.json,
                self.ended.stderr
            ),
        }
    }

    /// The latencies of one system call.
    ///
    /// # Errors
    /// When it was never called; with the calls that were.
    pub fn series(&self, call: &str) -> Result<&Value> {
        let all = self.json["syscalls"]
            .as_array()
            .map_or(&[][..], Vec::as_slice);
        all.iter()
            .find(|series| series["call"] == call)
            .with_context(|| {
                let calls: Vec<_> = all
                    .iter()
                    .map(|series| series["call"].to_string())
                    .collect();
                format!("no latencies of {call}, only of {}", calls.join(", "))
            })
    }
}
