//! What a build needs beyond rustup's Rust: a `core` for BPF, bpf-linker, a C and a C++ compiler.
//!
//! There are two ways to a `core` for BPF, and `helloops-user/build.rs` knows both:
//! - a toolchain that is linked under the name `helloops-bpf` and carries a prebuilt one: Debian
//!   12's own, from its security updates. This is what [`ensure`] installs.
//! - rustup's nightly with the component `rust-src`, where it is already there.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::packages::{self, BPF_LINKER, BPF_RUST, COMPILERS};
use crate::shell;

/// The toolchain's name for rustup; `helloops-user/build.rs` looks for it.
pub const LINKED: &str = "helloops-bpf";
/// The release that links what Debian's rustc and its LLVM 22 emit.
const BPF_LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "/usr/lib/llvm-22";

/// Installs what is missing; returns at once when nothing is.
///
/// # Errors
/// When something is missing that cannot be installed from here; with the commands that do it.
pub fn ensure() -> Result<()> {
    shell::extend_path()?;
    let linker = which::which("bpf-linker").is_ok();
    let linked = match core_for_bpf()? {
        Core::Linked => true,
        Core::Nightly if linker => return packages::ensure(&[COMPILERS]),
        Core::Nightly | Core::Missing if packages::can_install() => false,
        Core::Nightly | Core::Missing => bail!(by_hand()),
    };
    let rust = if linked { &[] } else { BPF_RUST };
    let linkers_libraries = if linker { &[] } else { BPF_LINKER };
    // All at once, since each run of apt takes its time.
    packages::ensure(&[COMPILERS, rust, linkers_libraries])?;
    if !linker {
        install_linker()?;
    }
    if !linked {
        link_toolchain()?;
    }
    Ok(())
}

/// Whether the linked toolchain is the one that compiles the BPF programs.
///
/// # Errors
/// When there is no rustup.
pub fn is_linked() -> Result<bool> {
    Ok(matches!(core_for_bpf()?, Core::Linked))
}

/// Where a `core` for BPF comes from.
enum Core {
    /// From the linked toolchain.
    Linked,
    /// From the nightly's `rust-src`.
    Nightly,
    /// From nowhere yet.
    Missing,
}

/// Looks at the toolchains' files; asking rustup would take longer.
fn core_for_bpf() -> Result<Core> {
    let toolchains = rustup_home()?.join("toolchains");
    let linked = toolchains.join(LINKED);
    if linked.symlink_metadata().is_ok() {
        if linked.join("lib/rustlib/bpfel-unknown-none/lib").is_dir()
            && linked.join("bin/rustc").exists()
        {
            return Ok(Core::Linked);
        }
        // It takes precedence in the build, so it has to be mended rather than passed over.
        return Ok(Core::Missing);
    }
    let nightly = format!("nightly-{}-unknown-linux-gnu", env::consts::ARCH);
    let source = toolchains
        .join(nightly)
        .join("lib/rustlib/src/rust/library/core");
    Ok(if source.is_dir() {
        Core::Nightly
    } else {
        Core::Missing
    })
}

fn rustup_home() -> Result<PathBuf> {
    env::var_os("RUSTUP_HOME")
        .map(PathBuf::from)
        .or_else(|| env::home_dir().map(|home| home.join(".rustup")))
        .filter(|home| home.is_dir())
        .context("rustup is not installed; get it from https://rustup.rs and try again")
}

fn install_linker() -> Result<()> {
    shell::say("building bpf-linker (about a minute and a half)");
    let mut install = shell::cargo();
    install
        .env("LLVM_PREFIX", LLVM)
        .args(["install", "bpf-linker"]);
    install.args(["--version", BPF_LINKER_VERSION, "--locked"]);
    install.args(["--no-default-features", "--features", "llvm-22"]);
    // Its build belongs into a directory of its own, not into the workspace's.
    install
        .env_remove("CARGO_TARGET_DIR")
        .current_dir(Path::new("/"));
    shell::check(&mut install)
}

fn link_toolchain() -> Result<()> {
    shell::say(&format!("linking Debian's Rust as the toolchain {LINKED}"));
    let mut rustup = std::process::Command::new("rustup");
    shell::check(rustup.args(["toolchain", "link", LINKED, "/usr"]))
}

fn by_hand() -> String {
    let packages = packages::by_hand(&packages::names(&[BPF_RUST, BPF_LINKER]));
    format!(
        "there is no Rust that compiles to BPF, and it cannot be installed from here (that takes \
         apt, and root or sudo). On Debian 12 run:\n{packages}\n\
         LLVM_PREFIX={LLVM} cargo install bpf-linker --version {BPF_LINKER_VERSION} --locked \
         --no-default-features --features llvm-22\n\
         rustup toolchain link {LINKED} /usr\n\
         or, elsewhere:\n\
         rustup toolchain install nightly --component rust-src\n\
         cargo install bpf-linker"
    )
}
