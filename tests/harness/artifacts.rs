//! Finds the programs that tests run, and has them built where nobody did yet.

use std::collections::HashMap;
use std::env;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::process::{Ended, Running};

/// The `helloops` command.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn helloops() -> Result<PathBuf> {
    built("HELLOOPS_BIN")
}

/// Runs `helloops` with these arguments to its end, whatever that is.
///
/// # Errors
/// When it cannot start, or takes too long.
pub fn cli<S: AsRef<OsStr>>(arguments: impl IntoIterator<Item = S>) -> Result<Ended> {
    let mut command = Command::new(helloops()?);
    command.args(arguments);
    Running::start(&mut command, CLI_LIMIT)?.wait()
}

/// Enough for a command that fails, or asks an agent, also in an emulated machine.
const CLI_LIMIT: Duration = Duration::from_secs(120);

/// The sample service.
///
/// # Errors
/// When it is not there and cannot be built.
pub fn shop() -> Result<PathBuf> {
    built("HELLOOPS_SHOP")
}

/// A victim by its name: `rust_panics`, `rust_panics_abort`, `syscalls`, `c_faults`,
/// `c_faults_static`, `cpp_faults` or `compat`. Their sources in `tests/victims/` say what each mode does.
///
/// # Errors
/// When there is no such victim, or it is not there and cannot be built.
pub fn victim(name: &str) -> Result<PathBuf> {
    let path = built("HELLOOPS_VICTIMS")?.join(name);
    if !path.exists() {
        bail!("there is no victim {}", path.display());
    }
    Ok(path)
}

fn built(variable: &str) -> Result<PathBuf> {
    if let Some(path) = env::var_os(variable) {
        return Ok(PathBuf::from(path));
    }
    static BUILT: OnceLock<Result<HashMap<String, PathBuf>, String>> = OnceLock::new();
    match BUILT.get_or_init(|| build().map_err(|error| format!("{error:#}"))) {
        Ok(paths) => {
            let path = paths.get(variable);
            path.cloned()
                .with_context(|| format!("`cargo xtask build` names no {variable}"))
        }
        Err(error) => bail!("{error}; set {variable}, or run the tests with `cargo xtask test`"),
    }
}

/// What `cargo xtask build` prints: `NAME=PATH` lines.
fn build() -> Result<HashMap<String, PathBuf>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new("cargo")
        .args(["xtask", "build"])
        .current_dir(workspace)
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!(
            "`cargo xtask build` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, path)| (name.to_owned(), PathBuf::from(path)))
        .collect())
}
