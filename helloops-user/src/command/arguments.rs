//! The command line as a whole: global options and verbs.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::{agent, doctor, faults, hist, run, status, top};

/// Watches real processes: captures their faults with full stacks, and measures their system calls.
#[derive(Debug, Parser)]
#[command(
    name = "helloops",
    bin_name = "helloops",
    version,
    max_term_width = 100,
    arg_required_else_help = true
)]
pub struct Arguments {
    /// Where the agent answers.
    #[arg(
        long,
        global = true,
        value_name = "PATH",
        env = "HELLOOPS_SOCKET",
        hide_env_values = true,
        default_value = "/run/helloops/helloops.sock"
    )]
    pub socket: PathBuf,
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a command and watch it from its first instruction.
    #[command(after_help = "Example:\n  helloops run --report report.json -- ./shop --port 8080")]
    Run(Box<run::Options>),
    /// Watch processes until stopped, and answer the other commands.
    #[command(
        after_help = "Example:\n  helloops agent --exe /usr/bin/redis-server --cgroup system.slice/nginx.service"
    )]
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

/// The command line's reference in Markdown: the long help of each verb.
pub fn reference() -> String {
    use clap::CommandFactory as _;

    let mut command = Arguments::command().term_width(100);
    command.build();
    let mut text = String::from(
        "# Command line\n\nThis page is written by `UPDATE_DOCS=1 cargo test -p helloops-user --lib reference`.\n",
    );
    let mut add = |title: &str, help: String| {
        let lines: Vec<&str> = help.lines().map(str::trim_end).collect();
        text.push_str(&format!(
            "\n## {title}\n\n```text\n{}\n```\n",
            lines.join("\n").trim_end()
        ));
    };
    add("helloops", command.render_long_help().to_string());
    for verb in command
        .get_subcommands_mut()
        .filter(|verb| verb.get_name() != "help")
    {
        let title = format!("helloops {}", verb.get_name());
        add(&title, verb.render_long_help().to_string());
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_reference_in_the_docs_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/command-line.md");
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(path, reference()).unwrap();
        }
        let written = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(
            written,
            reference(),
            "write it anew: UPDATE_DOCS=1 cargo test -p helloops-user --lib reference"
        );
    }
}
