//! All series of an instance: fed by the drains of the kernel's counters, asked by the views.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use super::series::Series;
use super::syscall_name::{Call, errno_name};
use super::tally::{Delta, Tally};
use super::window::History;
use crate::target::NamePattern;

/// The memory that a [`Store`] may take unless told otherwise.
pub const DEFAULT_MEMORY: usize = 24 << 20;

/// The quantiles that every series shows, by the names it shows them under.
const QUANTILES: [(&str, f64); 4] = [("0.5", 0.5), ("0.9", 0.9), ("0.99", 0.99), ("0.999", 0.999)];

/// What a series counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SeriesKey {
    /// The target's name.
    pub target: Arc<str>,
    /// The process, where histograms are kept per process.
    pub pid: Option<u32>,
    /// The system call.
    pub call: Call,
}

/// Which series to show, over which time.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Targets whose names match.
    pub target: Option<NamePattern>,
    /// One process, where histograms are kept per process.
    pub pid: Option<u32>,
    /// System calls whose names match.
    pub call: Option<NamePattern>,
    /// The time that ends now (at most [`super::LONGEST_WINDOW`]); none for all since the start.
    pub window: Option<Duration>,
}

/// Target, process and call, as they are shown.
type NamedSeries = (Arc<str>, Option<u32>, String);

/// The histories of all series within a bound of memory. Beyond it, the oldest slots of time go
/// first; when none is left, the longest idle process's series becomes part of its target's series.
/// The counts since the start of a target stay exact for ever.
#[derive(Debug)]
pub struct Store {
    histories: HashMap<SeriesKey, History>,
    memory: usize,
    bytes: usize,
    evicted: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self::new(DEFAULT_MEMORY)
    }
}

impl Store {
    /// An empty store that takes about `memory` bytes at most.
    pub fn new(memory: usize) -> Self {
        Self {
            histories: HashMap::new(),
            memory,
            bytes: 0,
            evicted: 0,
        }
    }

    /// Counts what a drain at `second` (of a monotonic clock) brought for one series.
    pub fn record(&mut self, key: SeriesKey, second: u64, delta: &Delta<'_>) {
        let tally = Tally::new(delta);
        if tally.is_empty() {
            return;
        }
        self.with_history(key, second, |history| history.record(second, &tally));
        if self.bytes > self.memory {
            self.evict(second);
        }
    }

    /// The series that match, by the time they took in all, longest first. `now` is a second of the
    /// same clock as [`Store::record`]'s. Series without a call in the window are left out.
    pub fn series(&self, query: &Query, now: u64) -> Vec<Series> {
        // By name, since a target can make the same call by a 64-bit and by a 32-bit number.
        let mut tallies: BTreeMap<NamedSeries, (Call, Tally)> = BTreeMap::new();
        for (key, history) in &self.histories {
            let name = key.call.name();
            if !query.matches(key, &name) {
                continue;
            }
            let tally = match query.window {
                Some(window) => history.window(window, now),
                None => history.total(),
            };
            if !tally.is_empty() {
                let name = (Arc::clone(&key.target), key.pid, name.into_owned());
                let (_, sum) = tallies.entry(name).or_insert((key.call, Tally::default()));
                sum.merge(&tally);
            }
        }
        let mut series: Vec<(f64, Series)> = tallies
            .into_iter()
            .map(|((target, pid, name), (call, tally))| {
                (
                    tally.latencies.sum(),
                    show(&target, pid, name, call, &tally),
                )
            })
            .collect();
        series.sort_by(|left, right| right.0.total_cmp(&left.0));
        series.into_iter().map(|(_, series)| series).collect()
    }

    /// Slots of time that were given up for memory.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    /// The memory that the histories take, as near as it can be known.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    fn with_history(&mut self, key: SeriesKey, second: u64, change: impl FnOnce(&mut History)) {
        let mut before = 0;
        let history = self
            .histories
            .entry(key)
            .and_modify(|history| before = weight(history))
            .or_insert_with(|| History::new(second));
        change(history);
        self.bytes = self.bytes - before + weight(history);
    }

    /// Gives up what is oldest until an eighth of the memory is free, so that not every record has
    /// to come here.
    fn evict(&mut self, now: u64) {
        let enough = self.memory - self.memory / 8;
        while self.bytes > enough {
            let Some(oldest) = self.histories.values().filter_map(History::oldest).min() else {
                break;
            };
            let before = oldest + 1 + now.saturating_sub(oldest) / 16;
            for history in self.histories.values_mut() {
                self.bytes -= weight(history);
                self.evicted += history.forget_before(before);
                self.bytes += weight(history);
            }
        }
        if self.bytes > enough {
            self.fold_idle_processes(enough);
        }
    }

    fn fold_idle_processes(&mut self, enough: usize) {
        let mut processes: Vec<(u64, SeriesKey)> = self
            .histories
            .iter()
            .filter(|(key, _)| key.pid.is_some())
            .map(|(key, history)| (history.last_second(), key.clone()))
            .collect();
        processes.sort_unstable_by_key(|&(last_second, _)| last_second);
        for (last_second, key) in processes {
            if self.bytes <= enough {
                break;
            }
            let Some(history) = self.histories.remove(&key) else {
                continue;
            };
            self.bytes -= weight(&history);
            let of_the_target = SeriesKey { pid: None, ..key };
            self.with_history(of_the_target, last_second, |target| {
                target.absorb(&history.total())
            });
        }
    }
}

impl Query {
    fn matches(&self, key: &SeriesKey, call: &str) -> bool {
        self.target
            .as_ref()
            .is_none_or(|target| target.matches(&key.target))
            && self
                .call
                .as_ref()
                .is_none_or(|pattern| pattern.matches(call))
            && (self.pid.is_none() || self.pid == key.pid)
    }
}

fn weight(history: &History) -> usize {
    // The table's entry and its share of the table's spare room.
    const ENTRY: usize = 2 * (size_of::<SeriesKey>() + size_of::<History>());
    ENTRY + history.bytes()
}

fn show(target: &str, pid: Option<u32>, name: String, call: Call, tally: &Tally) -> Series {
    let latencies = &tally.latencies;
    let quantile = |(name, quantile): (&str, f64)| {
        latencies
            .quantile(quantile)
            .map(|value| (name.to_owned(), value))
    };
    Series {
        target: target.to_owned(),
        pid,
        metric: "syscall".to_owned(),
        call: name,
        unit: "ns".to_owned(),
        wait: call.waits(),
        count: latencies.count(),
        unfinished: tally.unfinished,
        errors: tally
            .errors
            .iter()
            .map(|&(errno, count)| (errno_name(errno).into_owned(), count))
            .collect(),
        min: latencies.min().unwrap_or(0),
        max: latencies.max().unwrap_or(0),
        mean: latencies.mean().unwrap_or(0.0),
        quantiles: QUANTILES.into_iter().filter_map(quantile).collect(),
        buckets: latencies.ranges(),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::histogram::bucket::slot_of;

    const READ: Call = Call(0);
    const WRITE: Call = Call(1);
    const FUTEX: Call = Call(202);

    fn key(target: &str, pid: Option<u32>, call: Call) -> SeriesKey {
        SeriesKey {
            target: target.into(),
            pid,
            call,
        }
    }

    fn delta(counts: &[(u16, u64)]) -> Delta<'_> {
        Delta {
            counts,
            ..Delta::default()
        }
    }

    #[test]
    fn series_come_by_total_time_and_show_errors_by_name() {
        let mut store = Store::default();
        store.record(key("shop", None, READ), 7, &delta(&[(slot_of(1_000), 10)]));
        let failing = [(11, 3), (512, 1)];
        store.record(
            key("shop", None, FUTEX),
            7,
            &Delta {
                counts: &[(slot_of(1_000_000), 4)],
                errors: &failing,
                unfinished: 2,
            },
        );
        let [futex, read] = &store.series(&Query::default(), 7)[..] else {
            panic!("two series")
        };
        assert_eq!(
            (futex.call.as_str(), futex.count, futex.unfinished),
            ("futex", 4, 2)
        );
        assert!(futex.wait && !read.wait);
        assert_eq!(futex.errors["EAGAIN"], 3);
        assert_eq!(futex.errors["ERESTARTSYS"], 1);
        assert_eq!(read.buckets, [(1_000, 1_003, 10)]);
        assert_eq!(read.quantiles["0.999"], 1_003);
        assert_eq!(read.quantiles.len(), 4);
    }

    #[test]
    fn queries_choose_by_target_process_call_and_window() {
        let mut store = Store::default();
        store.record(key("shop", Some(7), READ), 100, &delta(&[(1, 1)]));
        store.record(key("shop", Some(8), WRITE), 160, &delta(&[(1, 2)]));
        store.record(key("mail", None, READ), 160, &delta(&[(1, 4)]));
        let count = |query: &Query| -> u64 {
            store
                .series(query, 160)
                .iter()
                .map(|series| series.count)
                .sum()
        };
        let pattern = |text: &str| Some(NamePattern::new(text));
        assert_eq!(count(&Query::default()), 7);
        assert_eq!(
            count(&Query {
                target: pattern("sh*"),
                ..Query::default()
            }),
            3
        );
        assert_eq!(
            count(&Query {
                pid: Some(8),
                ..Query::default()
            }),
            2
        );
        assert_eq!(
            count(&Query {
                call: pattern("read"),
                ..Query::default()
            }),
            5
        );
        let minute = Some(Duration::from_secs(60));
        assert_eq!(
            count(&Query {
                window: minute,
                ..Query::default()
            }),
            6
        );
    }

    #[test]
    fn the_same_call_by_both_numbers_is_one_series() {
        let mut store = Store::default();
        store.record(key("old", None, Call(0)), 1, &delta(&[(5, 1)]));
        store.record(key("old", None, Call(512 + 3)), 1, &delta(&[(5, 1)]));
        let series = store.series(&Query::default(), 1);
        assert_eq!(series.len(), 1);
        assert_eq!(series[0].count, 2);
    }

    #[test]
    fn beyond_the_memory_the_oldest_time_goes_and_the_totals_stay() {
        let memory = 200 << 10;
        let mut store = Store::new(memory);
        for second in 0..20_000 {
            for call in 0..10 {
                store.record(
                    key("busy", None, Call(call)),
                    second,
                    &delta(&[(9, 1), (900, 1)]),
                );
            }
            assert!(store.bytes() <= memory);
        }
        assert!(store.evicted() > 0);
        let total = store.series(&Query::default(), 19_999);
        assert!(total.iter().all(|series| series.count == 40_000));
        let minute = Query {
            window: Some(Duration::from_secs(60)),
            ..Query::default()
        };
        assert!(
            store
                .series(&minute, 19_999)
                .iter()
                .all(|series| series.count == 120)
        );
    }

    #[test]
    fn many_short_processes_end_up_in_their_target() {
        let memory = 100 << 10;
        let mut store = Store::new(memory);
        for pid in 0..5_000 {
            store.record(
                key("forks", Some(pid), READ),
                u64::from(pid / 100),
                &delta(&[(9, 1)]),
            );
        }
        assert!(store.bytes() <= memory);
        let series = store.series(&Query::default(), 50);
        assert_eq!(series.iter().map(|series| series.count).sum::<u64>(), 5_000);
        assert!(series.iter().any(|series| series.pid.is_none()));
    }

    #[test]
    fn the_bytes_are_those_of_the_histories() {
        let mut store = Store::new(50 << 10);
        for second in 0..500 {
            store.record(
                key("a", Some(second as u32 % 7), READ),
                second,
                &delta(&[(9, second)]),
            );
        }
        assert_eq!(
            store.bytes(),
            store.histories.values().map(weight).sum::<usize>()
        );
    }
}
