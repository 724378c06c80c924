//! The Debian packages that building, testing and measuring take, in one list, and how they get
//! onto the machine.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// A Debian package, and how to see that it is installed.
#[derive(Debug, Clone, Copy)]
pub struct Package {
    name: &'static str,
    proof: Proof,
}

#[derive(Debug, Clone, Copy)]
enum Proof {
    /// This program is in `PATH`.
    Program(&'static str),
    /// This file is there.
    File(&'static str),
}

impl Package {
    const fn program(name: &'static str, program: &'static str) -> Self {
        Self {
            name,
            proof: Proof::Program(program),
        }
    }

    const fn file(name: &'static str, file: &'static str) -> Self {
        Self {
            name,
            proof: Proof::File(file),
        }
    }

    /// Another package may have brought the same file: that will do.
    fn is_there(&self) -> bool {
        match self.proof {
            Proof::Program(program) => which::which(program).is_ok(),
            Proof::File(file) => Path::new(file).exists(),
        }
    }
}

/// Compilers and headers for the crates that compile C, and for the victims in C and C++.
pub const COMPILERS: &[Package] = &[
    Package::program("gcc", "gcc"),
    Package::program("g++", "g++"),
    Package::file("libc6-dev", "/usr/include/stdio.h"),
];

/// Debian's Rust with a prebuilt `core` for BPF, and what bpf-linker links to.
pub const BPF_RUST: &[Package] = &[
    Package::program("rustc-web", "/usr/bin/rustc"),
    Package::file(
        "libstd-rust-web-dev-bpf",
        "/usr/lib/rustlib/bpfel-unknown-none/lib",
    ),
    Package::file(
        "libstd-rust-web-dev",
        "/usr/lib/rustlib/x86_64-unknown-linux-gnu/lib",
    ),
];

/// The clippy of Debian's Rust.
pub const BPF_CLIPPY: &[Package] = &[Package::program(
    "rust-web-clippy",
    "/usr/bin/clippy-driver",
)];

/// What bpf-linker takes to build.
pub const BPF_LINKER: &[Package] = &[
    Package::file("llvm-22-dev", "/usr/lib/llvm-22/include/llvm-c/Core.h"),
    Package::file("libzstd-dev", "/usr/include/zstd.h"),
    Package::file("zlib1g-dev", "/usr/include/zlib.h"),
];

/// Real programs that the tests make fail.
pub const TESTS: &[Package] = &[Package::program("redis-server", "redis-server")];

/// What an emulated machine takes.
pub const VM: &[Package] = &[
    Package::program("qemu-system-x86", "qemu-system-x86_64"),
    Package::program("cpio", "cpio"),
    Package::file("busybox-static", "/bin/busybox"),
    Package::program("binutils", "strip"),
];

/// What the benches compare with.
pub const BENCH: &[Package] = &[
    Package::program("bpftrace", "bpftrace"),
    Package::program("strace", "strace"),
];

/// Installs those of the packages that are missing, with apt, as root or through sudo.
///
/// # Errors
/// When some are missing and cannot be installed; with the commands that install them.
pub fn ensure(lists: &[&[Package]]) -> Result<()> {
    let missing = missing(lists);
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)?;
    let still = self::missing(lists);
    if !still.is_empty() {
        bail!(
            "installed {}, yet what they should bring is not there",
            still.join(", ")
        );
    }
    Ok(())
}

fn missing(lists: &[&[Package]]) -> Vec<&'static str> {
    let all = lists.iter().flat_map(|list| list.iter());
    all.filter(|package| !package.is_there())
        .map(|package| package.name)
        .collect()
}

/// Whether apt can install anything here.
pub fn can_install() -> bool {
    which::which("apt-get").is_ok() && (shell::is_root() || which::which("sudo").is_ok())
}

/// The commands that install packages by hand.
pub fn by_hand(names: &[&str]) -> String {
    let names = names.join(" ");
    format!("sudo apt-get update\nsudo apt-get install --no-install-recommends {names}")
}

/// The names of the packages in the lists.
pub fn names(lists: &[&[Package]]) -> Vec<&'static str> {
    lists
        .iter()
        .flat_map(|list| list.iter())
        .map(|package| package.name)
        .collect()
}

fn install(names: &[&str]) -> Result<()> {
    if !can_install() {
        bail!(
            "missing: {}. They cannot be installed from here (that takes apt, and root or sudo). \
             On Debian 12 run:\n{}",
            names.join(", "),
            by_hand(names)
        );
    }
    shell::say(&format!("installing {} with apt", names.join(", ")));
    // Lists that are a few days old may name versions that the mirrors no longer have.
    if apt(&["update"]).and_then(|()| apt_install(names)).is_err() {
        bail!(
            "apt could not install {}; run by hand:\n{}",
            names.join(", "),
            by_hand(names)
        );
    }
    Ok(())
}

fn apt_install(names: &[&str]) -> Result<()> {
    let mut arguments = vec!["install", "--yes", "--no-install-recommends"];
    arguments.extend(names);
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> Result<()> {
    let mut command = shell::as_root("env")?;
    command
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "-q"])
        .args(arguments);
    shell::check(no_input(&mut command))
}

/// Keeps a program from waiting for an answer that nobody gives. Sudo asks at the terminal itself.
fn no_input(command: &mut Command) -> &mut Command {
    command.stdin(std::process::Stdio::null())
}
