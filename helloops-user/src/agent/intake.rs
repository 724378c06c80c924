//! Reads the kernel's events as they come, and hands each on to where it is worked on. Runs on a
//! thread of its own, which waits for nothing but events.

use std::{
    collections::HashMap,
    fs::File,
    os::fd::{AsFd as _, AsRawFd as _},
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Sender, SyncSender, TrySendError},
    },
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{
    State,
    investigator::{Whose, Work},
    joining::Newcomers,
    scopes::Scopes,
    stop::Stop,
};
use crate::{
    fault::{Capture, Captures, Late},
    kernel::{
        Events, KernelLog, MappingEvent, Mappings, Observation,
        abi::{ExecEvent, ExitEvent, ForkEvent, Header, Inode},
    },
    symbol::Mapping,
    target::{MemoryMaps, map_file, process},
};

/// How long the thread sleeps when nothing happens, in ms.
const IDLE: u16 = 1000;
/// How long it sleeps while faults wait for their messages, in ms.
const WAITING: u16 = 20;

/// A watched process as the intake knows it.
#[derive(Debug, Clone)]
pub struct Process {
    /// The target's number.
    pub target: u32,
    /// The executable as the process names it.
    pub exe: PathBuf,
    /// The executable file.
    pub file: Inode,
}

/// Something for the prober, which does one after the other.
#[derive(Debug)]
pub enum ProberTask {
    /// To probe a file.
    Probe(ToProbe),
    /// To look whether files were changed in place.
    LookAgain,
    /// To say how many processes of a target live, whose files were to be probed before.
    Count {
        /// The target's name.
        target: String,
        /// How many.
        processes: u64,
    },
}

/// A file to be probed.
#[derive(Debug)]
pub struct ToProbe {
    /// Where it can be opened.
    pub open_as: PathBuf,
    /// Its name.
    pub path: PathBuf,
    /// Whether it is a process's executable, rather than a library.
    pub is_executable: bool,
}

/// What the intake hands things on to.
pub struct Outlets {
    /// Faults and exits.
    pub work: SyncSender<Work>,
    /// Files to be probed.
    pub probes: Sender<ProberTask>,
    /// Histogram scopes of processes.
    pub scopes: Arc<Scopes>,
    /// Losses.
    pub state: Arc<State>,
}

/// The reading thread's state.
pub struct Intake {
    events: Events,
    mappings: Option<Mappings>,
    log: Option<KernelLog>,
    outlets: Outlets,
    targets: Vec<String>,
    processes: HashMap<u32, Process>,
    maps: MemoryMaps,
    captures: Captures,
}

impl Intake {
    /// One that knows the processes that ran before.
    pub fn new(
        (events, mappings, log): (Events, Option<Mappings>, Option<KernelLog>),
        outlets: Outlets,
        targets: Vec<String>,
        running: HashMap<u32, Process>,
    ) -> Self {
        let mut intake = Self {
            events,
            mappings,
            log,
            outlets,
            targets,
            processes: HashMap::new(),
            maps: MemoryMaps::default(),
            captures: Captures::default(),
        };
        for (pid, process) in running {
            intake.adopt(pid, process);
        }
        intake
    }

    /// Works until `stop` is set and all events that happened before are handed on. Takes up
    /// newcomers as they come.
    pub fn run(mut self, stop: &Stop, newcomers: &Newcomers) {
        loop {
            let stopping = stop.is_set();
            for (pid, process) in newcomers.take() {
                self.join(pid, process);
            }
            self.drain();
            if stopping {
                break;
            }
            for capture in self.captures.overdue() {
                self.hand_on(capture);
            }
            if let Some(log) = &mut self.log {
                log.flush();
            }
            self.sleep(stop, newcomers);
        }
        // What is still incomplete stays so.
        for pid in self.processes.keys().copied().collect::<Vec<_>>() {
            self.hand_on_all(pid);
        }
    }

    fn sleep(&self, stop: &Stop, newcomers: &Newcomers) {
        let timeout = if self.captures.is_empty() {
            IDLE
        } else {
            WAITING
        };
        let mut fds = vec![
            PollFd::new(self.events.as_fd(), PollFlags::POLLIN),
            PollFd::new(stop.as_fd(), PollFlags::POLLIN),
            PollFd::new(newcomers.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(mappings) = &self.mappings {
            fds.extend(mappings.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        }
        // An interrupted sleep is a short one.
        let _ = poll(&mut fds, PollTimeout::from(timeout));
    }

    fn drain(&mut self) {
        self.drain_mappings();
        while let Some(observation) = self.events.next_event() {
            self.observe(observation);
        }
    }

    fn drain_mappings(&mut self) {
        let Some(mappings) = &mut self.mappings else {
            return;
        };
        let mut lost = false;
        for (time, event) in mappings.drain() {
            match &event {
                MappingEvent::Lost { count } => {
                    self.outlets.state.add_lost("mappings", *count);
                    lost = true;
                }
                MappingEvent::Map { pid, file } if self.processes.contains_key(pid) => {
                    let open_as = map_file(*pid, file.start, file.end);
                    let path = file.path.to_path_buf();
                    if file.inode != 0 {
                        // Its name serves when the process is gone already.
                        let open_as = if open_as.exists() {
                            open_as
                        } else {
                            path.clone()
                        };
                        self.probe(open_as, path, false);
                    }
                }
                _ => {}
            }
            self.maps.apply(time, event);
        }
        if lost {
            self.look_at_mappings_again();
        }
    }

    fn observe(&mut self, observation: Observation) {
        match observation {
            Observation::Exec(event) => self.exec(&event),
            Observation::Fork(event) => self.fork(&event),
            Observation::Exit(event) => self.exit(event),
            Observation::Fault(event) => {
                self.meet(&event.header);
                self.captures.begin(event);
            }
            Observation::Stack {
                id,
                address,
                bytes,
                last,
                ..
            } => {
                if let Some(capture) = self.captures.stack(id, address, &bytes, last) {
                    self.hand_on(capture);
                }
            }
            Observation::Text(event) => match self.captures.message(&event) {
                Late::Completed(capture) => self.hand_on(capture),
                Late::Waits => {}
                Late::TooLate(Some(message)) => {
                    self.work(Work::Message {
                        id: event.id,
                        message,
                    });
                }
                // It could not be read; the fault says what it says without.
                Late::TooLate(None) => {}
            },
        }
    }

    fn exec(&mut self, event: &ExecEvent) {
        let pid = event.header.tgid;
        self.hand_on_all(pid);
        let end = event
            .filename
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(0);
        let given = event.filename.get(..end).unwrap_or_default();
        let given = PathBuf::from(String::from_utf8_lossy(given).into_owned());
        let (exe, open_as) = match process::exe(pid) {
            Ok(exe) => (exe, PathBuf::from(format!("/proc/{pid}/exe"))),
            Err(_) => (given.clone(), given),
        };
        self.probe(open_as, exe.clone(), true);
        self.drain_mappings();
        let process = Process {
            target: event.header.target,
            exe,
            file: event.file,
        };
        self.insert(pid, process);
        self.outlets
            .scopes
            .assign(event.scope, event.header.target, pid);
        let mappings = self.maps.at(pid, u64::MAX);
        self.preload(pid, event.file, mappings);
        self.count_processes(event.header.target);
    }

    fn fork(&mut self, event: &ForkEvent) {
        let pid = event.header.tgid;
        self.outlets
            .scopes
            .assign(event.scope, event.header.target, pid);
        let Some(parent) = self.processes.get(&event.parent_tgid) else {
            return;
        };
        let process = parent.clone();
        self.insert(pid, process);
        self.count_processes(event.header.target);
    }

    fn exit(&mut self, event: Box<ExitEvent>) {
        let pid = event.header.tgid;
        self.meet(&event.header);
        self.hand_on_all(pid);
        let whose = self.whose(pid, event.header.target);
        self.outlets.scopes.release(event.scope);
        self.processes.remove(&pid);
        self.maps.unpin(pid);
        self.count_processes(event.header.target);
        self.work(Work::Exit { event, whose });
    }

    fn hand_on_all(&mut self, pid: u32) {
        for capture in self.captures.of_process(pid) {
            self.hand_on(capture);
        }
    }

    /// A fault is complete, or will not get any more so.
    fn hand_on(&mut self, capture: Capture) {
        // The mappings were made before the fault, so they are in the buffers.
        self.drain_mappings();
        let header = capture.event.header;
        let mut mappings = self.maps.at(header.tgid, header.time);
        if self.mappings.is_none() || mappings.is_empty() {
            mappings = Mapping::of_process(header.tgid).unwrap_or_default();
        }
        let whose = self.whose(header.tgid, header.target);
        self.work(Work::Fault {
            capture: Box::new(capture),
            mappings,
            whose,
        });
    }

    fn whose(&self, pid: u32, target: u32) -> Whose {
        let process = self.processes.get(&pid);
        Whose {
            target: self
                .targets
                .get(target as usize)
                .cloned()
                .unwrap_or_default(),
            exe: process
                .map(|process| process.exe.clone())
                .unwrap_or_default(),
            file: process.map_or(
                Inode {
                    number: 0,
                    device: 0,
                    reserved: 0,
                },
                |found| found.file,
            ),
        }
    }

    /// Has a program's files opened. Its executable is opened here, since the process may be gone,
    /// and its file replaced, when the investigator comes to it.
    fn preload(&self, pid: u32, file: Inode, mut mappings: Vec<Mapping>) {
        let executable = File::open(format!("/proc/{pid}/exe")).ok();
        if let Some(executable) = &executable {
            let open = PathBuf::from(format!("/proc/self/fd/{}", executable.as_raw_fd()));
            for mapping in &mut mappings {
                if mapping.inode == file.number {
                    mapping.open_as = Some(open.clone());
                }
            }
        }
        self.work(Work::Preload {
            mappings,
            executable,
        });
    }

    fn work(&self, work: Work) {
        match self.outlets.work.try_send(work) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            // Opening files early is a convenience; everything else is missed.
            Err(TrySendError::Full(Work::Preload { .. })) => {}
            Err(TrySendError::Full(_)) => self.outlets.state.add_lost("queue", 1),
        }
    }

    fn probe(&self, open_as: PathBuf, path: PathBuf, is_executable: bool) {
        // The prober ends last, when nobody is interested any more.
        let _ = self.outlets.probes.send(ProberTask::Probe(ToProbe {
            open_as,
            path,
            is_executable,
        }));
    }

    fn insert(&mut self, pid: u32, process: Process) {
        self.maps.pin(pid);
        self.processes.insert(pid, process);
    }

    /// Records of mappings were lost: looks at what `/proc` says of the processes that live.
    fn look_at_mappings_again(&mut self) {
        for pid in self.processes.keys() {
            match Mapping::of_process(*pid) {
                Ok(mappings) if !mappings.is_empty() => self.maps.set(*pid, mappings),
                _ => {}
            }
        }
    }

    /// Takes up a process that came to be watched without an event, and whose first event is here
    /// before the news of it.
    fn meet(&mut self, header: &Header) {
        if !self.processes.contains_key(&header.tgid) {
            let process = Process {
                target: header.target,
                exe: process::exe(header.tgid).unwrap_or_default(),
                file: process::exe_file(header.tgid),
            };
            self.adopt(header.tgid, process);
        }
    }

    /// Takes up a newcomer, unless it has been met, or has ended: then it has no executable.
    fn join(&mut self, pid: u32, process: Process) {
        if !self.processes.contains_key(&pid) && process::exe(pid).is_ok() {
            self.adopt(pid, process);
        }
    }

    /// Takes up a process that ran before it was watched.
    fn adopt(&mut self, pid: u32, process: Process) {
        let mappings = Mapping::of_process(pid).unwrap_or_default();
        for mapping in mappings.iter().filter(|mapping| mapping.inode != 0) {
            let is_executable = mapping.path == process.exe;
            let open_as = mapping
                .open_as
                .clone()
                .unwrap_or_else(|| mapping.path.clone());
            self.probe(open_as, mapping.path.clone(), is_executable);
        }
        self.preload(pid, process.file, mappings.clone());
        // A process that is gone has none any more, but its records may be here.
        if !mappings.is_empty() {
            self.maps.set(pid, mappings);
        }
        let target = process.target;
        self.insert(pid, process);
        self.count_processes(target);
    }

    fn count_processes(&self, target: u32) {
        let count = self
            .processes
            .values()
            .filter(|process| process.target == target)
            .count();
        if let Some(name) = self.targets.get(target as usize) {
            // By way of the prober, so that a process that shows has been probed.
            let task = ProberTask::Count {
                target: name.clone(),
                processes: count as u64,
            };
            let _ = self.outlets.probes.send(task);
        }
    }
}
