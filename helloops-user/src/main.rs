//! The `helloops` command: parses its arguments and hands over to the verb.

use std::process::ExitCode;

use anyhow::Result;
use clap::Parser as _;
use helloops::{
    api::Client,
    command::{Arguments, Verb, agent, doctor, faults, hist, print_error, run, status, top},
};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let log = env_logger::Env::new().filter_or("HELLOOPS_LOG", default_log(&arguments.verb));
    env_logger::Builder::from_env(log)
        .format_timestamp_millis()
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
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
    if kernel_log {
        "warn,helloops_programs=debug"
    } else {
        "warn"
    }
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
