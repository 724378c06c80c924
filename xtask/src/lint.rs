//! `cargo xtask lint`: formatting, clippy's warnings and the docs' links, all as errors.

use anyhow::Result;

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
    let mut doc = shell::cargo();
    doc.args([
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
    ]);
    shell::check(doc.env("RUSTDOCFLAGS", "-D warnings"))
}
