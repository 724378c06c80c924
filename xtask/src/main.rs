//! `cargo xtask`: sets up, runs, tests and measures HelloOps.

fn main() {}
