//! `helloops run`: starts a command, watches it from its first instruction, and reports.

use std::{
    ffi::OsString,
    fs::{File, Permissions},
    io::{self, PipeReader, PipeWriter, Read as _, Write as _},
    os::{
        fd::{AsRawFd as _, RawFd},
        unix::{
            fs::{OpenOptionsExt as _, PermissionsExt as _},
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitCode, ExitStatus},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow};
use jiff::Timestamp;
use nix::{
    sys::{
        resource::{Resource, setrlimit},
        signal::{SigHandler, Signal, kill, raise, signal},
    },
    unistd::{Pid, getpgrp, tcgetpgrp},
};
use tokio::{
    signal::unix::{SignalKind, signal as signals},
    sync::{
        broadcast::{
            self,
            error::{RecvError, TryRecvError},
        },
        oneshot,
    },
};

use super::{
    fault_text::{self, Frames},
    loss, series_table, summary,
    terminal::Screen,
    watch,
};
use crate::{
    agent::{Instance, State, find_command},
    api::{Exit, Report, Server},
    fault::{Fault, Filter, Limits},
    histogram::Query,
    target::Selector,
};

/// The exit code when the command could not be watched; as `env(1)` and `timeout(1)` use it.
const CANNOT_WATCH: u8 = 125;
/// The exit code when there is no such command.
const NO_COMMAND: u8 = 127;
/// Faults of one command that are kept one by one.
const FAULTS: usize = 20_000;
/// How long a fault waits before it is shown, so that what follows from it is known too.
const SETTLE: Duration = Duration::from_millis(60);

/// What `helloops run` is asked.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Write all that was found out to FILE, as one JSON document.
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Show neither faults nor the summary.
    #[arg(long, short)]
    pub quiet: bool,
    /// Show the busiest system calls each N seconds, over those seconds.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub every: Option<u16>,
    /// Show all frames of stacks, those of language runtimes and libraries too.
    #[arg(long)]
    pub all: bool,
    /// How to watch.
    #[command(flatten)]
    pub watch: watch::Options,
    /// The command and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "COMMAND"
    )]
    pub command: Vec<OsString>,
}

/// Runs the command, and ends as it does: with its exit code, or by its signal.
pub async fn run(options: &Options) -> ExitCode {
    let [program, arguments @ ..] = options.command.as_slice() else {
        return ExitCode::from(CANNOT_WATCH);
    };
    let path = match find_command(&program.to_string_lossy()) {
        Ok(path) => path,
        Err(error) => {
            super::print_error(&error.into());
            return ExitCode::from(NO_COMMAND);
        }
    };
    let outcome = watch_command(options, &path, program, arguments).await;
    match outcome {
        Ok(status) => end_as(status),
        Err(error) => {
            super::print_error(&error);
            ExitCode::from(CANNOT_WATCH)
        }
    }
}

async fn watch_command(
    options: &Options,
    path: &Path,
    program: &OsString,
    arguments: &[OsString],
) -> Result<ExitStatus> {
    let report_file = match &options.report {
        Some(path) => Some(
            open_report(path)
                .with_context(|| format!("cannot write the report to {}", path.display()))?,
        ),
        None => None,
    };
    let limits = Limits {
        faults: FAULTS,
        memory: 256 << 20,
        ..Limits::default()
    };
    let selector = Selector::Command(path.to_path_buf());
    let mut instance_options = options.watch.instance(vec![selector])?;
    instance_options.likely_programs = programs_named_in(arguments);
    let state = Arc::new(State::new(crate::histogram::DEFAULT_MEMORY, limits));
    let instance = {
        let state = Arc::clone(&state);
        blocking(move || Instance::start(instance_options, state)).await??
    };
    super::warn_of_missing(&state.status().features);
    let (stop_server, server) = serve(&state).await;
    let screen = Screen::stderr();
    let frames = if options.all {
        Frames::All
    } else {
        Frames::InApp
    };
    let faults = state.follow_faults();
    let (done, is_done) = oneshot::channel::<()>();
    let shown = (!options.quiet).then(|| {
        tokio::spawn(show_faults(
            Arc::clone(&state),
            faults,
            is_done,
            frames,
            screen,
        ))
    });
    let live = options
        .every
        .map(|seconds| tokio::spawn(show_live(Arc::clone(&state), seconds, screen)));

    let started = Timestamp::now();
    let mut command = Command::new(path);
    command.arg0(program).args(arguments);
    let held = HeldChild::spawn(command)?;
    let pid = held.pid;
    instance.announce(pid)?;
    let mut child = held
        .release()
        .with_context(|| format!("cannot start {}", path.display()))?;

    let (ended_in, ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = ended_in.send(child.wait());
    });
    let status = forward_signals_until(pid, ended).await?;
    let ended = Timestamp::now();
    if let Some(live) = live {
        live.abort();
        let _ = live.await;
    }
    let remains = blocking(move || instance.finish()).await?;
    drop(stop_server);
    if let Some(server) = server {
        let _ = server.await;
    }

    let report = report(&state, options, pid, status, started, ended);
    drop(done);
    if let Some(shown) = shown {
        let _ = shown.await;
        let groups = state.fault_groups(&Filter::default());
        tell(&format!("\n{}", summary::render(&report, &groups, &screen)));
    }
    if let (Some(file), Some(path)) = (report_file, &options.report)
        && let Err(error) = write_report(&report, file)
    {
        // How the command ended is what counts for whoever started it.
        let context = format!("cannot write the report to {}", path.display());
        super::print_error(&anyhow::Error::new(error).context(context));
    }
    remains.leave_behind();
    Ok(status)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| anyhow!("a thread panicked: {error}"))
}

/// The programs that a command's arguments name, as those of `timeout 9 ./shop` and
/// `sh -c 'cd /srv && ./shop'` do: what it starts is probed before it starts that way. A wrong guess
/// costs nothing.
fn programs_named_in(arguments: &[OsString]) -> Vec<PathBuf> {
    /// Long scripts name their programs at the start, or not at all.
    const WORDS: usize = 64;
    let text: Vec<_> = arguments
        .iter()
        .map(|argument| argument.to_string_lossy())
        .collect();
    let between = |c: char| c.is_whitespace() || ";&|()<>'\"`".contains(c);
    text.iter()
        .flat_map(|argument| argument.split(between))
        .filter(|word| !word.is_empty() && !word.starts_with('-'))
        .take(WORDS)
        .filter_map(|word| find_command(word).ok())
        .collect()
}

/// Serves the API, so that other commands find this instance. A command can be watched without.
async fn serve(state: &Arc<State>) -> (oneshot::Sender<()>, Option<tokio::task::JoinHandle<()>>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let path = PathBuf::from(format!("/run/helloops/run-{}.sock", std::process::id()));
    match Server::bind(&path, None, Arc::clone(state)).await {
        Ok(server) => {
            let served = server.run(async {
                let _ = stopped.await;
            });
            (stop, Some(tokio::spawn(served)))
        }
        Err(error) => {
            log::warn!("other commands cannot look at this one: {error}");
            (stop, None)
        }
    }
}

/// A child that waits, before its exec, to be let go.
struct HeldChild {
    pid: u32,
    go: PipeWriter,
    spawned: thread::JoinHandle<io::Result<Child>>,
}

impl HeldChild {
    /// Forks. `Command::spawn` returns only after the child's exec, hence the thread.
    fn spawn(mut command: Command) -> Result<Self> {
        let (mut pid_out, pid_in) = io::pipe()?;
        let (go_out, go) = io::pipe()?;
        // SAFETY: between fork and exec only async-signal-safe calls are made: getpid, read, write.
        // The descriptor is the parent's; only its copy in the child is closed.
        let go_copy = go.as_raw_fd();
        unsafe { command.pre_exec(move || hold(&pid_in, &go_out, go_copy)) };
        let spawned = thread::spawn(move || command.spawn());
        let mut pid = [0; 4];
        pid_out.read_exact(&mut pid).context("cannot fork")?;
        Ok(Self {
            pid: u32::from_ne_bytes(pid),
            go,
            spawned,
        })
    }

    /// Lets it exec.
    fn release(mut self) -> Result<Child> {
        self.go.write_all(&[1])?;
        let child = self
            .spawned
            .join()
            .map_err(|_| anyhow!("the starting thread panicked"))?;
        Ok(child?)
    }
}

/// Runs in the child: says who it is, and waits. End of file means that it is not to run, which it
/// can only see without a writing end of its own.
fn hold(mut pid_in: &PipeWriter, mut go_out: &PipeReader, go_copy: RawFd) -> io::Result<()> {
    // SAFETY: the child has a descriptor table of its own, in which nothing uses this one.
    unsafe { libc::close(go_copy) };
    pid_in.write_all(&std::process::id().to_ne_bytes())?;
    go_out.read_exact(&mut [0])
}

/// Hands signals on to the command until it ends.
async fn forward_signals_until(
    pid: u32,
    mut ended: oneshot::Receiver<io::Result<ExitStatus>>,
) -> Result<ExitStatus> {
    let mut interrupt = signals(SignalKind::interrupt())?;
    let mut quit = signals(SignalKind::quit())?;
    let mut terminate = signals(SignalKind::terminate())?;
    let mut hangup = signals(SignalKind::hangup())?;
    let mut user1 = signals(SignalKind::user_defined1())?;
    let mut user2 = signals(SignalKind::user_defined2())?;
    loop {
        let number = tokio::select! {
            status = &mut ended => return Ok(status.context("the waiting thread is gone")??),
            // A terminal sends these two to the whole foreground process group itself.
            _ = interrupt.recv() => if is_foreground() { continue } else { Signal::SIGINT },
            _ = quit.recv() => if is_foreground() { continue } else { Signal::SIGQUIT },
            _ = terminate.recv() => Signal::SIGTERM,
            _ = hangup.recv() => Signal::SIGHUP,
            _ = user1.recv() => Signal::SIGUSR1,
            _ = user2.recv() => Signal::SIGUSR2,
        };
        // It may have ended just now; it has not been waited for, so the id is still its own.
        let _ = kill(Pid::from_raw(pid.cast_signed()), number);
    }
}

fn is_foreground() -> bool {
    File::open("/dev/tty")
        .is_ok_and(|terminal| tcgetpgrp(terminal).is_ok_and(|group| group == getpgrp()))
}

/// Shows faults shortly after they happen. Once `done` has come, shows those that are left, of which
/// all is known then, and ends.
async fn show_faults(
    state: Arc<State>,
    mut faults: broadcast::Receiver<Arc<Fault>>,
    mut done: oneshot::Receiver<()>,
    frames: Frames,
    screen: Screen,
) {
    let mut is_done = false;
    loop {
        let received = if is_done {
            faults.try_recv().map_err(|error| match error {
                TryRecvError::Lagged(missed) => RecvError::Lagged(missed),
                TryRecvError::Empty | TryRecvError::Closed => RecvError::Closed,
            })
        } else {
            tokio::select! {
                received = faults.recv() => received,
                _ = &mut done => { is_done = true; continue }
            }
        };
        match received {
            Ok(fault) => {
                if !is_done {
                    tokio::select! {
                        () = tokio::time::sleep(SETTLE) => {}
                        _ = &mut done => is_done = true,
                    }
                }
                let fault = state.fault(&fault.id).unwrap_or(fault);
                tell(&format!(
                    "\n{}",
                    fault_text::render(&fault, frames, &screen)
                ));
            }
            Err(RecvError::Lagged(missed)) => {
                tell(&format!(
                    "\n{missed} more faults; the summary and the report have them\n"
                ));
            }
            Err(RecvError::Closed) => break,
        }
    }
}

/// Writes to standard error, which may be closed: the command and the report go on without.
fn tell(text: &str) {
    let _ = io::stderr().write_all(text.as_bytes());
}

/// Shows the busiest system calls again and again, each over the time since it did so last.
async fn show_live(state: Arc<State>, seconds: u16, screen: Screen) {
    /// As many as leave room for the faults between them.
    const CALLS: usize = 8;
    let window = Duration::from_secs(u64::from(seconds));
    let mut ticks = tokio::time::interval(window);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let query = Query {
            window: Some(window),
            ..Query::default()
        };
        let mut series = state.series(&query);
        series.truncate(CALLS);
        let lost = loss::render(&state.lost(), &screen);
        tell(&format!(
            "\nthe last {seconds} s:\n{}{lost}",
            series_table::render(&series, Some(window.as_secs_f64()), &screen)
        ));
    }
}

fn report(
    state: &State,
    options: &Options,
    pid: u32,
    status: ExitStatus,
    started: Timestamp,
    ended: Timestamp,
) -> Report {
    let exit = match (status.code(), status.signal()) {
        (Some(code), _) => Exit::Code { code },
        (None, signal) => Exit::Signal {
            signal: signal.unwrap_or_default(),
            core: status.core_dumped(),
        },
    };
    Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: options
            .command
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect(),
        pid,
        exit,
        started,
        ended,
        faults: state.faults(&Filter::default()),
        dropped: state.dropped_faults(),
        syscalls: state.series(&Query::default()),
        flows: Vec::new(),
        lost: state.lost(),
    }
}

/// Opens the report; only its owner may read it, for messages and arguments can hold secrets.
fn open_report(path: &Path) -> io::Result<File> {
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    // One that was there before may be open to others.
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn write_report(report: &Report, file: File) -> io::Result<()> {
    let mut file = io::BufWriter::new(file);
    serde_json::to_writer(&mut file, report)?;
    file.write_all(b"\n")?;
    file.flush()
}

/// Ends this process as the command ended.
fn end_as(status: ExitStatus) -> ExitCode {
    if let Some(code) = status.code() {
        return ExitCode::from(code as u8);
    }
    let number = status.signal().unwrap_or(libc::SIGKILL);
    if let Ok(number) = Signal::try_from(number) {
        // The command's core, if any, is the one that tells something.
        let _ = setrlimit(Resource::RLIMIT_CORE, 0, 0);
        // SAFETY: the default action is no handler of ours.
        let _ = unsafe { signal(number, SigHandler::SigDfl) };
        let _ = raise(number);
    }
    // What a shell makes of a death by a signal, where it did not kill us.
    ExitCode::from(128_u8.wrapping_add(number as u8))
}
