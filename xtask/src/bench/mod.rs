//! `cargo xtask bench`: what watching costs.
use anyhow::Result;
use clap::Subcommand;
/// x
#[derive(Subcommand)]
pub enum What {
    /// x
    Syscalls,
}
pub fn run(_what: &What) -> Result<()> {
    Ok(())
}
