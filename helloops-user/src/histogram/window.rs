//! The history of one series: what it counted since the start, and lately in ever coarser slots
//! of time.

use std::collections::VecDeque;
use std::time::Duration;

use super::tally::{PackedTally, Sum, Tally};

/// The resolutions that are kept, finest first.
const RESOLUTIONS: [Resolution; 3] = [
    Resolution {
        seconds: 1,
        slots: 600,
    },
    Resolution {
        seconds: 10,
        slots: 720,
    },
    Resolution {
        seconds: 60,
        slots: 1_440,
    },
];

/// The longest window that can be asked for.
pub const LONGEST_WINDOW: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, Clone, Copy)]
struct Resolution {
    /// Seconds in a slot.
    seconds: u64,
    /// Slots that are kept besides the running one.
    slots: u64,
}

/// One series over time. Seconds are those of a monotonic clock. Time in which nothing was counted
/// takes neither space nor work.
#[derive(Debug)]
pub(super) struct History {
    total: PackedTally,
    rings: [Ring; RESOLUTIONS.len()],
    last_second: u64,
}

#[derive(Debug, Default)]
struct Ring {
    /// Ascending by index; never two of the same.
    slots: VecDeque<Slot>,
    /// What the slots' tallies take on the heap.
    tally_bytes: usize,
}

#[derive(Debug)]
struct Slot {
    /// The slot's first second, divided by the seconds in a slot.
    index: u64,
    tally: PackedTally,
}

/// What the C library's allocator really takes for so many bytes: at least 32, in steps of 16.
fn allocated(bytes: usize) -> usize {
    (bytes + 8).next_multiple_of(16).max(32)
}

impl History {
    pub(super) fn new(second: u64) -> Self {
        Self {
            total: PackedTally::new(&Tally::default()),
            rings: Default::default(),
            last_second: second,
        }
    }

    /// Counts what was drained at `second`. A second before the newest one is put where it belongs,
    /// or nowhere but in the total if its slot is gone.
    pub(super) fn record(&mut self, second: u64, tally: &Tally) {
        let packed = PackedTally::new(tally);
        for (ring, resolution) in self.rings.iter_mut().zip(RESOLUTIONS) {
            ring.record(resolution, second, tally, &packed);
        }
        self.last_second = self.last_second.max(second);
        self.absorb(tally);
    }

    /// Adds to the total only.
    pub(super) fn absorb(&mut self, tally: &Tally) {
        self.total = merged(&self.total, tally);
    }

    /// Everything since the start.
    pub(super) fn total(&self) -> Tally {
        self.total.unpack()
    }

    /// What was counted in the `window` that ends with second `now`, from the finest slots that
    /// reach so far back. Slots are taken whole, so the answer may reach back further than asked
    /// for by up to one slot. Reaches back [`LONGEST_WINDOW`] at most.
    pub(super) fn window(&self, window: Duration, now: u64) -> Tally {
        let seconds = (window.as_secs_f64().ceil() as u64).max(1);
        let covers = |(_, resolution): &(&Ring, Resolution)| {
            seconds <= resolution.seconds * resolution.slots
        };
        let mut rings = self.rings.iter().zip(RESOLUTIONS);
        let [.., coarsest] = &self.rings;
        let [.., coarsest_resolution] = RESOLUTIONS;
        let (ring, resolution) = rings
            .find(covers)
            .unwrap_or((coarsest, coarsest_resolution));
        let first = (now + 1).saturating_sub(seconds) / resolution.seconds;
        let last = now / resolution.seconds;
        let begin = ring.slots.partition_point(|slot| slot.index < first);
        let mut wanted = ring
            .slots
            .range(begin..)
            .take_while(|slot| slot.index <= last)
            .peekable();
        if wanted.peek().is_none() {
            return Tally::default();
        }
        let mut sum = Sum::new();
        wanted.for_each(|slot| sum.add(&slot.tally));
        sum.into_tally()
    }

    /// The first second of the oldest slot of any resolution.
    pub(super) fn oldest(&self) -> Option<u64> {
        let starts = self
            .rings
            .iter()
            .zip(RESOLUTIONS)
            .filter_map(|(ring, resolution)| {
                ring.slots
                    .front()
                    .map(|slot| slot.index * resolution.seconds)
            });
        starts.min()
    }

    /// Drops all slots that start before `second` and says how many.
    pub(super) fn forget_before(&mut self, second: u64) -> u64 {
        let mut forgotten = 0;
        for (ring, resolution) in self.rings.iter_mut().zip(RESOLUTIONS) {
            let keep_from = ring
                .slots
                .partition_point(|slot| slot.index * resolution.seconds < second);
            forgotten += keep_from as u64;
            ring.drop_first(keep_from);
            ring.slots.shrink_to(ring.slots.len() * 2);
        }
        forgotten
    }

    /// The newest second that something was counted in.
    pub(super) fn last_second(&self) -> u64 {
        self.last_second
    }

    /// The memory that the history takes, as near as it can be known.
    pub(super) fn bytes(&self) -> usize {
        allocated(self.total.bytes()) + self.rings.iter().map(Ring::bytes).sum::<usize>()
    }
}

impl Ring {
    fn record(&mut self, resolution: Resolution, second: u64, tally: &Tally, packed: &PackedTally) {
        let index = second / resolution.seconds;
        let newest = self
            .slots
            .back()
            .map_or(index, |slot| slot.index.max(index));
        let oldest_kept = newest.saturating_sub(resolution.slots);
        if index < oldest_kept {
            return;
        }
        self.drop_first(self.slots.partition_point(|slot| slot.index < oldest_kept));
        let place = self.slots.partition_point(|slot| slot.index < index);
        match self.slots.get_mut(place) {
            Some(slot) if slot.index == index => {
                self.tally_bytes -= allocated(slot.tally.bytes());
                slot.tally = merged(&slot.tally, tally);
                self.tally_bytes += allocated(slot.tally.bytes());
            }
            _ => {
                self.tally_bytes += allocated(packed.bytes());
                self.slots.insert(
                    place,
                    Slot {
                        index,
                        tally: packed.clone(),
                    },
                );
            }
        }
    }

    fn drop_first(&mut self, count: usize) {
        for slot in self.slots.drain(..count) {
            self.tally_bytes -= allocated(slot.tally.bytes());
        }
    }

    fn bytes(&self) -> usize {
        self.slots.capacity() * size_of::<Slot>() + self.tally_bytes
    }
}

fn merged(packed: &PackedTally, more: &Tally) -> PackedTally {
    let mut tally = packed.unpack();
    tally.merge(more);
    PackedTally::new(&tally)
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::tally::Delta;

    const DAY: u64 = 24 * 60 * 60;

    fn tally(slot: u16, count: u64) -> Tally {
        Tally::new(&Delta {
            counts: &[(slot, count)],
            errors: &[(11, count)],
            unfinished: 1,
        })
    }

    /// What a window must hold at least: all that was counted in its seconds.
    fn counted(records: &[(u64, u16, u64)], window: u64, now: u64) -> u64 {
        let within = |second: u64| second + window > now && second <= now;
        records
            .iter()
            .filter(|record| within(record.0))
            .map(|record| record.2)
            .sum()
    }

    #[test]
    fn seconds_are_exact_up_to_ten_minutes() {
        let mut history = History::new(0);
        for second in 1_000..3_000 {
            history.record(second, &tally(500, 1));
        }
        for seconds in [1, 2, 59, 600] {
            let window = history.window(Duration::from_secs(seconds), 2_999);
            assert_eq!(window.latencies.count(), seconds);
            assert_eq!(window.errors, [(11, seconds)]);
            assert_eq!(window.unfinished, seconds);
        }
        let fifteen_minutes = history.window(Duration::from_secs(900), 2_999);
        assert_eq!(fifteen_minutes.latencies.count(), 900);
        assert_eq!(history.total().latencies.count(), 2_000);
    }

    #[test]
    fn a_long_silence_takes_no_space_and_ends_the_old_windows() {
        let mut history = History::new(0);
        history.record(5, &tally(1, 1));
        history.record(5 + 10 * DAY, &tally(1, 1));
        assert_eq!(
            history
                .window(LONGEST_WINDOW, 5 + 10 * DAY)
                .latencies
                .count(),
            1
        );
        assert_eq!(history.total().latencies.count(), 2);
        assert!(history.bytes() < 2_000);
    }

    #[test]
    fn a_step_back_in_time_is_counted_where_it_belongs() {
        let mut history = History::new(0);
        history.record(10_000, &tally(1, 1));
        history.record(9_990, &tally(2, 1));
        history.record(9_000, &tally(3, 1));
        assert_eq!(
            history
                .window(Duration::from_secs(5), 10_000)
                .latencies
                .count(),
            1
        );
        assert_eq!(
            history
                .window(Duration::from_secs(60), 10_000)
                .latencies
                .count(),
            2
        );
        assert_eq!(
            history
                .window(Duration::from_secs(7_200), 10_000)
                .latencies
                .count(),
            3
        );
    }

    #[test]
    fn a_day_of_one_busy_series_stays_small() {
        let mut history = History::new(0);
        let counts: Vec<(u16, u64)> = (0..40).map(|step| (2_000 + step, 100)).collect();
        let tally = Tally::new(&Delta {
            counts: &counts,
            ..Delta::default()
        });
        for second in 0..2 * DAY {
            history.record(second, &tally);
        }
        assert!(history.bytes() < 700_000, "{} bytes", history.bytes());
        assert_eq!(
            history
                .window(LONGEST_WINDOW, 2 * DAY - 1)
                .latencies
                .count(),
            4_000 * DAY
        );
    }

    proptest! {
        #[test]
        fn windows_hold_what_was_counted_in_them(
            mut records in vec((0..3 * DAY, 0_u16..5_120, 1_u64..100), 1..200),
            window in 1..DAY,
        ) {
            records.sort_unstable();
            let mut history = History::new(0);
            for &(second, slot, count) in &records {
                history.record(second, &tally(slot, count));
            }
            let now = records.iter().map(|record| record.0).max().unwrap_or(0);
            let held = history.window(Duration::from_secs(window), now).latencies.count();
            prop_assert!(held >= counted(&records, window, now));
            prop_assert!(held <= counted(&records, window + 60, now));
            let everything: u64 = records.iter().map(|record| record.2).sum();
            prop_assert_eq!(history.total().latencies.count(), everything);
        }
    }
}
