//! `cargo xtask vm`: the kernel-facing tests on Debian's other kernels, in an emulated machine.
//!
//! The machine has no disk: kernel and initial file system hold all there is, which is busybox,
//! `helloops`, the victims and the test binary `tests/tests/kernel.rs`. It is emulated rather than
//! virtualised, so that it runs wherever the build does.

mod image;
mod kernel;
mod machine;

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::packages::{self, VM};
use crate::{build, shell};

pub use kernel::Kernel;

/// Builds all there is to run, boots `kernel` with it, and passes on what the tests say and how
/// they end.
///
/// # Errors
/// When something cannot be installed, downloaded or built, or the machine does not get to the
/// tests' end.
pub fn run(kernel: Kernel, filter: Option<&str>) -> Result<ExitCode> {
    packages::ensure(&[VM])?;
    let built = build::everything()?;
    let tests = test_binary()?;

    let directory = shell::target().join("vm").join(kernel.version());
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    let linux = kernel.ensure(&directory)?;
    let initramfs = image::pack(&directory, &built, &tests, kernel, filter)?;
    shell::say(&format!(
        "booting Linux {} with the tests",
        kernel.version()
    ));
    machine::boot(&linux, &initramfs, &directory.join("console.log"))
}

/// Compiles `tests/tests/kernel.rs` and asks cargo where it is.
fn test_binary() -> Result<PathBuf> {
    let mut command = shell::cargo();
    // The whole workspace, so that dependencies have the features that `cargo xtask test` gives
    // them, and are not built again.
    command.args(["test", "--workspace", "--test", "kernel", "--no-run"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    command.stderr(std::process::Stdio::inherit());
    let messages = shell::output(&mut command)?;
    messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|message| message["target"]["name"] == "kernel")
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo built no test binary of tests/tests/kernel.rs")
}
