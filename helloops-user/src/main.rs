//! The `helloops` command.

fn main() {}
