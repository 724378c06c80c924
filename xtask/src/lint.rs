//! `cargo xtask lint`: formatting, clippy's warnings and the docs' links, all as errors.

use std::process::Command;

use anyhow::Result;

use crate::packages::{self, BPF_CLIPPY};
use crate::{setup, shell};

/// Checks, without changing anything.
///
/// # Errors
/// When something is not as it should be; the checker has said what.
pub fn run() -> Result<()> {
    setup::ensure()?;
    shell::check(shell::cargo().args(["fmt", "--all", "--check"]))?;
    let clippy = [
        "clippy",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ];
    shell::check(shell::cargo().args(clippy))?;
    bpf_clippy()?;
    let mut doc = shell::cargo();
    doc.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    shell::check(doc.env("RUSTDOCFLAGS", "-D warnings"))
}

/// Clippy for the BPF programs, which compile for no other machine, with the clippy that belongs to
/// the compiler that compiles them.
fn bpf_clippy() -> Result<()> {
    if !setup::is_linked()? {
        shell::say("clippy for the BPF programs is left out: it comes with Debian's Rust only");
        return Ok(());
    }
    packages::ensure(&[BPF_CLIPPY])?;
    let mut clippy = Command::new("rustup");
    clippy
        .current_dir(shell::workspace())
        .args(["run", setup::LINKED, "cargo", "clippy"]);
    clippy.args(["--package=helloops-ebpf", "--features=programs", "--bins"]);
    clippy.args(["--target=bpfel-unknown-none", "--", "-D", "warnings"]);
    // As in `helloops-user/build.rs`, which also says why.
    clippy.env("RUSTC_BOOTSTRAP", "aya_ebpf,helloops_programs");
    clippy.env(
        "CARGO_ENCODED_RUSTFLAGS",
        "--cfg=bpf_target_arch=\"x86_64\"",
    );
    clippy.env("CARGO_TARGET_DIR", shell::target().join("lint"));
    // Cargo's own variables for this process name another toolchain.
    for variable in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        clippy.env_remove(variable);
    }
    shell::check(&mut clippy)
}
