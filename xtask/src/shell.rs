//! Running other programs: as this user or as root, with cargo's tools within reach.

use std::env;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, ExitStatus};

use anyhow::{Context, Result, bail};

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().unwrap_or(xtask)
}

/// Where cargo builds, and where everything that xtask makes goes too.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// The `cargo` that runs this.
pub fn cargo() -> Command {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.current_dir(workspace());
    command
}

/// Puts the directory of cargo's installed programs, where bpf-linker is, into this process's
/// `PATH`: Debian's own shells lack it when rustup was installed a minute ago.
///
/// # Errors
/// When `PATH` holds something that cannot be in it.
pub fn extend_path() -> Result<()> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    let programs = home
        .context("there is no home directory; set CARGO_HOME")?
        .join("bin");
    let path = env::var_os("PATH").unwrap_or_default();
    if !env::split_paths(&path).any(|directory| directory == programs) {
        let extended = env::join_paths([programs].into_iter().chain(env::split_paths(&path)))?;
        // SAFETY: xtask has no second thread when it sets up.
        unsafe { env::set_var("PATH", extended) };
    }
    Ok(())
}

/// Whether this process may do everything.
pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A command that runs `program` as root: itself, or behind sudo.
///
/// # Errors
/// When this is not root and there is no sudo.
pub fn as_root(program: impl AsRef<OsStr>) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let sudo = which::which("sudo").with_context(|| {
        let program = program.as_ref().to_string_lossy().into_owned();
        format!("{program} must run as root, and there is no sudo; become root and try again")
    })?;
    let mut command = Command::new(sudo);
    command.arg("--").arg(program);
    Ok(command)
}

/// Runs a command to its end, its output where ours goes.
///
/// # Errors
/// When it cannot start or does not succeed.
pub fn check(command: &mut Command) -> Result<()> {
    let status = status(command)?;
    if !status.success() {
        bail!("{} failed: {status}", line(command));
    }
    Ok(())
}

/// Runs a command to its end, its output where ours goes.
///
/// # Errors
/// When it cannot start.
pub fn status(command: &mut Command) -> Result<ExitStatus> {
    command
        .status()
        .with_context(|| format!("cannot start {}", line(command)))
}

/// Runs a command to its end and gives back its standard output.
///
/// # Errors
/// When it cannot start or does not succeed; with what it wrote to standard error.
pub fn output(command: &mut Command) -> Result<String> {
    let output = command
        .output()
        .with_context(|| format!("cannot start {}", line(command)))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!(
            "{} failed: {}: {}",
            line(command),
            output.status,
            said.trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The same exit code as that of a program which ended so; 128 and the signal's number for one
/// that a signal ended, as shells have it.
pub fn exit_code(status: ExitStatus) -> ExitCode {
    use std::os::unix::process::ExitStatusExt;

    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    code.and_then(|code| u8::try_from(code).ok())
        .map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Tells the user what takes time.
pub fn say(message: &str) {
    eprintln!("xtask: {message}");
}

/// A command as a person would type it.
fn line(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
