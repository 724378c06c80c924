//! A running instance: its kernel side, its threads, and what they share.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError, Sender},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use nix::unistd::ForkResult;
use thiserror::Error;

use super::{
    Options, State, Target, TargetStatus,
    intake::{Intake, Outlets, ProberTask},
    investigator::{Investigator, Work},
    joining::{Joining, Newcomers},
    prober::{Findings, Prober, common_libraries},
    scopes::Scopes,
    stop::Stop,
    ticker::{Ticker, WatchedCgroup, WatchedExe},
};
use crate::{
    kernel::{
        Kernel, LoadError, PrivilegeError, Selectors,
        abi::{FLAG_AWAITS_EXEC, FLAG_PER_PROCESS, Watched},
        is_initial_pid_namespace, require_privileges,
    },
    symbol::{self, Mapping, Symbolizer},
    target::{Selector, SelectorError, SiteError, cgroup_id, compile_comm, process},
};

/// Faults that may wait for symbolization. Each holds up to 256 KiB of stack.
const QUEUE: usize = 2048;

/// Why an instance cannot start.
#[derive(Debug, Error)]
pub enum StartError {
    /// Capabilities are missing.
    #[error(transparent)]
    Privilege(#[from] PrivilegeError),
    /// The kernel's process ids mean other processes here.
    #[error(
        "this is a pid namespace of its own, in which the kernel's process ids mean nothing: run \
         helloops on the host (docker: --pid=host)"
    )]
    PidNamespace,
    /// The kernel side cannot be loaded.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// A target cannot be watched.
    #[error(transparent)]
    Selector(#[from] SelectorError),
    /// A function that the user named is not there.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// Two targets have one name, or there are too many.
    #[error("{0}")]
    Targets(String),
    /// A table in the kernel is full, or refused an entry.
    #[error("cannot watch {what}: {reason}")]
    Kernel {
        /// What was to be watched.
        what: String,
        /// What the kernel says.
        reason: String,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

/// A running instance. Dropping it without [`Instance::finish`] leaves its threads running until
/// the process ends; the kernel removes all programs then.
pub struct Instance {
    selectors: Arc<Mutex<Selectors>>,
    targets: Vec<Watched>,
    stop: Arc<Stop>,
    stop_ticker: Sender<()>,
    intake: JoinHandle<()>,
    prober: JoinHandle<Prober>,
    investigator: JoinHandle<()>,
    ticker: JoinHandle<()>,
}

impl Instance {
    /// Loads the kernel side, starts to watch, and starts the threads, which record into `state`.
    ///
    /// # Errors
    ///
    /// [`StartError`]; nothing is left behind then.
    pub fn start(options: Options, state: Arc<State>) -> Result<Self, StartError> {
        require_privileges()?;
        if !is_initial_pid_namespace() {
            return Err(StartError::PidNamespace);
        }
        let names = check_names(&options.targets)?;
        let kernel = Kernel::load(&options.kernel)?;
        state.set_features(kernel.features);
        state.set_targets(options.targets.iter().map(status).collect());

        let mut prober = Prober::new(kernel.probes, options.probes);
        let findings = prober.findings();
        probe_ahead(&mut prober, &options.targets, &options.likely_programs)?;
        state.set_probes(prober.count());

        let mut selectors = kernel.selectors;
        let targets: Vec<Watched> = options
            .targets
            .iter()
            .enumerate()
            .map(|(n, target)| watched(n as u32, target))
            .collect();
        let (exes, cgroups) = select(&mut selectors, &options.targets, &targets)?;
        let scopes = Arc::new(Scopes::new(&names));
        let mut counters = kernel.counters;
        let running = Joining {
            selectors: &mut selectors,
            counters: &mut counters,
            scopes: &scopes,
        }
        .watch_running(&options.targets, &targets);
        let mut symbolizer = Symbolizer::new(symbol_options(options.debug_directories));
        prepare_running(&mut prober, &mut symbolizer, running.keys().copied());
        state.set_probes(prober.count());

        let selectors = Arc::new(Mutex::new(selectors));
        let newcomers = Arc::new(Newcomers::new()?);
        let (work_in, work_out) = mpsc::sync_channel(QUEUE);
        let (probes_in, probes_out) = mpsc::channel();
        let (stop_ticker, ticks) = mpsc::channel();
        let stop = Arc::new(Stop::new()?);

        let ticker = Ticker {
            counters,
            lost: kernel.lost,
            selectors: Arc::clone(&selectors),
            scopes: Arc::clone(&scopes),
            state: Arc::clone(&state),
            probes: probes_in.clone(),
            exes,
            cgroups,
            newcomers: Arc::clone(&newcomers),
            unassigned: Vec::new(),
        };
        let outlets = Outlets {
            work: work_in,
            probes: probes_in,
            scopes,
            state: Arc::clone(&state),
        };
        let prober = spawn("prober", {
            let state = Arc::clone(&state);
            move || probe_all(prober, &probes_out, &state)
        })?;
        let investigator = spawn("investigator", {
            let state = Arc::clone(&state);
            move || investigate(state, findings, symbolizer, &work_out)
        })?;
        let source = (kernel.events, kernel.mappings, kernel.log);
        let intake = Intake::new(source, outlets, names, running);
        let intake = spawn("intake", {
            let stop = Arc::clone(&stop);
            move || intake.run(&stop, &newcomers)
        })?;
        let ticker = spawn("ticker", move || tick(ticker, &ticks))?;
        Ok(Self {
            selectors,
            targets,
            stop,
            stop_ticker,
            intake,
            prober,
            investigator,
            ticker,
        })
    }

    /// Watches a process of the first target from its next exec on.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn announce(&self, pid: u32) -> Result<(), StartError> {
        let refuse = |reason: String| StartError::Kernel {
            what: format!("process {pid}"),
            reason,
        };
        let target = self
            .targets
            .first()
            .ok_or_else(|| refuse("there is no target".to_owned()))?;
        let start = process::stat(pid).map_or(0, |stat| stat.start);
        let watched = Watched {
            start,
            flags: target.flags | FLAG_AWAITS_EXEC,
            ..*target
        };
        self.selectors
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .announce(pid, watched)
            .map_err(|error| refuse(error.to_string()))
    }

    /// Stops watching, and waits until all that happened before is recorded. The probes are still
    /// attached, though they do nothing any more: they go with what is returned.
    pub fn finish(self) -> Remains {
        {
            let mut selectors = self
                .selectors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            for (pid, _) in selectors.all() {
                selectors.forget(pid);
            }
        }
        self.stop.set();
        // The intake's end closes the investigator's queue, and the ticker's the prober's.
        join(self.intake);
        join(self.investigator);
        let _ = self.stop_ticker.send(());
        join(self.ticker);
        Remains {
            prober: join(self.prober),
        }
    }
}

/// What is left of an instance that finished: its probes. Dropping it removes them, for which the
/// kernel takes some tenths of a second.
pub struct Remains {
    prober: Option<Prober>,
}

impl Remains {
    /// Leaves the probes to a process of their own, which ends as soon as the kernel has removed
    /// them, so that this one can end at once.
    pub fn leave_behind(self) {
        if self
            .prober
            .as_ref()
            .is_none_or(|prober| prober.count() == 0)
        {
            return;
        }
        // SAFETY: in the child only async-signal-safe calls are made: setsid, close and _exit.
        match unsafe { nix::unistd::fork() } {
            Ok(ForkResult::Child) => {
                let _ = nix::unistd::setsid();
                for stream in 0..3 {
                    // SAFETY: closing makes nothing dangle here: nothing is printed any more.
                    unsafe { libc::close(stream) };
                }
                // SAFETY: ends the child without running anything of the parent's. The kernel
                // closes its descriptors, the last ones of the probes.
                unsafe { libc::_exit(0) }
            }
            // The parent's descriptors must not be the last: it may end, but not drop them first.
            Ok(ForkResult::Parent { .. }) => std::mem::forget(self),
            Err(_) => drop(self),
        }
    }
}

fn spawn<T: Send + 'static>(
    name: &str,
    work: impl FnOnce() -> T + Send + 'static,
) -> std::io::Result<JoinHandle<T>> {
    thread::Builder::new()
        .name(format!("helloops-{name}"))
        .spawn(work)
}

fn join<T>(thread: JoinHandle<T>) -> Option<T> {
    let result = thread.join().ok();
    if result.is_none() {
        log::error!("a thread of this instance panicked; what it worked on is lost");
    }
    result
}

fn probe_all(mut prober: Prober, tasks: &Receiver<ProberTask>, state: &State) -> Prober {
    while let Ok(task) = tasks.recv() {
        match task {
            ProberTask::Probe(file) => {
                for error in prober.probe(&file.open_as, &file.path, file.is_executable) {
                    log::warn!("{}: {error}", file.path.display());
                }
                state.set_probes(prober.count());
            }
            ProberTask::LookAgain => {
                prober.look_again();
                state.set_probes(prober.count());
            }
            ProberTask::Count { target, processes } => state.set_processes(&target, processes),
        }
    }
    prober
}

fn investigate(
    state: Arc<State>,
    findings: Arc<Findings>,
    symbolizer: Symbolizer,
    work: &Receiver<Work>,
) {
    let mut investigator = Investigator::new(state, findings, symbolizer);
    while let Ok(work) = work.recv() {
        investigator.work(work);
    }
}

fn tick(mut ticker: Ticker, stop: &Receiver<()>) {
    const SECOND: Duration = Duration::from_secs(1);
    let mut next = Instant::now() + SECOND;
    loop {
        let wait = next.saturating_duration_since(Instant::now());
        match stop.recv_timeout(wait) {
            Err(RecvTimeoutError::Timeout) => {}
            Ok(()) | Err(RecvTimeoutError::Disconnected) => break,
        }
        ticker.tick();
        // A tick that was late is not made up for by two at once.
        next = (next + SECOND).max(Instant::now());
    }
    ticker.tick();
    ticker.drain();
}

fn check_names(targets: &[Target]) -> Result<Vec<String>, StartError> {
    let max = Selectors::TARGETS_MAX as usize;
    if targets.len() > max {
        let count = targets.len();
        return Err(StartError::Targets(format!(
            "{count} targets are too many: at most {max}"
        )));
    }
    let names: Vec<String> = targets.iter().map(|target| target.name.clone()).collect();
    for (n, name) in names.iter().enumerate() {
        if names.iter().skip(n + 1).any(|other| other == name) {
            return Err(StartError::Targets(format!("two targets are named {name}")));
        }
    }
    Ok(names)
}

fn status(target: &Target) -> TargetStatus {
    TargetStatus {
        name: target.name.clone(),
        selector: target.selector.to_string(),
        processes: 0,
        faults: 0,
    }
}

fn watched(number: u32, target: &Target) -> Watched {
    let flags = if target.per_process {
        FLAG_PER_PROCESS
    } else {
        0
    };
    Watched {
        target: number,
        scope: number,
        flags,
        reserved: 0,
        start: 0,
    }
}

fn symbol_options(debug_directories: Vec<PathBuf>) -> symbol::Options {
    let mut options = symbol::Options::default();
    if !debug_directories.is_empty() {
        options.debug_directories = debug_directories;
    }
    options
}

/// Probes what is known to be needed before anything of it runs.
fn probe_ahead(
    prober: &mut Prober,
    targets: &[Target],
    likely_programs: &[PathBuf],
) -> Result<(), StartError> {
    for target in targets {
        if let Selector::Exe(path) | Selector::Command(path) = &target.selector
            && let Some(error) = prober.probe(path, path, true).into_iter().next()
        {
            return Err(error.into());
        }
    }
    for path in likely_programs {
        // A function that the user named may well be in another one.
        prober.probe(path, path, true);
    }
    for path in common_libraries() {
        for error in prober.probe(&path, &path, false) {
            log::warn!("{}: {error}", path.display());
        }
    }
    Ok(())
}

/// Probes what processes that are watched already run code from, and opens it for their stacks: it
/// may have no name any more, so that it goes with the process.
fn prepare_running(
    prober: &mut Prober,
    symbolizer: &mut Symbolizer,
    pids: impl Iterator<Item = u32>,
) {
    for pid in pids {
        let exe = process::exe(pid).unwrap_or_default();
        let mappings = Mapping::of_process(pid).unwrap_or_default();
        for mapping in &mappings {
            let open_as = mapping.open_as.as_ref().unwrap_or(&mapping.path);
            for error in prober.probe(open_as, &mapping.path, mapping.path == exe) {
                log::warn!("{}: {error}", mapping.path.display());
            }
        }
        symbolizer.preload(&mappings);
    }
}

/// Enters the selectors into the kernel's tables.
fn select(
    selectors: &mut Selectors,
    targets: &[Target],
    watched: &[Watched],
) -> Result<(Vec<WatchedExe>, Vec<WatchedCgroup>), StartError> {
    let mut exes = Vec::new();
    let mut cgroups = Vec::new();
    let mut globs = 0;
    for (target, watched) in targets.iter().zip(watched) {
        let refuse = |reason: String| StartError::Kernel {
            what: target.selector.to_string(),
            reason,
        };
        match &target.selector {
            Selector::Pid(_) | Selector::Command(_) => {}
            Selector::Exe(path) => {
                let exe = WatchedExe::new(path.clone(), *watched);
                exe.select(&mut *selectors)
                    .map_err(|error| refuse(error.to_string()))?;
                exes.push(exe);
            }
            Selector::Comm(pattern) => {
                let mut glob = compile_comm(pattern).map_err(SelectorError::from)?;
                glob.target = watched.target;
                glob.scope = watched.scope;
                glob.flags = watched.flags;
                selectors.select_comm(globs, glob).map_err(|_| {
                    refuse(format!("at most {} name patterns", Selectors::GLOBS_MAX))
                })?;
                globs += 1;
            }
            Selector::Cgroup(path) => {
                let id = cgroup_id(path).map_err(|error| refuse(error.to_string()))?;
                selectors
                    .select_cgroup(id, *watched)
                    .map_err(|error| refuse(error.to_string()))?;
                cgroups.push(WatchedCgroup {
                    path: path.clone(),
                    watched: *watched,
                });
            }
        }
    }
    Ok((exes, cgroups))
}

/// The program that a command's name stands for, found as `execvp(3)` does.
///
/// # Errors
///
/// When there is none in `PATH`.
pub fn find_command(name: &str) -> Result<PathBuf, SelectorError> {
    let missing = |reason| SelectorError::Unreadable {
        path: name.to_owned(),
        reason,
    };
    let found = if name.contains('/') {
        PathBuf::from(name)
    } else {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path)
            .map(|directory| directory.join(name))
            .find(|candidate| is_executable(candidate))
            .ok_or_else(|| missing(std::io::Error::other("no such command in PATH")))?
    };
    // Not its real path: a program may look at the name that it is started by.
    if is_executable(&found) {
        Ok(found)
    } else {
        Err(missing(not_a_program(&found)))
    }
}

fn not_a_program(path: &Path) -> std::io::Error {
    match fs::metadata(path) {
        Ok(_) => std::io::Error::other("it is not an executable file"),
        Err(error) => error,
    }
}

fn is_executable(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    fs::metadata(path).is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}
