//! Processes that come to be watched without an event of the kernel's: those that run already when
//! watching starts, and those that are moved into a watched cgroup.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::{Mutex, PoisonError},
};

use nix::sys::eventfd::{EfdFlags, EventFd};

use super::{Target, intake::Process, scopes::Scopes};
use crate::{
    kernel::{
        Counters, Selectors,
        abi::{FLAG_PER_PROCESS, Watched},
    },
    target::process,
};

/// What it takes to watch a process that runs already.
pub struct Joining<'a> {
    /// What is watched.
    pub selectors: &'a mut Selectors,
    /// The counters, which have the scopes for processes that are counted on their own.
    pub counters: &'a mut Counters,
    /// Who the scopes belong to.
    pub scopes: &'a Scopes,
}

impl Joining<'_> {
    /// Watches the processes that run already. From now on the kernel side follows their children;
    /// it is looked until a round finds no new ones, for a process may fork while it is looked at.
    pub fn watch_running(
        &mut self,
        targets: &[Target],
        watched: &[Watched],
    ) -> HashMap<u32, Process> {
        const ROUNDS: usize = 5;
        let mut running = HashMap::new();
        for _ in 0..ROUNDS {
            let before = running.len();
            for (target, watched) in targets.iter().zip(watched) {
                for pid in process::matching(&target.selector) {
                    if !running.contains_key(&pid)
                        && let Some(process) = self.watch(pid, *watched)
                    {
                        running.insert(pid, process);
                    }
                }
            }
            if running.len() == before {
                break;
            }
        }
        running
    }

    /// Watches a process, unless it is watched already, has ended, or is this one.
    pub fn watch(&mut self, pid: u32, watched: Watched) -> Option<Process> {
        if pid == std::process::id() || self.selectors.watched(pid).is_some() {
            return None;
        }
        let stat = process::stat(pid).ok()?;
        // No event will tell of the end of one that has ended.
        if stat.is_zombie {
            return None;
        }
        let start = stat.start;
        let own_scope = (watched.flags & FLAG_PER_PROCESS != 0)
            .then(|| self.counters.take_scope())
            .flatten();
        let scope = own_scope.unwrap_or(watched.scope);
        self.scopes.assign(scope, watched.target, pid);
        let entry = Watched {
            start,
            scope,
            ..watched
        };
        if let Err(error) = self.selectors.watch(pid, entry) {
            log::warn!("process {pid} is not watched: {error}");
            self.scopes.release(scope);
            return None;
        }
        // If it ended in between, its id may be another process's by now.
        if process::stat(pid).map(|stat| stat.start).ok() != Some(start) {
            self.selectors.forget(pid);
            self.scopes.release(scope);
            return None;
        }
        Some(Process {
            target: watched.target,
            exe: process::exe(pid).unwrap_or_default(),
            file: process::exe_file(pid),
        })
    }
}

/// Processes that came to be watched while the intake was not looking, on their way to it.
#[derive(Debug)]
pub struct Newcomers {
    waiting: Mutex<Vec<(u32, Process)>>,
    wake: EventFd,
}

impl Newcomers {
    /// None yet.
    ///
    /// # Errors
    ///
    /// When there are too many open files.
    pub fn new() -> io::Result<Self> {
        let wake = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self {
            waiting: Mutex::default(),
            wake,
        })
    }

    /// Puts one on its way, and wakes who polls.
    pub fn add(&self, pid: u32, process: Process) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.push((pid, process));
        // It cannot fail short of 2^64 calls.
        let _ = self.wake.write(1);
    }

    /// Takes all that came.
    pub fn take(&self) -> Vec<(u32, Process)> {
        // It fails when there was nothing to wake for.
        let _ = self.wake.read();
        std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl AsFd for Newcomers {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
