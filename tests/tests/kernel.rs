//! What must work on every kernel: `cargo xtask vm` runs this file on Debian's other ones, and
//! `cargo xtask test` runs it on this machine's.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, ensure};
use helloops_tests::{Running, victim};

/// `cargo xtask vm` says which kernel it boots.
#[test]
fn the_kernel_is_the_one_asked_for_and_has_btf() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    if let Ok(wanted) = std::env::var("HELLOOPS_KERNEL") {
        ensure!(
            release.starts_with(&wanted),
            "this is {release}, not {wanted}"
        );
    }
    ensure!(
        Path::new("/sys/kernel/btf/vmlinux").exists(),
        "{release} has no BTF"
    );
    Ok(())
}

#[test]
fn a_victim_runs_here() -> Result<()> {
    let mut command = Command::new(victim("cpp_faults")?);
    let ended = Running::start(command.arg("runtime_error"), Duration::from_secs(20))?.wait()?;
    ensure!(ended.signal() == Some(libc::SIGABRT), "{ended:?}");
    ensure!(ended.stderr.contains("order 7 is lost"), "{ended:?}");
    Ok(())
}
