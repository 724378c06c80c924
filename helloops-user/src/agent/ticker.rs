//! What is done each second: the kernel's counters are drained into the histograms, losses are
//! looked up, and selectors are kept in step with files and cgroups that change.

use std::{
    fs,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, mpsc::Sender},
};

use super::{
    State,
    intake::{ProberTask, ToProbe},
    joining::{Joining, Newcomers},
    scopes::Scopes,
};
use crate::{
    histogram::{self, Call, SeriesKey},
    kernel::{
        Counters, Delta, Lost, Selectors,
        abi::{Inode, Watched},
        inode_of,
    },
    target::process,
};

/// An executable that a target selects, and the file that stands behind its path now.
#[derive(Debug)]
pub struct WatchedExe {
    /// The path.
    pub path: PathBuf,
    /// The file, if there is one.
    pub file: Option<Inode>,
    /// The target.
    pub watched: Watched,
}

impl WatchedExe {
    /// One with the file that is behind its path now.
    pub fn new(path: PathBuf, watched: Watched) -> Self {
        let file = fs::metadata(&path).ok();
        Self {
            file: file.map(|metadata| inode_of(&metadata)),
            path,
            watched,
        }
    }

    /// Has processes watched that start the file, or another that gets its path, by that path or
    /// by the one that it leads to.
    ///
    /// # Errors
    ///
    /// When a table of the kernel side is full.
    pub fn select(&self, selectors: &mut Selectors) -> Result<(), impl std::fmt::Display + use<>> {
        selectors.select_exe(&self.path, self.file, self.watched)?;
        match fs::canonicalize(&self.path) {
            Ok(real) if real != self.path => selectors.select_exe(&real, self.file, self.watched),
            _ => Ok(()),
        }
    }
}

/// A cgroup that a target selects.
#[derive(Debug)]
pub struct WatchedCgroup {
    /// Its directory.
    pub path: PathBuf,
    /// The target.
    pub watched: Watched,
}

/// The state of the thread that does what is done each second.
pub struct Ticker {
    /// The kernel's counters.
    pub counters: Counters,
    /// Its losses.
    pub lost: Lost,
    /// What is watched.
    pub selectors: Arc<Mutex<Selectors>>,
    /// Who the counters belong to.
    pub scopes: Arc<Scopes>,
    /// Where it all goes.
    pub state: Arc<State>,
    /// Files to be probed.
    pub probes: Sender<ProberTask>,
    /// Executables that may be replaced.
    pub exes: Vec<WatchedExe>,
    /// cgroups that processes may be moved into.
    pub cgroups: Vec<WatchedCgroup>,
    /// Takes processes that were moved into one to the intake.
    pub newcomers: Arc<Newcomers>,
    /// Counts whose scope's process has not been heard of yet.
    pub unassigned: Vec<Delta>,
}

impl Ticker {
    /// Does it once.
    pub fn tick(&mut self) {
        self.drain();
        for (kind, count) in self.lost.counts() {
            self.state.set_lost(&kind, count);
        }
        self.follow_files();
        self.follow_cgroups();
        let _ = self.probes.send(ProberTask::LookAgain);
    }

    /// Takes what was counted. To be called a last time when nothing is watched any more.
    pub fn drain(&mut self) {
        // The counts of a process that ended are complete by now.
        let ended = self.scopes.take_ended();
        let mut deltas = std::mem::take(&mut self.unassigned);
        self.counters.drain(|delta| deltas.push(delta));
        let (known, unknown): (Vec<Delta>, Vec<Delta>) = deltas
            .into_iter()
            .partition(|delta| self.scopes.owner(delta.scope).is_some());
        self.unassigned = unknown;
        let recorded = known.iter().filter_map(|delta| {
            let owner = self.scopes.owner(delta.scope)?;
            let key = SeriesKey {
                target: owner.target,
                pid: owner.pid,
                call: Call(delta.number),
            };
            let counted = histogram::Delta {
                counts: &delta.counts,
                errors: &delta.errors,
                unfinished: delta.unfinished,
            };
            Some((key, counted))
        });
        self.state.record_latencies(recorded);
        for scope in ended {
            // In this order, since the kernel may give it away again at once.
            self.scopes.forget(scope);
            self.counters.release(scope);
        }
    }

    /// A deployment may put a new file behind a watched path.
    fn follow_files(&mut self) {
        for exe in &mut self.exes {
            let file = fs::metadata(&exe.path)
                .ok()
                .map(|metadata| inode_of(&metadata));
            if file == exe.file {
                continue;
            }
            let mut selectors = self
                .selectors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            if let Some(old) = exe.file {
                selectors.deselect_file(old);
            }
            exe.file = file;
            if let Err(error) = exe.select(&mut selectors) {
                log::warn!(
                    "{}: its new file is not watched: {error}",
                    exe.path.display()
                );
            }
            let path = exe.path.clone();
            let _ = self.probes.send(ProberTask::Probe(ToProbe {
                open_as: path.clone(),
                path,
                is_executable: true,
            }));
        }
    }

    /// A process may be moved into a watched cgroup without an exec.
    fn follow_cgroups(&mut self) {
        for cgroup in &self.cgroups {
            let mut selectors = self
                .selectors
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let mut joining = Joining {
                selectors: &mut selectors,
                counters: &mut self.counters,
                scopes: &self.scopes,
            };
            for pid in process::in_cgroup(&cgroup.path) {
                if let Some(process) = joining.watch(pid, cgroup.watched) {
                    self.newcomers.add(pid, process);
                }
            }
        }
    }
}
