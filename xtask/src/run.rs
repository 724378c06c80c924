//! `cargo xtask run`: HelloOps at work, on the sample service or on whatever the user asks for.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode};

use anyhow::Result;

use crate::{build, shell};

/// How long the sample stays open.
const OPEN_FOR: &str = "12s";

/// Watches the sample under `helloops run`; with `arguments`, runs `helloops` with them instead.
///
/// # Errors
/// When the build fails or `helloops` cannot start.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    let (helloops, shop) = build::helloops_and_shop()?;
    let mut command = shell::as_root(&helloops)?;
    if arguments.is_empty() {
        shell::say(&format!(
            "watching the sample shop for {OPEN_FOR}; Ctrl-C ends it sooner"
        ));
        // The stack that HelloOps finds is the one to look at.
        command.env("RUST_BACKTRACE", "0");
        command
            .args(["run", "--every", "4", "--"])
            .arg(shop)
            .args(["--load", "--for", OPEN_FOR]);
    } else {
        command.args(arguments);
    }
    Err(become_command(&mut command))
}

/// Replaces this process, so that the terminal's signals and the exit code are the command's own.
fn become_command(command: &mut Command) -> anyhow::Error {
    let error = command.exec();
    let program = command.get_program().to_string_lossy().into_owned();
    anyhow::Error::new(error).context(format!("cannot start {program}"))
}
