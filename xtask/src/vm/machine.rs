//! The emulated machine, and what comes over its serial lines: the kernel's console on the first,
//! which goes to a file, the tests' output on the second.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// The line after the tests' output; their exit code follows.
pub const END: &str = "=== tests ended with exit code";

/// How long the machine may run.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// How much of the console is shown when the machine fails.
const LAST_LINES: usize = 40;

/// Boots the machine, prints what the tests say, and gives back their exit code.
///
/// # Errors
/// When the machine ends, or its time is up, before the tests end; with the console's last lines.
pub fn boot(linux: &Path, initramfs: &Path, console: &Path) -> Result<ExitCode> {
    let mut command = Command::new("qemu-system-x86_64");
    command.args([
        "-accel",
        "tcg,thread=multi",
        "-cpu",
        "max",
        "-smp",
        "2",
        "-m",
        "2048",
    ]);
    command.args([
        "-display",
        "none",
        "-monitor",
        "none",
        "-no-reboot",
        "-nic",
        "none",
    ]);
    command
        .arg("-serial")
        .arg(format!("file:{}", console.display()))
        .args(["-serial", "stdio"]);
    command
        .arg("-kernel")
        .arg(linux)
        .arg("-initrd")
        .arg(initramfs);
    command.args(["-append", "console=ttyS0 loglevel=6 panic=-1"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut machine = Machine(command.spawn().context("cannot start qemu-system-x86_64")?);

    let output = machine
        .0
        .stdout
        .take()
        .context("the machine has no serial line")?;
    match relay(&lines_of(output)) {
        Ok(code) => Ok(ExitCode::from(code)),
        Err(RecvTimeoutError::Timeout) => bail!("time is up after {LIMIT:?}; {}", said(console)),
        Err(RecvTimeoutError::Disconnected) => {
            bail!("the machine ended before the tests did; {}", said(console))
        }
    }
}

/// Prints the tests' output up to the line that tells how they ended.
fn relay(lines: &Receiver<String>) -> Result<u8, RecvTimeoutError> {
    let end = Instant::now() + LIMIT;
    loop {
        let line = lines.recv_timeout(end.saturating_duration_since(Instant::now()))?;
        let line = line.trim_end_matches('\r');
        match line.strip_prefix(END) {
            Some(code) => return Ok(code.trim().parse().unwrap_or(u8::MAX)),
            None => println!("{line}"),
        }
    }
}

/// Reads on a thread of its own, so that one can stop waiting.
fn lines_of(output: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            // Nobody listens once the tests have ended.
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    lines
}

/// What the kernel said last.
fn said(console: &Path) -> String {
    let text = fs::read(console).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines
        .iter()
        .skip(lines.len().saturating_sub(LAST_LINES))
        .copied();
    format!(
        "its console ({}) ends:\n{}",
        console.display(),
        last.collect::<Vec<_>>().join("\n")
    )
}

/// Turned off when it is dropped.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have turned itself off.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
