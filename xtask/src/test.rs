//! `cargo xtask test`: every test, for real in this kernel.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::build::{self, Built};
use crate::packages::{self, TESTS};
use crate::shell;

/// Builds, then runs `cargo test` on the whole workspace, or on the packages that the arguments
/// name.
///
/// # Errors
/// When the kernel or this user cannot run the tests, or something needed cannot be installed.
pub fn run(arguments: &[String]) -> Result<ExitCode> {
    check_kernel()?;
    packages::ensure(&[TESTS])?;
    let built = build::everything()?;

    let mut test = shell::cargo();
    // A failure in one file must not keep the others from telling theirs.
    test.args(["test", "--no-fail-fast"]);
    let names_packages = arguments
        .iter()
        .any(|argument| argument.starts_with("-p") || argument == "--package");
    if !names_packages {
        test.arg("--workspace");
    }
    if !shell::is_root() {
        test.args(["--config", &through_sudo(&built)?]);
    }
    test.envs(built.environment()).args(arguments);
    Ok(shell::exit_code(shell::status(&mut test)?))
}

/// Cargo's own setting for a program that test binaries are started through. Cargo itself stays
/// this user's, as do the files that it makes.
fn through_sudo(built: &Built) -> Result<String> {
    shell::check(&mut shell::as_root("true")?).context(
        "the tests load BPF programs, which takes root; sudo refused, so run this as root",
    )?;
    let mut words = vec!["sudo".to_owned(), "--".to_owned(), "env".to_owned()];
    words.extend(
        built
            .environment()
            .map(|(name, path)| format!("{name}={}", path.display())),
    );
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    Ok(format!("target.'cfg(unix)'.runner=[{}]", words.join(",")))
}

/// The kernel features without which no test could say anything.
fn check_kernel() -> Result<()> {
    if !Path::new("/sys/kernel/btf/vmlinux").exists() {
        bail!(
            "this kernel has no BTF (/sys/kernel/btf/vmlinux), hence cannot run the tests; it \
             takes CONFIG_DEBUG_INFO_BTF=y. `cargo xtask vm 6.12` runs the kernel-facing ones in \
             an emulated machine"
        );
    }
    if !shell::is_root() {
        return Ok(());
    }
    let status =
        fs::read_to_string("/proc/self/status").context("cannot read /proc/self/status")?;
    let missing = missing_capabilities(&status);
    if !missing.is_empty() {
        bail!(
            "root lacks {} here, as in a container: the tests load BPF programs. Start the \
             container privileged, or run `cargo xtask vm 6.12`",
            missing.join(", ")
        );
    }
    Ok(())
}

/// The capabilities that tests need and a process with this `/proc/PID/status` lacks.
fn missing_capabilities(status: &str) -> Vec<&'static str> {
    // Bits from include/uapi/linux/capability.h.
    const NEEDED: [(u32, &str); 4] = [
        (19, "CAP_SYS_PTRACE"),
        (21, "CAP_SYS_ADMIN"),
        (38, "CAP_PERFMON"),
        (39, "CAP_BPF"),
    ];

    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    NEEDED
        .iter()
        .filter(|(bit, _)| effective >> bit & 1 == 0)
        .map(|(_, name)| *name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::missing_capabilities;

    #[test]
    fn a_container_s_root_lacks_what_bpf_takes() {
        let docker = "Name:\tsh\nCapEff:\t00000000a80425fb\n";
        let all = ["CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_PERFMON", "CAP_BPF"];
        assert_eq!(missing_capabilities(docker), all);
        assert!(missing_capabilities("CapEff:\t000001ffffffffff\n").is_empty());
    }
}
