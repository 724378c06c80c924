//! Who a histogram scope of the kernel side belongs to: a target, or one of its processes.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::kernel::Selectors;

/// The owner of a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The target's name.
    pub target: Arc<str>,
    /// The process, for a scope of its own.
    pub pid: Option<u32>,
}

/// The owners of all scopes. Written by the intake, read by the drain.
#[derive(Debug)]
pub struct Scopes {
    targets: Vec<Arc<str>>,
    processes: Mutex<Processes>,
}

#[derive(Debug, Default)]
struct Processes {
    owners: HashMap<u32, Owner>,
    /// Scopes whose process ended, and whose last counts are to be drained.
    ended: Vec<u32>,
}

impl Scopes {
    /// The scopes of targets, which have the targets' numbers.
    pub fn new(targets: &[String]) -> Self {
        Self {
            targets: targets
                .iter()
                .map(|name| Arc::from(name.as_str()))
                .collect(),
            processes: Mutex::default(),
        }
    }

    /// A process of a target counts in this scope.
    pub fn assign(&self, scope: u32, target: u32, pid: u32) {
        if scope >= Selectors::TARGETS_MAX
            && let Some(name) = self.targets.get(target as usize)
        {
            let owner = Owner {
                target: Arc::clone(name),
                pid: Some(pid),
            };
            self.lock().owners.insert(scope, owner);
        }
    }

    /// The process of this scope ended.
    pub fn release(&self, scope: u32) {
        if scope >= Selectors::TARGETS_MAX {
            self.lock().ended.push(scope);
        }
    }

    /// Who a scope belongs to; `None` while that has not been heard of.
    pub fn owner(&self, scope: u32) -> Option<Owner> {
        match self.targets.get(scope as usize) {
            Some(name) => Some(Owner {
                target: Arc::clone(name),
                pid: None,
            }),
            None => self.lock().owners.get(&scope).cloned(),
        }
    }

    /// The scopes of processes that have ended before now. They stay owned until
    /// [`Scopes::forget`].
    pub fn take_ended(&self) -> Vec<u32> {
        std::mem::take(&mut self.lock().ended)
    }

    /// A scope is free again.
    pub fn forget(&self, scope: u32) {
        self.lock().owners.remove(&scope);
    }

    fn lock(&self) -> MutexGuard<'_, Processes> {
        self.processes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
