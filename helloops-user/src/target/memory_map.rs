//! Remembers which files the watched processes have mapped executable, also when they are gone.

use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
};

use crate::{
    kernel::{MappedFile, MappingEvent},
    symbol::Mapping,
};

/// Processes of which mappings are kept. Most are not watched, but it is not known yet when a
/// record comes in whether its process will be.
const PROCESSES_MAX: usize = 2048;

/// The mappings of one program that a process runs or ran.
#[derive(Debug, Clone, Default)]
struct Program {
    /// When it started, in ns of `CLOCK_MONOTONIC`; 0 for one that ran before.
    since: u64,
    /// Ascending by address, without overlaps.
    mappings: Vec<Mapping>,
}

#[derive(Debug, Clone, Default)]
struct Process {
    /// The current program last, and before it the one that it replaced.
    programs: Vec<Program>,
    /// When something of it was last used, to tell what to forget.
    used: u64,
}

/// The mappings of processes over time.
#[derive(Debug, Default)]
pub struct MemoryMaps {
    processes: HashMap<u32, Process>,
    /// Processes that are not forgotten.
    pinned: HashSet<u32>,
    clock: u64,
}

impl MemoryMaps {
    /// Takes in one event of the kernel's stream.
    pub fn apply(&mut self, time: u64, event: MappingEvent) {
        self.clock += 1;
        match event {
            MappingEvent::Exec { pid } => {
                let process = self.process(pid);
                process.programs.push(Program {
                    since: time,
                    mappings: Vec::new(),
                });
                // A fault's events may still be on their way when the next program runs already.
                if process.programs.len() > 2 {
                    process.programs.remove(0);
                }
            }
            MappingEvent::Fork { pid, parent } => {
                let parent = self
                    .processes
                    .get(&parent)
                    .and_then(|parent| parent.programs.last());
                let mut mappings = parent
                    .map(|program| program.mappings.clone())
                    .unwrap_or_default();
                for mapping in &mut mappings {
                    mapping.open_as = Some(map_file(pid, mapping.start, mapping.end));
                }
                // The id may have been another process's before.
                self.process(pid).programs = vec![Program {
                    since: time,
                    mappings,
                }];
            }
            MappingEvent::Map { pid, file } => {
                let process = self.process(pid);
                if process.programs.is_empty() {
                    process.programs.push(Program::default());
                }
                if let Some(program) = process.programs.last_mut() {
                    insert(&mut program.mappings, mapping(pid, file));
                }
            }
            MappingEvent::Lost { .. } => {}
        }
    }

    /// Keeps a process's mappings until [`MemoryMaps::unpin`]: it is watched.
    pub fn pin(&mut self, pid: u32) {
        self.pinned.insert(pid);
    }

    /// The process ended. Its mappings stay for a while, for what is still on its way.
    pub fn unpin(&mut self, pid: u32) {
        self.pinned.remove(&pid);
    }

    /// Sets what `/proc` says of a process that ran before it was watched.
    pub fn set(&mut self, pid: u32, mappings: Vec<Mapping>) {
        self.clock += 1;
        self.process(pid).programs = vec![Program { since: 0, mappings }];
    }

    /// The mappings that a process had at a time, as far as they are known.
    pub fn at(&mut self, pid: u32, time: u64) -> Vec<Mapping> {
        self.clock += 1;
        let clock = self.clock;
        let Some(process) = self.processes.get_mut(&pid) else {
            return Vec::new();
        };
        process.used = clock;
        let at_the_time = process
            .programs
            .iter()
            .rev()
            .find(|program| program.since <= time);
        at_the_time
            .or(process.programs.first())
            .map(|program| program.mappings.clone())
            .unwrap_or_default()
    }

    fn process(&mut self, pid: u32) -> &mut Process {
        if self.processes.len() >= PROCESSES_MAX && !self.processes.contains_key(&pid) {
            self.forget_oldest();
        }
        let clock = self.clock;
        let process = self.processes.entry(pid).or_default();
        process.used = clock;
        process
    }

    /// Drops the half that was not used for longest, so that this is not done at every turn.
    fn forget_oldest(&mut self) {
        let unpinned = self
            .processes
            .iter()
            .filter(|(pid, _)| !self.pinned.contains(pid));
        let mut times: Vec<u64> = unpinned.map(|(_, process)| process.used).collect();
        if times.is_empty() {
            return;
        }
        let middle = times.len() / 2;
        let (_, median, _) = times.select_nth_unstable(middle);
        let median = *median;
        let pinned = &self.pinned;
        self.processes
            .retain(|pid, process| process.used > median || pinned.contains(pid));
    }
}

fn mapping(pid: u32, file: MappedFile) -> Mapping {
    const DELETED: &str = " (deleted)";
    let text = file.path.to_string_lossy();
    let (path, deleted) = match text.strip_suffix(DELETED) {
        Some(path) => (PathBuf::from(path), true),
        // The kernel's name for anonymous memory; /proc/PID/maps has an empty one.
        None if text == "//anon" => (PathBuf::new(), false),
        None => (file.path.to_path_buf(), false),
    };
    Mapping {
        start: file.start,
        end: file.end,
        file_offset: file.file_offset,
        path,
        device: file.device,
        inode: file.inode,
        deleted,
        // Leads to the very file, whatever has its name by now, as long as the process lives.
        open_as: Some(map_file(pid, file.start, file.end)),
    }
}

/// The link to the file of a mapping (proc_pid_map_files(5)).
pub fn map_file(pid: u32, start: u64, end: u64) -> PathBuf {
    PathBuf::from(format!("/proc/{pid}/map_files/{start:x}-{end:x}"))
}

/// Adds a mapping; what it overlaps is no longer there.
fn insert(mappings: &mut Vec<Mapping>, new: Mapping) {
    mappings.retain(|old| old.end <= new.start || new.end <= old.start);
    let place = mappings.partition_point(|old| old.start < new.start);
    mappings.insert(place, new);
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn map(pid: u32, start: u64, path: &str) -> MappingEvent {
        MappingEvent::Map {
            pid,
            file: MappedFile {
                start,
                end: start + 0x1000,
                file_offset: 0,
                path: Arc::new(PathBuf::from(path)),
                device: (8, 1),
                inode: 7,
            },
        }
    }

    fn paths(mappings: &[Mapping]) -> Vec<String> {
        mappings
            .iter()
            .map(|mapping| mapping.path.display().to_string())
            .collect()
    }

    #[test]
    fn a_program_keeps_its_own_mappings_after_the_next_exec() {
        let mut maps = MemoryMaps::default();
        maps.apply(10, MappingEvent::Exec { pid: 1 });
        maps.apply(11, map(1, 0x2000, "/b"));
        maps.apply(12, map(1, 0x1000, "/a (deleted)"));
        maps.apply(20, MappingEvent::Exec { pid: 1 });
        maps.apply(21, map(1, 0x1000, "/c"));
        assert_eq!(paths(&maps.at(1, 15)), ["/a", "/b"]);
        assert!(maps.at(1, 15)[0].deleted);
        assert_eq!(paths(&maps.at(1, 25)), ["/c"]);
        maps.apply(30, MappingEvent::Fork { pid: 2, parent: 1 });
        maps.apply(31, map(2, 0x1000, "/d"));
        assert_eq!(paths(&maps.at(2, 40)), ["/d"]);
        assert_eq!(paths(&maps.at(1, 40)), ["/c"]);
        assert!(maps.at(3, 40).is_empty());
    }

    #[test]
    fn only_so_many_processes_are_kept_and_the_watched_ones_stay() {
        let mut maps = MemoryMaps::default();
        maps.apply(1, map(1, 0x1000, "/a"));
        maps.pin(1);
        for pid in 2..3 * PROCESSES_MAX as u32 {
            maps.apply(2, map(pid, 0x1000, "/x"));
        }
        assert!(maps.processes.len() <= PROCESSES_MAX);
        assert_eq!(paths(&maps.at(1, 2)), ["/a"]);
    }
}
