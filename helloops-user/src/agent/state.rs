//! What an instance knows: written by the agent's intake, read by all views at once.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};
use tokio::sync::broadcast;

use super::status::{Feature, Lost, Status, TargetStatus};
use crate::fault::{self, Fault, FaultGroup, Filter};
use crate::histogram::{self, Delta, Query, Series, SeriesKey};

/// Faults that a follower may lag behind before it misses some.
const FOLLOWER_LAG: usize = 1_024;

/// The knowledge of one instance, shared by reference. Each method takes one lock for a short time.
#[derive(Debug)]
pub struct State {
    histograms: Mutex<histogram::Store>,
    faults: Mutex<Faults>,
    health: Mutex<Health>,
    new_faults: broadcast::Sender<Arc<Fault>>,
    started: Timestamp,
}

#[derive(Debug, Default)]
struct Faults {
    store: fault::Store,
    by_target: HashMap<String, u64>,
}

#[derive(Debug, Default)]
struct Health {
    targets: Vec<TargetStatus>,
    features: Vec<Feature>,
    probes: u64,
    lost: Lost,
}

impl Default for State {
    fn default() -> Self {
        Self::new(histogram::DEFAULT_MEMORY, fault::Limits::default())
    }
}

impl State {
    /// A state that starts now and knows nothing yet. Histograms take about `histogram_memory`
    /// bytes at most, faults what `limits` say.
    pub fn new(histogram_memory: usize, limits: fault::Limits) -> Self {
        Self {
            histograms: Mutex::new(histogram::Store::new(histogram_memory)),
            faults: Mutex::new(Faults {
                store: fault::Store::new(limits),
                by_target: HashMap::new(),
            }),
            health: Mutex::default(),
            new_faults: broadcast::Sender::new(FOLLOWER_LAG),
            started: Timestamp::now(),
        }
    }

    /// Counts what a drain of the kernel's counters brought, each for its series.
    pub fn record_latencies<'a>(&self, deltas: impl IntoIterator<Item = (SeriesKey, Delta<'a>)>) {
        let second = monotonic_second();
        let mut histograms = lock(&self.histograms);
        for (key, delta) in deltas {
            histograms.record(key, second, &delta);
        }
    }

    /// Keeps a fault, with its id, fingerprint and count filled in, and tells the followers.
    pub fn record_fault(&self, fault: Fault) -> Arc<Fault> {
        let mut faults = lock(&self.faults);
        match faults.by_target.get_mut(&fault.target) {
            Some(count) => *count += 1,
            None => {
                faults.by_target.insert(fault.target.clone(), 1);
            }
        }
        let fault = faults.store.record(fault);
        // Within the lock, so that followers see the faults in their order. It fails only when
        // nobody follows.
        let _ = self.new_faults.send(Arc::clone(&fault));
        fault
    }

    /// Changes a fault of which more became known; `None` if it is no longer kept.
    pub fn update_fault(&self, id: &str, change: impl FnOnce(&mut Fault)) -> Option<Arc<Fault>> {
        lock(&self.faults).store.update(id, change)
    }

    /// Sets the targets and how many processes of each live. Their `faults` are filled in from
    /// what was recorded.
    pub fn set_targets(&self, targets: Vec<TargetStatus>) {
        lock(&self.health).targets = targets;
    }

    /// Sets how many processes of a target live.
    pub fn set_processes(&self, target: &str, processes: u64) {
        let mut health = lock(&self.health);
        for status in health
            .targets
            .iter_mut()
            .filter(|status| status.name == target)
        {
            status.processes = processes;
        }
    }

    /// Sets what the instance can do on this kernel.
    pub fn set_features(&self, features: Vec<Feature>) {
        lock(&self.health).features = features;
    }

    /// Sets how many probes are attached.
    pub fn set_probes(&self, probes: u64) {
        lock(&self.health).probes = probes;
    }

    /// Counts `more` losses of one cause. Zero makes the cause show up as one that is watched.
    pub fn add_lost(&self, cause: &str, more: u64) {
        let mut health = lock(&self.health);
        match health.lost.get_mut(cause) {
            Some(count) => *count = count.saturating_add(more),
            None => {
                health.lost.insert(cause.to_owned(), more);
            }
        }
    }

    /// Sets the losses of a cause that is counted elsewhere, such as in the kernel.
    pub fn set_lost(&self, cause: &str, count: u64) {
        lock(&self.health).lost.insert(cause.to_owned(), count);
    }

    /// How the instance is doing.
    pub fn status(&self) -> Status {
        let lost = self.lost();
        let (total, by_target) = {
            let faults = lock(&self.faults);
            (faults.store.total(), faults.by_target.clone())
        };
        let health = lock(&self.health);
        let mut targets = health.targets.clone();
        for target in &mut targets {
            target.faults = by_target.get(&target.name).copied().unwrap_or(0);
        }
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            started: self.started,
            targets,
            features: health.features.clone(),
            probes: health.probes,
            faults: total,
            lost,
        }
    }

    /// What was lost since the start, by cause. Slots of time that the histograms gave up for
    /// memory are `windows`, groups of faults that were given up for others `groups`.
    pub fn lost(&self) -> Lost {
        let windows = lock(&self.histograms).evicted();
        let groups = lock(&self.faults).store.dropped_groups();
        let mut lost = lock(&self.health).lost.clone();
        for (cause, count) in [("windows", windows), ("groups", groups)] {
            if count > 0 {
                lost.insert(cause.to_owned(), count);
            }
        }
        lost
    }

    /// The series that match, by the time they took in all, longest first.
    pub fn series(&self, query: &Query) -> Vec<Series> {
        lock(&self.histograms).series(query, monotonic_second())
    }

    /// The kept faults that match, oldest first.
    pub fn faults(&self, filter: &Filter) -> Vec<Arc<Fault>> {
        lock(&self.faults).store.recent(filter)
    }

    /// The groups whose faults match, the one seen latest last.
    pub fn fault_groups(&self, filter: &Filter) -> Vec<FaultGroup> {
        lock(&self.faults).store.groups(filter)
    }

    /// One fault, if it is still kept.
    pub fn fault(&self, id: &str) -> Option<Arc<Fault>> {
        lock(&self.faults).store.get(id)
    }

    /// Faults that are no longer kept one by one.
    pub fn dropped_faults(&self) -> u64 {
        lock(&self.faults).store.dropped_faults()
    }

    /// All faults from now on, as they are recorded.
    pub fn follow_faults(&self) -> broadcast::Receiver<Arc<Fault>> {
        self.new_faults.subscribe()
    }
}

/// The lock, also after a panic of another holder: every method leaves the state consistent enough
/// to be looked at.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Seconds of the monotonic clock, which the histograms' windows are kept by.
fn monotonic_second() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| now.tv_sec().cast_unsigned())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::fault::sample;
    use crate::histogram::Call;

    #[test]
    fn the_status_counts_faults_by_target_and_all_losses() {
        let state = State::default();
        let selector = "exe /srv/shop/bin/shop".to_owned();
        let target = TargetStatus {
            name: "shop".to_owned(),
            selector,
            processes: 0,
            faults: 0,
        };
        state.set_targets(vec![target]);
        state.set_processes("shop", 3);
        state.add_lost("events", 0);
        state.add_lost("events", 2);
        state.set_lost("stacks", 1);
        let mut follower = state.follow_faults();
        let fault = state.record_fault(sample::panic());
        state.record_fault(sample::exit(1));

        let status = state.status();
        assert_eq!(
            (status.targets[0].processes, status.targets[0].faults),
            (3, 1)
        );
        assert_eq!(status.faults, 2);
        assert_eq!((status.lost["events"], status.lost["stacks"]), (2, 1));
        assert_eq!(follower.try_recv().unwrap().id, fault.id);
    }

    #[test]
    fn latencies_are_found_in_a_window_that_ends_now() {
        let state = State::default();
        let key = SeriesKey {
            target: "shop".into(),
            pid: None,
            call: Call(0),
        };
        state.record_latencies([(
            key,
            Delta {
                counts: &[(300, 5)],
                ..Delta::default()
            },
        )]);
        let minute = Some(std::time::Duration::from_secs(60));
        let series = state.series(&Query {
            window: minute,
            ..Query::default()
        });
        assert_eq!((series.len(), series[0].count), (1, 5));
    }
}
