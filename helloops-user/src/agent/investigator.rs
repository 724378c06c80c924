//! Turns captures and exits into faults: unwinds and symbolizes stacks, finds out what followed
//! from what, and records. Runs on a thread of its own, since symbolization takes its time.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

use jiff::{SignedDuration, Timestamp};
use nix::time::{ClockId, clock_gettime};

use super::{State, prober::Findings};
use crate::{
    fault::{
        Capture, Chains, Description, Fault, Kind, Location, Runtime, Signal, describe, event_text,
        exception, is_caught, signal,
    },
    kernel::abi::{ExitEvent, Inode, SiteKind},
    symbol::{Frame, Mapping, Symbolizer},
    target::ArgumentType,
};

/// What is known of the process that a fault is in.
#[derive(Debug, Clone)]
pub struct Whose {
    /// The target's name.
    pub target: String,
    /// The executable as the process names it.
    pub exe: PathBuf,
    /// The executable file.
    pub file: Inode,
}

/// Something to look into, in the order in which it happened.
#[derive(Debug)]
pub enum Work {
    /// A fault was captured.
    Fault {
        /// What the kernel side captured.
        capture: Box<Capture>,
        /// Where its process's code came from.
        mappings: Vec<Mapping>,
        /// The process.
        whose: Whose,
    },
    /// The message of a fault that was handed over without.
    Message {
        /// The kernel side's number of the fault.
        id: u64,
        /// The message.
        message: String,
    },
    /// A process ended.
    Exit {
        /// How.
        event: Box<ExitEvent>,
        /// The process.
        whose: Whose,
    },
    /// A program starts: its files are opened while they can be.
    Preload {
        /// Where its code comes from.
        mappings: Vec<Mapping>,
        /// The executable, open already, where a mapping is to be opened through it.
        executable: Option<File>,
    },
}

/// How many faults can still get a late message.
const LATE_MESSAGES: usize = 1024;

/// Looks into faults.
pub struct Investigator {
    state: Arc<State>,
    findings: Arc<Findings>,
    symbolizer: Symbolizer,
    chains: Chains,
    /// The latest faults: the kernel side's number, and the id they were recorded under.
    recorded: VecDeque<(u64, String)>,
}

impl Investigator {
    /// One that records into `state`.
    pub fn new(state: Arc<State>, findings: Arc<Findings>, symbolizer: Symbolizer) -> Self {
        Self {
            state,
            findings,
            symbolizer,
            chains: Chains::default(),
            recorded: VecDeque::new(),
        }
    }

    /// Looks into one thing.
    pub fn work(&mut self, work: Work) {
        match work {
            Work::Fault {
                capture,
                mappings,
                whose,
            } => self.fault(&capture, &mappings, whose),
            Work::Message { id, message } => self.late_message(id, message),
            Work::Exit { event, whose } => self.exit(&event, whose),
            Work::Preload {
                mappings,
                executable,
            } => {
                self.symbolizer.preload(&mappings);
                // It had to be open until here.
                drop(executable);
            }
        }
    }

    fn fault(&mut self, capture: &Capture, mappings: &[Mapping], whose: Whose) {
        let Some(mut description) = describe(capture) else {
            log::warn!(
                "a fault with the unknown cookie {:#x}",
                capture.event.cookie
            );
            return;
        };
        if let Some(cause) = self.chains.cause(capture) {
            self.consequence(capture, &description, &cause);
            return;
        }
        let stack = self
            .symbolizer
            .stack(mappings, &capture.registers(), &capture.stack);
        if gives_up(capture, &stack.frames)
            && let Some(cause) = self.chains.panic_under_way(capture)
        {
            self.consequence(capture, &description, &cause);
            return;
        }
        refine(&mut description, capture, &stack.frames);
        let runtime = description
            .runtime
            .or_else(|| self.findings.runtime(&whose.file))
            .unwrap_or(Runtime::Unknown);
        let header = &capture.event.header;
        let kind = description.kind;
        let mut fault = Fault {
            id: String::new(),
            kind,
            runtime,
            message: description.message,
            location: description.location.or_else(|| app_location(&stack.frames)),
            target: whose.target,
            pid: header.tgid,
            tid: header.tid,
            comm: signal::comm(&capture.event.comm),
            exe: whose.exe,
            time: wall_time(header.time),
            fingerprint: String::new(),
            count: 0,
            caught: match kind {
                Kind::Panic => is_caught(&stack.frames),
                Kind::Error => None,
                _ => Some(false),
            },
            arguments: Vec::new(),
            signal: description.signal,
            exit_code: None,
            stack: stack.frames,
            stack_truncated: match stack.truncated {
                Some(_) if capture.stack_lost => {
                    Some("parts of the stack found no room in the ring buffer".to_owned())
                }
                truncated => truncated,
            },
        };
        if capture.site_kind() == Some(SiteKind::User) {
            self.name_user_site(capture, &mut fault);
        }
        let recorded = self.state.record_fault(fault);
        self.chains.add(capture, &recorded);
        if self.recorded.len() >= LATE_MESSAGES {
            self.recorded.pop_front();
        }
        self.recorded
            .push_back((capture.event.id, recorded.id.clone()));
    }

    /// What follows from an earlier fault, such as an abort or a signal, tells how that one ends.
    fn consequence(&mut self, capture: &Capture, description: &Description, cause: &str) {
        let header = &capture.event.header;
        if let Some(signal) = &description.signal {
            self.chains
                .signalled(header.tgid, header.start, cause, signal.number);
        }
        let updated = self.state.update_fault(cause, |fault| {
            fault.caught = Some(false);
            if fault.signal.is_none() {
                fault.signal.clone_from(&description.signal);
            }
        });
        // What follows from this follows from that.
        if let Some(fault) = updated {
            self.chains.add(capture, &fault);
        }
    }

    fn late_message(&mut self, id: u64, message: String) {
        let found = self.recorded.iter().find(|(number, _)| *number == id);
        if let Some((_, id)) = found {
            self.state.update_fault(id, |fault| fault.message = message);
        }
    }

    fn exit(&mut self, event: &ExitEvent, whose: Whose) {
        let header = &event.header;
        let number = (event.status & 0x7f).cast_signed();
        let code = (event.status >> 8 & 0xff).cast_signed();
        if let Some(cause) = self.chains.ended(header.tgid, header.start, event.status) {
            self.state.update_fault(&cause, |fault| {
                fault.caught = Some(false);
                fault.exit_code = (number == 0).then_some(code);
            });
            return;
        }
        let (kind, message, signal) = if event.oom != 0 && number == libc::SIGKILL {
            (
                Kind::Oom,
                "killed by the kernel: out of memory".to_owned(),
                self.killer(event, number),
            )
        } else if number != 0 {
            let signal = self.killer(event, number);
            let message = match &signal {
                Some(signal) => format!("killed by {}", signal::message(signal)),
                None => format!("killed by {}", signal::name(number)),
            };
            (Kind::Signal, message, signal)
        } else if code != 0 {
            (Kind::Exit, format!("exited with code {code}"), None)
        } else {
            return;
        };
        self.state.record_fault(Fault {
            id: String::new(),
            kind,
            runtime: self
                .findings
                .runtime(&whose.file)
                .unwrap_or(Runtime::Unknown),
            message,
            location: None,
            target: whose.target,
            pid: header.tgid,
            tid: header.tid,
            comm: signal::comm(&event.comm),
            exe: whose.exe,
            time: wall_time(header.time),
            fingerprint: String::new(),
            count: 0,
            caught: Some(false),
            arguments: Vec::new(),
            signal,
            exit_code: (number == 0).then_some(code),
            stack: Vec::new(),
            stack_truncated: None,
        });
    }

    fn killer(&self, event: &ExitEvent, number: i32) -> Option<Signal> {
        if event.has_signal != 0 {
            return Some(signal::describe(&event.signal, event.header.tgid));
        }
        Some(Signal {
            number,
            name: signal::name(number),
            code: None,
            address: None,
            sender_pid: None,
            sender_comm: None,
        })
    }

    /// A user's site is described by its function and arguments.
    fn name_user_site(&self, capture: &Capture, fault: &mut Fault) {
        let number = capture.event.cookie as u32;
        let Some(site) = self.findings.user_site(number) else {
            return;
        };
        fault.arguments = arguments(capture, &site.arguments);
        fault.message = format!("{}({})", site.function, fault.arguments.join(", "));
    }
}

/// The functions of language runtimes that a fault's site was called through.
fn called_through(stack: &[Frame]) -> impl Iterator<Item = &Frame> {
    stack.iter().skip(1).take_while(|frame| !frame.in_app)
}

/// Whether this is the panic by which Rust's runtime says that another one cannot go on: out of a
/// destructor that runs for it, or out of a function that must not unwind (library/core's
/// panicking.rs).
fn gives_up(capture: &Capture, stack: &[Frame]) -> bool {
    const FUNCTIONS: [&str; 2] = [
        "core::panicking::panic_in_cleanup",
        "core::panicking::panic_cannot_unwind",
    ];
    capture.site_kind() == Some(SiteKind::RustPanicHook)
        && called_through(stack)
            .filter_map(|frame| frame.function.as_deref())
            .any(|function| FUNCTIONS.iter().any(|name| function.starts_with(name)))
}

/// Adds to a description what only the stack tells.
fn refine(description: &mut Description, capture: &Capture, stack: &[Frame]) {
    match capture.site_kind() {
        // The C++ runtime aborts without `std::terminate` for an exception that leaves a `noexcept`
        // function.
        Some(SiteKind::Abort) if called_through(stack).any(is_cpp_runtime) => {
            if let Some(message) = exception(capture) {
                description.kind = Kind::Exception;
                description.runtime = Some(Runtime::Cpp);
                description.message = message;
            }
        }
        // What the C++ runtime puts into the place of a virtual function that there is none of
        // (Itanium C++ ABI, 3.2.6). It prints the same.
        Some(SiteKind::CppTerminate) if description.kind == Kind::Abort => {
            let called =
                |name| called_through(stack).any(|frame| frame.function.as_deref() == Some(name));
            if called("__cxa_pure_virtual") {
                description.message = "pure virtual method called".to_owned();
            } else if called("__cxa_deleted_virtual") {
                description.message = "deleted virtual method called".to_owned();
            }
        }
        _ => {}
    }
}

fn is_cpp_runtime(frame: &Frame) -> bool {
    let module = frame
        .module
        .as_deref()
        .and_then(Path::file_name)
        .and_then(OsStr::to_str);
    module.is_some_and(|name| name.starts_with("libstdc++"))
        || frame
            .function
            .as_deref()
            .is_some_and(|function| function.contains("terminate"))
}

/// The arguments of a user's site as text.
fn arguments(capture: &Capture, types: &[ArgumentType]) -> Vec<String> {
    let number = |register: usize| capture.event.numbers.get(register).copied().unwrap_or(0);
    let mut register = 0;
    types
        .iter()
        .map(|kind| {
            let at = register;
            register += kind.registers();
            match kind {
                ArgumentType::Int => number(at).cast_signed().to_string(),
                ArgumentType::Uint => number(at).to_string(),
                ArgumentType::Ptr => format!("{:#x}", number(at)),
                ArgumentType::Cstr | ArgumentType::Str => match event_text(capture, at) {
                    Some(text) => format!("{text:?}"),
                    None => format!("{:#x}", number(at)),
                },
            }
        })
        .collect()
}

/// The place in the program's own code that a fault without a location of its own is at.
fn app_location(stack: &[Frame]) -> Option<Location> {
    let frame = stack
        .iter()
        .find(|frame| frame.in_app && frame.line.is_some())?;
    Some(Location {
        file: frame.file.clone()?,
        line: frame.line?,
        column: frame.column,
    })
}

/// The wall-clock time of a moment of `CLOCK_MONOTONIC`.
fn wall_time(monotonic: u64) -> Timestamp {
    let now = Timestamp::now();
    let Ok(clock) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        return now;
    };
    let current = clock.tv_sec() * 1_000_000_000 + clock.tv_nsec();
    let ago = current.saturating_sub_unsigned(monotonic);
    now.checked_sub(SignedDuration::from_nanos(ago))
        .unwrap_or(now)
}
