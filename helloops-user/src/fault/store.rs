//! The faults of an instance: the latest of them, and all of them by cause.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::fingerprint::fingerprint;
use super::record::{Fault, Kind};
use crate::symbol::Frame;
use crate::target::NamePattern;

/// Bounds of a [`Store`].
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Faults that are kept one by one.
    pub faults: usize,
    /// Groups, each of which keeps two faults.
    pub groups: usize,
    /// Memory that all kept faults together may take, in bytes.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            faults: 1_000,
            groups: 200,
            memory: 24 << 20,
        }
    }
}

/// The faults with one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FaultGroup {
    /// What they have in common.
    pub fingerprint: String,
    /// How many there have been.
    pub count: u64,
    /// When the first of them happened.
    pub first_seen: Timestamp,
    /// When the latest of them happened.
    pub last_seen: Timestamp,
    /// The first of them.
    pub first: Arc<Fault>,
    /// The latest of them.
    pub latest: Arc<Fault>,
}

/// Which faults or groups to show.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Those of targets whose names match.
    pub target: Option<NamePattern>,
    /// Those of one kind.
    pub kind: Option<Kind>,
    /// Only the latest so many.
    pub limit: Option<usize>,
}

impl Filter {
    /// Whether a fault is one of those that are meant.
    pub fn matches(&self, fault: &Fault) -> bool {
        self.kind.is_none_or(|kind| kind == fault.kind)
            && self
                .target
                .as_ref()
                .is_none_or(|target| target.matches(&fault.target))
    }
}

/// Keeps the latest faults and groups all by fingerprint, within [`Limits`]. What no longer fits is
/// counted: the oldest faults go first, and the groups that were seen least recently.
#[derive(Debug, Default)]
pub struct Store {
    limits: Limits,
    /// Ascending by number.
    recent: VecDeque<(u64, Arc<Fault>)>,
    groups: HashMap<String, Group>,
    last_number: u64,
    /// Memory that the recent faults take.
    memory: usize,
    dropped_faults: u64,
    dropped_groups: u64,
}

#[derive(Debug)]
struct Group {
    count: u64,
    first: Arc<Fault>,
    latest: Arc<Fault>,
    /// The latest fault's number, which tells the order in which groups were seen.
    latest_number: u64,
}

impl Store {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    /// Keeps a fault, and fills in its `id`, `fingerprint` and `count`.
    pub fn record(&mut self, mut fault: Fault) -> Arc<Fault> {
        self.last_number += 1;
        let number = self.last_number;
        fault.id = number.to_string();
        fault.fingerprint = fingerprint(&fault);
        fault.count = self
            .groups
            .get(&fault.fingerprint)
            .map_or(1, |group| group.count + 1);
        let fault = Arc::new(fault);
        self.group(number, &fault);
        self.memory += memory_of(&fault);
        self.recent.push_back((number, Arc::clone(&fault)));
        while self.recent.len() > self.limits.faults || self.memory > self.limits.memory {
            let Some((_, oldest)) = self.recent.pop_front() else {
                break;
            };
            self.memory -= memory_of(&oldest);
            self.dropped_faults += 1;
        }
        fault
    }

    /// Changes a fault of which more became known, such as whether it was caught, and returns it.
    /// Its group stays the same. `None` if the fault is no longer kept.
    pub fn update(&mut self, id: &str, change: impl FnOnce(&mut Fault)) -> Option<Arc<Fault>> {
        let current = self.get(id)?;
        let mut changed = Fault::clone(&current);
        change(&mut changed);
        let fingerprint = current.fingerprint.clone();
        changed.id.clone_from(&current.id);
        changed.fingerprint.clone_from(&fingerprint);
        changed.count = current.count;
        let changed = Arc::new(changed);
        if let Some(place) = self.place(id) {
            self.memory = self.memory - memory_of(&current) + memory_of(&changed);
            self.recent[place].1 = Arc::clone(&changed);
        }
        if let Some(group) = self.groups.get_mut(&fingerprint) {
            for kept in [&mut group.first, &mut group.latest] {
                if kept.id == id {
                    *kept = Arc::clone(&changed);
                }
            }
        }
        Some(changed)
    }

    /// One fault, if it is still kept.
    pub fn get(&self, id: &str) -> Option<Arc<Fault>> {
        if let Some(place) = self.place(id) {
            return self.recent.get(place).map(|(_, fault)| Arc::clone(fault));
        }
        let kept = self
            .groups
            .values()
            .flat_map(|group| [&group.first, &group.latest]);
        kept.into_iter()
            .find(|fault| fault.id == id)
            .map(Arc::clone)
    }

    /// The kept faults that match, oldest first.
    pub fn recent(&self, filter: &Filter) -> Vec<Arc<Fault>> {
        let matching = self.recent.iter().rev().map(|(_, fault)| fault);
        let mut faults: Vec<_> = matching
            .filter(|fault| filter.matches(fault))
            .take(filter.limit.unwrap_or(usize::MAX))
            .map(Arc::clone)
            .collect();
        faults.reverse();
        faults
    }

    /// The groups whose faults match, the one seen latest last.
    pub fn groups(&self, filter: &Filter) -> Vec<FaultGroup> {
        let mut groups: Vec<_> = self
            .groups
            .iter()
            .filter(|(_, group)| filter.matches(&group.latest))
            .collect();
        groups.sort_unstable_by_key(|(_, group)| group.latest_number);
        let skipped = groups
            .len()
            .saturating_sub(filter.limit.unwrap_or(usize::MAX));
        let show = |(fingerprint, group): (&String, &Group)| FaultGroup {
            fingerprint: fingerprint.clone(),
            count: group.count,
            first_seen: group.first.time,
            last_seen: group.latest.time,
            first: Arc::clone(&group.first),
            latest: Arc::clone(&group.latest),
        };
        groups.into_iter().skip(skipped).map(show).collect()
    }

    /// All faults that were ever recorded.
    pub fn total(&self) -> u64 {
        self.last_number
    }

    /// Faults that are no longer kept one by one; their groups may still count them.
    pub fn dropped_faults(&self) -> u64 {
        self.dropped_faults
    }

    /// Groups that were given up for others.
    pub fn dropped_groups(&self) -> u64 {
        self.dropped_groups
    }

    fn group(&mut self, number: u64, fault: &Arc<Fault>) {
        if let Some(group) = self.groups.get_mut(&fault.fingerprint) {
            group.count = fault.count;
            group.latest = Arc::clone(fault);
            group.latest_number = number;
            return;
        }
        if self.groups.len() >= self.limits.groups {
            let by_age = self
                .groups
                .iter()
                .min_by_key(|(_, group)| group.latest_number);
            if let Some(oldest) = by_age.map(|(fingerprint, _)| fingerprint.clone()) {
                self.groups.remove(&oldest);
                self.dropped_groups += 1;
            }
        }
        let group = Group {
            count: fault.count,
            first: Arc::clone(fault),
            latest: Arc::clone(fault),
            latest_number: number,
        };
        self.groups.insert(fault.fingerprint.clone(), group);
    }

    /// Where in the recent faults one is.
    fn place(&self, id: &str) -> Option<usize> {
        let number: u64 = id.parse().ok()?;
        self.recent
            .binary_search_by_key(&number, |&(number, _)| number)
            .ok()
    }
}

/// The memory that a fault takes, as near as it can be known.
fn memory_of(fault: &Fault) -> usize {
    let frame = |frame: &Frame| {
        let path =
            |path: &Option<std::path::PathBuf>| path.as_ref().map_or(0, |path| path.capacity());
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::capacity);
        path(&frame.module) + path(&frame.file) + text(&frame.build_id) + text(&frame.function)
    };
    let texts = [
        &fault.message,
        &fault.target,
        &fault.comm,
        &fault.fingerprint,
    ];
    size_of::<Fault>()
        + texts.iter().map(|text| text.capacity()).sum::<usize>()
        + fault.exe.capacity()
        + fault
            .arguments
            .iter()
            .map(|text| size_of::<String>() + text.capacity())
            .sum::<usize>()
        + fault.stack.capacity() * size_of::<Frame>()
        + fault.stack.iter().map(frame).sum::<usize>()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fault::sample;

    #[test]
    fn faults_with_one_cause_are_counted_together() {
        let mut store = Store::default();
        let first = store.record(sample::panic());
        store.record(sample::exit(3));
        let second = store.record(sample::panic());
        assert_eq!((first.count, second.count), (1, 2));
        assert_eq!(first.fingerprint, second.fingerprint);
        assert_ne!(first.id, second.id);

        let groups = store.groups(&Filter::default());
        assert_eq!(groups.len(), 2);
        let panics = groups.last().unwrap();
        assert_eq!(panics.count, 2);
        assert_eq!(
            (&panics.first.id, &panics.latest.id),
            (&first.id, &second.id)
        );
        let exits = store.groups(&Filter {
            kind: Some(Kind::Exit),
            ..Filter::default()
        });
        assert_eq!(exits.len(), 1);
    }

    #[test]
    fn an_outcome_reaches_every_copy_of_its_fault() {
        let mut store = Store::default();
        let first = store.record(sample::panic());
        store.record(sample::panic());
        let changed = store
            .update(&first.id, |fault| fault.caught = Some(true))
            .unwrap();
        assert_eq!(changed.caught, Some(true));
        assert_eq!(store.recent(&Filter::default())[0].caught, Some(true));
        let groups = store.groups(&Filter::default());
        assert_eq!(
            (groups[0].first.caught, groups[0].latest.caught),
            (Some(true), None)
        );
        assert!(store.update("4000", |_| ()).is_none());
        assert!(store.update("no number", |_| ()).is_none());
    }

    #[test]
    fn the_oldest_faults_go_and_their_groups_stay() {
        let mut store = Store::new(Limits {
            faults: 3,
            ..Limits::default()
        });
        let first = store.record(sample::panic());
        for _ in 0..5 {
            store.record(sample::exit(3));
        }
        assert_eq!(store.recent(&Filter::default()).len(), 3);
        assert_eq!((store.dropped_faults(), store.total()), (3, 6));
        assert_eq!(store.get(&first.id).unwrap().id, first.id);
        let changed = store
            .update(&first.id, |fault| fault.caught = Some(false))
            .unwrap();
        assert_eq!(store.get(&first.id).unwrap(), changed);
    }

    #[test]
    fn groups_and_memory_are_bounded() {
        let mut store = Store::new(Limits {
            groups: 2,
            memory: 100_000,
            ..Limits::default()
        });
        for code in 1..=3 {
            store.record(sample::exit(code));
        }
        assert_eq!(store.dropped_groups(), 1);
        let codes: Vec<_> = store
            .groups(&Filter::default())
            .iter()
            .map(|group| group.latest.exit_code)
            .collect();
        assert_eq!(codes, [Some(2), Some(3)]);

        let mut long = sample::panic();
        long.message = "x".repeat(40_000);
        for _ in 0..5 {
            store.record(long.clone());
        }
        assert_eq!(store.recent(&Filter::default()).len(), 2);
        long.message = "x".repeat(200_000);
        store.record(long);
        assert_eq!(store.recent(&Filter::default()).len(), 0);
    }

    #[test]
    fn the_limit_keeps_the_latest() {
        let mut store = Store::default();
        for code in 1..=5 {
            store.record(sample::exit(code));
        }
        let latest = Filter {
            limit: Some(2),
            ..Filter::default()
        };
        let codes: Vec<_> = store
            .recent(&latest)
            .iter()
            .map(|fault| fault.exit_code)
            .collect();
        assert_eq!(codes, [Some(4), Some(5)]);
        assert_eq!(store.groups(&latest).len(), 2);
    }
}
