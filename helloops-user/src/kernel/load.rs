//! Loads the object, attaches what is attached once, and reports what this kernel refuses.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData},
    programs::{RawTracePoint, UProbe},
};
use aya_log::EbpfLogger;
use thiserror::Error;

use super::{
    Btf, Counters, Events, Feature, Mappings, Probes, Selectors,
    abi::{KernelLayout, LOSSES, Loss, STACK_CHUNKS_MAX},
    counter::CounterMaps,
    plain::Shared,
    selector::SelectorMaps,
};

/// The compiled programs.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/helloops-programs"));

/// Why nothing could be loaded at all.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The kernel refused the maps, or the object.
    #[error("cannot load the BPF programs: {0}; `helloops doctor` says what this kernel lacks")]
    Object(String),
    /// A map is not what it should be.
    #[error("the BPF map {name} cannot be used: {reason}")]
    Map {
        /// Its name.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
}

/// Sizes and switches.
#[derive(Debug, Clone)]
pub struct LoadOptions {
    /// Bytes of the ring buffer of events: a power of two, and a multiple of the page size.
    pub ring_bytes: u32,
    /// How many pairs of target and system call can be counted.
    pub series: u32,
    /// How many pages of 128 buckets they share. A call's distribution takes 5 to 15.
    pub pages: u32,
    /// How many pages of a stack are copied at most: 1 to 64.
    pub stack_pages: u32,
    /// Whether the programs' own debug lines go to the log.
    pub kernel_log: bool,
    /// Whether system calls are measured.
    pub syscalls: bool,
    /// Where the kernel's type information is.
    pub btf: Btf,
}

impl Default for LoadOptions {
    fn default() -> Self {
        Self {
            ring_bytes: 8 << 20,
            series: 2048,
            pages: 8192,
            stack_pages: 16,
            kernel_log: false,
            syscalls: true,
            btf: Btf::Kernel,
        }
    }
}

/// What the kernel side offers to the rest.
pub struct Kernel {
    /// Events.
    pub events: Events,
    /// Latency buckets.
    pub counters: Counters,
    /// What is watched.
    pub selectors: Selectors,
    /// Probes on sites.
    pub probes: Probes,
    /// Executable mappings; absent where the kernel has no perf events.
    pub mappings: Option<Mappings>,
    /// What got lost.
    pub lost: Lost,
    /// What works and what does not.
    pub features: Vec<Feature>,
    /// The programs' own debug lines, when asked for.
    pub log: Option<KernelLog>,
}

/// The programs' own debug lines.
pub struct KernelLog(EbpfLogger<&'static dyn log::Log>);

impl KernelLog {
    /// Writes the lines that have come in to the log.
    pub fn flush(&mut self) {
        self.0.flush();
    }
}

/// The programs' counters of what got lost.
pub struct Lost {
    counters: Array<MapData, u64>,
}

impl Lost {
    /// How many were lost so far, per kind.
    pub fn counts(&self) -> BTreeMap<String, u64> {
        const KINDS: [(Loss, &str); LOSSES as usize] = [
            (Loss::Fault, "faults"),
            (Loss::Stack, "stacks"),
            (Loss::Process, "processes"),
            (Loss::Histogram, "latencies"),
            (Loss::Call, "calls"),
            (Loss::Target, "targets"),
            (Loss::Message, "messages"),
        ];
        KINDS
            .iter()
            .map(|(kind, name)| {
                (
                    (*name).to_owned(),
                    self.counters.get(&(*kind as u32), 0).unwrap_or(0),
                )
            })
            .collect()
    }
}

impl Kernel {
    /// Loads and attaches everything that does not depend on a target.
    ///
    /// # Errors
    ///
    /// Only when nothing can work; what fails alone becomes a [`Feature`] that is not available.
    pub fn load(options: &LoadOptions) -> Result<Self, LoadError> {
        let mut features = Vec::new();
        let layout = layout(&options.btf, &mut features);
        let mut ebpf = load_object(options, layout)?;

        attach_all(&mut ebpf, options, &mut features);
        let probes_unavailable = load_site_program(&mut ebpf, &mut features);
        let mappings = match Mappings::open() {
            Ok(mappings) => {
                features.push(Feature::works(
                    "stacks of ended processes",
                    "perf mmap records",
                ));
                Some(mappings)
            }
            Err(error) => {
                features.push(Feature::lacks(
                    "stacks of ended processes",
                    format!("perf_event_open: {error}; stacks need the process to be alive"),
                ));
                None
            }
        };
        let log = options
            .kernel_log
            .then(|| EbpfLogger::init(&mut ebpf))
            .transpose();
        let log = log.unwrap_or_else(|error| {
            log::warn!("the programs' own log lines cannot be read: {error}");
            None
        });
        let log = log.map(KernelLog);
        let series = (take_data(&mut ebpf, "SERIES")?, options.series);
        let pages = (take_data(&mut ebpf, "PAGES")?, options.pages);
        let counters = Counters::new(CounterMaps {
            index: take_data(&mut ebpf, "SERIES_INDEX")?,
            series,
            pages,
            free_series: take(&mut ebpf, "FREE_SERIES")?,
            free_pages: take(&mut ebpf, "FREE_PAGES")?,
            free_scopes: take(&mut ebpf, "FREE_SCOPES")?,
        })
        .map_err(|error| LoadError::Map {
            name: "SERIES",
            reason: error.to_string(),
        })?;
        let selectors = Selectors::new(SelectorMaps {
            gate: take_data(&mut ebpf, "GATE")?,
            targets: take(&mut ebpf, "TARGETS")?,
            exe_files: take(&mut ebpf, "EXE_FILES")?,
            exe_paths: take(&mut ebpf, "EXE_PATHS")?,
            cgroups: take(&mut ebpf, "CGROUPS")?,
            globs: take(&mut ebpf, "GLOBS")?,
        })
        .map_err(|error| LoadError::Map {
            name: "GATE",
            reason: error.to_string(),
        })?;
        let events = Events::new(take(&mut ebpf, "EVENTS")?);
        let lost = Lost {
            counters: take(&mut ebpf, "LOST")?,
        };
        let arguments = take(&mut ebpf, "SITES")?;
        let probes = Probes::new(Arc::new(Mutex::new(ebpf)), arguments, probes_unavailable);
        Ok(Self {
            events,
            counters,
            selectors,
            probes,
            mappings,
            lost,
            features,
            log,
        })
    }
}

fn layout(btf: &Btf, features: &mut Vec<Feature>) -> KernelLayout {
    const NAME: &str = "kernel type information";
    match btf.layout() {
        Ok(layout) => {
            features.push(Feature::works(NAME, "BTF"));
            layout
        }
        Err(reason) => {
            features.push(Feature::lacks(
                NAME,
                format!(
                    "{reason}. Lost without it: following children, --exe for processes that start \
                     later, who sent a signal, exit codes"
                ),
            ));
            KernelLayout::UNKNOWN
        }
    }
}

fn load_object(options: &LoadOptions, layout: KernelLayout) -> Result<Ebpf, LoadError> {
    let layout = Shared(layout);
    let stack_chunks = options.stack_pages.clamp(1, STACK_CHUNKS_MAX);
    // aya-log's levels: 0 is off, 5 is everything.
    let level: u8 = if options.kernel_log { 5 } else { 0 };
    EbpfLoader::new()
        .override_global("LAYOUT", &layout, true)
        .override_global("STACK_CHUNKS", &stack_chunks, true)
        .override_global(aya_log::LEVEL, &level, false)
        .map_max_entries("EVENTS", options.ring_bytes)
        .map_max_entries("SERIES", options.series)
        .map_max_entries("FREE_SERIES", options.series)
        .map_max_entries("PAGES", options.pages)
        .map_max_entries("FREE_PAGES", options.pages)
        .load(OBJECT)
        .map_err(|error| LoadError::Object(chain(&error)))
}

/// The raw tracepoints: program, tracepoint, what it gives.
const TRACEPOINTS: [(&str, &str, &str); 8] = [
    ("process_exit", "sched_process_exit", "process exits"),
    (
        "process_fork",
        "sched_process_fork",
        "children of watched processes",
    ),
    (
        "process_exec",
        "sched_process_exec",
        "processes that start later",
    ),
    ("signal_sent", "signal_generate", "senders of signals"),
    ("signal_delivered", "signal_deliver", "fatal signals"),
    ("oom_victim", "mark_victim", "out-of-memory kills"),
    ("syscall_exit", "sys_exit", "system-call latencies"),
    ("syscall_enter", "sys_enter", "system-call latencies"),
];

fn attach_all(ebpf: &mut Ebpf, options: &LoadOptions, features: &mut Vec<Feature>) {
    for (program, tracepoint, name) in TRACEPOINTS {
        if tracepoint.starts_with("sys_") && !options.syscalls {
            continue;
        }
        match attach_tracepoint(ebpf, program, tracepoint) {
            Ok(()) if program == "syscall_exit" => {}
            Ok(()) => {
                features.push(Feature::works(name, format!("raw tracepoint {tracepoint}")));
            }
            Err(reason) => {
                features.push(Feature::lacks(
                    name,
                    format!("raw tracepoint {tracepoint}: {reason}"),
                ));
            }
        }
    }
}

fn attach_tracepoint(ebpf: &mut Ebpf, program: &str, tracepoint: &str) -> Result<(), String> {
    let program = ebpf.program_mut(program).ok_or("the program is missing")?;
    let program: &mut RawTracePoint = program
        .try_into()
        .map_err(|error: aya::programs::ProgramError| chain(&error))?;
    program.load().map_err(|error| chain(&error))?;
    program.attach(tracepoint).map_err(|error| chain(&error))?;
    Ok(())
}

/// Loads the program that is attached to sites later. The reason if that fails.
fn load_site_program(ebpf: &mut Ebpf, features: &mut Vec<Feature>) -> Option<String> {
    const NAME: &str = "panics, aborts and named functions";
    let loaded = match ebpf.program_mut("site") {
        Some(program) => <&mut UProbe>::try_from(program)
            .and_then(UProbe::load)
            .map_err(|error| chain(&error)),
        None => Err("the program is missing".to_owned()),
    };
    match loaded {
        Ok(()) => {
            features.push(Feature::works(NAME, "uprobes"));
            None
        }
        Err(reason) => {
            features.push(Feature::lacks(NAME, reason.clone()));
            Some(reason)
        }
    }
}

fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<Map>,
    M::Error: std::fmt::Display,
{
    let map = ebpf.take_map(name).ok_or(LoadError::Map {
        name,
        reason: "it is missing from the object".to_owned(),
    })?;
    M::try_from(map).map_err(|error| LoadError::Map {
        name,
        reason: error.to_string(),
    })
}

fn take_data(ebpf: &mut Ebpf, name: &'static str) -> Result<MapData, LoadError> {
    match ebpf.take_map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => Err(LoadError::Map {
            name,
            reason: "it is not an array in the object".to_owned(),
        }),
    }
}

/// An error with its causes on one line, and of a verifier's log the end, where the reason is.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let message = error.to_string();
        if !text.contains(&message) {
            text = format!("{text}: {message}");
        }
        cause = error.source();
    }
    match std::env::var_os("HELLOOPS_VERIFIER_LOG") {
        Some(_) => text,
        None => shorten(&text),
    }
}

fn shorten(text: &str) -> String {
    const LINES: usize = 4;
    let lines: Vec<&str> = text.lines().collect();
    if lines.len() <= LINES + 1 {
        return text.to_owned();
    }
    let tail = lines.get(lines.len() - LINES..).unwrap_or_default();
    format!(
        "{} … {}",
        lines.first().copied().unwrap_or_default(),
        tail.join(" / ")
    )
}
