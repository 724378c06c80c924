//! `helloops agent`: watches processes until it is told to stop, and answers the other commands.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Result, anyhow, bail};
use tokio::signal::unix::{SignalKind, signal};

use super::watch;
use crate::{
    agent::{Instance, State},
    api::Server,
    fault::Limits,
    target::Selector,
};

/// What `helloops agent` is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Watch this process and its children.
    #[arg(long = "pid", value_name = "PID")]
    pub pids: Vec<u32>,
    /// Watch all processes that run this program, now or later, and their children.
    #[arg(long = "exe", value_name = "PATH")]
    pub exes: Vec<PathBuf>,
    /// Watch all processes with this name (`*`, `?` and `[a-z]` are wildcards), and their children.
    #[arg(long = "comm", value_name = "GLOB")]
    pub comms: Vec<String>,
    /// Watch all processes in this cgroup; for a systemd unit, system.slice/NAME.service.
    #[arg(long = "cgroup", value_name = "PATH")]
    pub cgroups: Vec<PathBuf>,
    /// How to watch.
    #[command(flatten)]
    pub watch: watch::Options,
}

impl Options {
    fn selectors(&self) -> Result<Vec<Selector>> {
        let chosen = self.pids.iter().map(|pid| Selector::Pid(*pid));
        let chosen = chosen.chain(self.exes.iter().map(|path| Selector::Exe(path.clone())));
        let chosen = chosen.chain(self.comms.iter().map(|glob| Selector::Comm(glob.clone())));
        let chosen = chosen.chain(
            self.cgroups
                .iter()
                .map(|path| Selector::Cgroup(path.clone())),
        );
        let selectors: Vec<Selector> = chosen
            .map(|selector| Ok(selector.resolve()?))
            .collect::<Result<_>>()?;
        if selectors.is_empty() {
            bail!("nothing to watch: name it with --exe, --pid, --comm or --cgroup");
        }
        Ok(selectors)
    }
}

/// Watches until SIGTERM or SIGINT.
///
/// # Errors
///
/// When it cannot start: the message says why, and what to do.
pub async fn run(options: &Options, socket: &Path) -> Result<()> {
    let limits = Limits::default();
    let instance_options = options.watch.instance(options.selectors()?)?;
    let state = Arc::new(State::new(crate::histogram::DEFAULT_MEMORY, limits));
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    // First the socket, so that a second agent fails before it loads anything.
    let server = Server::bind(socket, None, Arc::clone(&state)).await?;
    let instance = {
        let state = Arc::clone(&state);
        tokio::task::spawn_blocking(move || Instance::start(instance_options, state))
            .await
            .map_err(|error| anyhow!("the starting thread panicked: {error}"))??
    };
    super::warn_of_missing(&state.status().features);
    eprintln!(
        "helloops: watching; `helloops --socket {} status` tells more",
        socket.display()
    );
    server
        .run(async {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        })
        .await;
    tokio::task::spawn_blocking(move || drop(instance.finish()))
        .await
        .map_err(|error| anyhow!("the ending thread panicked: {error}"))
}
