//! Learns which files processes map executable, as it happens: by the time a fault is looked at,
//! its process may be gone, and with it `/proc/PID/maps`.
//!
//! The source is the kernel's own stream of `PERF_RECORD_MMAP2` records (perf_event_open(2)) of all
//! processes, one buffer per CPU. It costs nothing but at executable mappings.

use std::{
    io,
    os::fd::{AsRawFd as _, BorrowedFd},
    path::PathBuf,
    sync::Arc,
};

use nix::time::{ClockId, clock_gettime};
use perf_event::{Builder, SampleFlag, Sampler, data::Record, events::Software};

/// `PERF_RECORD_MISC_COMM_EXEC` (include/uapi/linux/perf_event.h): the name changed by an exec.
const MISC_COMM_EXEC: u16 = 1 << 13;
/// `PROT_EXEC`.
const PROT_EXEC: u32 = 4;
/// Bytes of all CPUs' buffers together. A program that starts makes about ten records of 100 to 200
/// bytes, so that on a small host a thousand can start at once.
const BUFFERS_BYTES: usize = 4 << 20;
/// The bounds of each CPU's buffer; a power of two.
const BUFFER_BYTES: (usize, usize) = (64 << 10, 1 << 20);
/// How many bytes wait before the reader is woken for their sake. It also looks at every event.
const WAKEUP_BYTES: usize = 32 << 10;

/// An executable mapping that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MappedFile {
    /// The first address.
    pub start: u64,
    /// The address behind the last.
    pub end: u64,
    /// The offset of the first byte in the file.
    pub file_offset: u64,
    /// The file's path as the kernel names it, or a name in brackets such as `[vdso]`.
    pub path: Arc<PathBuf>,
    /// The file's device: major and minor number.
    pub device: (u32, u32),
    /// The file's inode number.
    pub inode: u64,
}

/// Something that changed a process's mappings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MappingEvent {
    /// A new program runs; all earlier mappings are gone.
    Exec {
        /// The process.
        pid: u32,
    },
    /// A process was created with its parent's mappings.
    Fork {
        /// The child.
        pid: u32,
        /// The parent.
        parent: u32,
    },
    /// A file was mapped executable.
    Map {
        /// The process.
        pid: u32,
        /// What and where.
        file: MappedFile,
    },
    /// Records were lost, since the buffer was full.
    Lost {
        /// How many.
        count: u64,
    },
}

/// The stream of mappings.
pub struct Mappings {
    samplers: Vec<Sampler>,
    /// Records of a time at which other CPUs' buffers had been read already.
    early: Vec<(u64, MappingEvent)>,
}

impl Mappings {
    /// Opens the stream on every online CPU.
    ///
    /// # Errors
    ///
    /// Whatever `perf_event_open(2)` says of the first CPU that fails.
    pub fn open() -> io::Result<Self> {
        let cpus = online_cpus()?;
        let share = (BUFFERS_BYTES / cpus.len().max(1)).next_power_of_two();
        let (least, most) = BUFFER_BYTES;
        let bytes = share.clamp(least, most);
        let samplers = cpus
            .into_iter()
            .map(|cpu| {
                let mut builder = Builder::new(Software::DUMMY);
                builder
                    .any_pid()
                    .one_cpu(cpu)
                    .mmap(true)
                    .mmap2(true)
                    .comm(true)
                    .comm_exec(true)
                    .task(true)
                    .sample_id_all(true)
                    .sample(SampleFlag::TIME)
                    .wakeup_watermark(WAKEUP_BYTES)
                    .clockid(perf_event::Clock::MONOTONIC)
                    .enabled(true);
                builder.build()?.sampled(bytes)
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self {
            samplers,
            early: Vec::new(),
        })
    }

    /// What becomes readable when buffers fill up.
    pub fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        // SAFETY: the descriptor is open as long as its sampler lives.
        self.samplers
            .iter()
            .map(|sampler| unsafe { BorrowedFd::borrow_raw(sampler.as_raw_fd()) })
    }

    /// Takes all records, in the order of their times (ns of `CLOCK_MONOTONIC`).
    pub fn drain(&mut self) -> Vec<(u64, MappingEvent)> {
        // What is recorded from now on may have an elder in a buffer that has been read by then.
        let until = now();
        let mut events = std::mem::take(&mut self.early);
        for sampler in &mut self.samplers {
            while let Some(record) = sampler.next_record() {
                // With `sample_id_all` and the time alone, every record ends with its time.
                let bytes = record.to_contiguous();
                let Some(time) = bytes.last_chunk().map(|time| u64::from_ne_bytes(*time)) else {
                    continue;
                };
                let exec = record.misc() & MISC_COMM_EXEC != 0;
                let Ok(record) = record.parse_record() else {
                    continue;
                };
                if let Some(event) = decode(record, exec) {
                    events.push((time, event));
                }
            }
        }
        events.sort_by_key(|(time, _)| *time);
        self.early = events.split_off(events.partition_point(|(time, _)| *time <= until));
        events
    }
}

/// Now, in ns of `CLOCK_MONOTONIC`; the end of time if there is no such clock.
fn now() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(u64::MAX, |now| {
        (now.tv_sec() * 1_000_000_000 + now.tv_nsec()).cast_unsigned()
    })
}

fn decode(record: Record<'_>, exec: bool) -> Option<MappingEvent> {
    match record {
        Record::Mmap2(map) if map.prot & PROT_EXEC != 0 => Some(MappingEvent::Map {
            pid: map.pid,
            file: MappedFile {
                start: map.addr,
                end: map.addr.checked_add(map.len)?,
                file_offset: map.pgoff,
                path: Arc::new(PathBuf::from(map.filename_os())),
                device: (map.maj().unwrap_or(0), map.min().unwrap_or(0)),
                inode: map.ino().unwrap_or(0),
            },
        }),
        Record::Comm(comm) if exec => Some(MappingEvent::Exec { pid: comm.pid }),
        Record::Fork(fork) if fork.pid != fork.ppid => Some(MappingEvent::Fork {
            pid: fork.pid,
            parent: fork.ppid,
        }),
        Record::Lost(lost) => Some(MappingEvent::Lost { count: lost.lost }),
        _ => None,
    }
}

/// The CPUs that are online, from a list such as `0-3,6`.
fn online_cpus() -> io::Result<Vec<usize>> {
    let text = std::fs::read_to_string("/sys/devices/system/cpu/online")?;
    Ok(parse_cpu_list(&text))
}

fn parse_cpu_list(text: &str) -> Vec<usize> {
    text.trim()
        .split(',')
        .filter_map(|range| {
            let (first, last) = range.split_once('-').unwrap_or((range, range));
            Some(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?)
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_ranges_and_gaps() {
        assert_eq!(parse_cpu_list("0-3,6,8-9\n"), [0, 1, 2, 3, 6, 8, 9]);
        assert_eq!(parse_cpu_list("0\n"), [0]);
        assert_eq!(parse_cpu_list(""), Vec::<usize>::new());
    }
}
