//! `cargo xtask`: sets up, runs, tests and measures HelloOps.
//!
//! Every verb installs what it needs first ([`setup`], [`packages`]); nothing is downloaded or
//! built twice.

mod bench;
mod build;
mod lint;
mod packages;
mod run;
mod setup;
mod shell;
mod test;
mod vm;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Sets up, runs, tests and measures HelloOps.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Options {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Install what a build needs: a Rust for BPF, bpf-linker, a C and a C++ compiler.
    Setup,
    /// Build `helloops`, the sample service and all victims, and say where they are.
    Build,
    /// Watch the sample service, a small HTTP shop, under `helloops run`.
    Run {
        /// Arguments for `helloops`, instead of watching the sample.
        #[arg(last = true)]
        arguments: Vec<String>,
    },
    /// Run every test, for real in this kernel; as root, or through sudo.
    Test {
        /// Arguments for `cargo test`, such as `-p helloops-user` or a test's name.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Check the formatting, clippy's warnings and the docs.
    Lint,
    /// Run the kernel-facing tests on one of Debian's other kernels, in an emulated machine.
    Vm {
        kernel: vm::Kernel,
        /// Run only the tests whose names contain this.
        filter: Option<String>,
    },
    /// Measure what watching costs.
    Bench {
        #[command(subcommand)]
        what: bench::What,
    },
}

fn main() -> ExitCode {
    match run(Options::parse().verb) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("xtask: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<ExitCode> {
    match verb {
        Verb::Setup => setup::ensure()?,
        Verb::Build => print!("{}", build::everything()?),
        Verb::Run { arguments } => return run::run(&arguments),
        Verb::Test { arguments } => return test::run(&arguments),
        Verb::Lint => lint::run()?,
        Verb::Vm { kernel, filter } => return vm::run(kernel, filter.as_deref()),
        Verb::Bench { what } => bench::run(what)?,
    }
    Ok(ExitCode::SUCCESS)
}
