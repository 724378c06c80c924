//! The `helloops` command: parses its arguments and hands over to the verb.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Result;
use clap::{Parser, Subcommand};
use helloops::{
    api::Client,
    command::{agent, doctor, faults, hist, print_error, run, status, top},
};

/// Watches real processes: captures their faults with full stacks, and measures their system calls.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 100, arg_required_else_help = true)]
struct Arguments {
    /// Where the agent answers.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "HELLOOPS_SOCKET",
        default_value = "/run/helloops/helloops.sock"
    )]
    socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a command and watch it from its first instruction.
    #[command(after_help = "Example:\n  helloops run --report report.json -- ./shop --port 8080")]
    Run(Box<run::Options>),
    /// Watch processes until stopped, and answer the other commands.
    #[command(after_help = "Example:\n  helloops agent --exe /usr/bin/redis-server --cgroup system.slice/nginx.service")]
    Agent(Box<agent::Options>),
    /// Show what is watched, what works here, and what was lost.
    #[command(after_help = "Example:\n  helloops status")]
    Status(status::Options),
    /// Show what went wrong.
    #[command(after_help = "Example:\n  helloops faults --target shop --group")]
    Faults(faults::Options),
    /// Show how long system calls take, as full distributions.
    #[command(after_help = "Example:\n  helloops hist --target shop --call fsync --window 5m")]
    Hist(hist::Options),
    /// Show the busiest system calls, live.
    #[command(after_help = "Example:\n  helloops top")]
    Top(top::Options),
    /// Show what this kernel offers, what is missing, and how to get it.
    #[command(after_help = "Example:\n  helloops doctor --json")]
    Doctor(doctor::Options),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = env_logger::Env::new().filter_or("HELLOOPS_LOG", default_log(&arguments.verb));
    env_logger::Builder::from_env(log).format_timestamp_millis().init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime {
        Ok(runtime) => runtime.block_on(dispatch(arguments)),
        Err(error) => {
            print_error(&anyhow::Error::new(error).context("cannot start threads"));
            ExitCode::FAILURE
        }
    }
}

/// The BPF programs' own lines are debug lines.
fn default_log(verb: &Verb) -> &'static str {
    let kernel_log = match verb {
        Verb::Run(options) => options.watch.kernel_log,
        Verb::Agent(options) => options.watch.kernel_log,
        _ => false,
    };
    if kernel_log { "warn,helloops_programs=debug" } else { "warn" }
}

async fn dispatch(arguments: Arguments) -> ExitCode {
    let client = Client::new(&arguments.socket);
    let done: Result<()> = match &arguments.verb {
        Verb::Run(options) => return run::run(options).await,
        Verb::Doctor(options) => match doctor::run(options) {
            Ok(code) => return code,
            Err(error) => Err(error),
        },
        Verb::Agent(options) => agent::run(options, &arguments.socket).await,
        Verb::Status(options) => status::run(&client, options).await,
        Verb::Faults(options) => faults::run(&client, options).await,
        Verb::Hist(options) => hist::run(&client, options).await,
        Verb::Top(options) => top::run(&client, options).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_error(&error);
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    #[test]
    fn the_arguments_are_consistent() {
        super::Arguments::command().debug_assert();
    }
}
