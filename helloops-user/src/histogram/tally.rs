//! What one system call did in one stretch of time, and the few bytes it is stored in.

use std::collections::BTreeMap;

use super::bucket;
use super::distribution::{Distribution, merge_sorted};

/// What a drain of the kernel's counters adds to one series.
#[derive(Debug, Clone, Copy, Default)]
pub struct Delta<'a> {
    /// Calls that returned, by latency slot (see [`super::bucket`]).
    pub counts: &'a [(u16, u64)],
    /// Those of them that failed, by (positive) errno.
    pub errors: &'a [(i32, u64)],
    /// Calls that never returned, because their thread ended inside them.
    pub unfinished: u64,
}

/// Everything that is counted for one series over one stretch of time. Tallies merge exactly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Calls that returned, by latency.
    pub latencies: Distribution,
    /// Those of them that failed: (positive) errno and count, ascending by errno.
    pub errors: Vec<(i32, u64)>,
    /// Calls that never returned, because their thread ended inside them.
    pub unfinished: u64,
}

impl Tally {
    /// The tally of one drain.
    pub fn new(delta: &Delta<'_>) -> Self {
        let mut errors: Vec<(i32, u64)> = Vec::with_capacity(delta.errors.len());
        for &error in delta.errors.iter().filter(|&&(_, count)| count > 0) {
            errors = merge_sorted(&errors, &[error]);
        }
        Self {
            latencies: Distribution::new(delta.counts),
            errors,
            unfinished: delta.unfinished,
        }
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.latencies.merge(&other.latencies);
        if !other.errors.is_empty() {
            self.errors = merge_sorted(&self.errors, &other.errors);
        }
        self.unfinished = self.unfinished.saturating_add(other.unfinished);
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.latencies.is_empty() && self.errors.is_empty() && self.unfinished == 0
    }
}

/// A tally in LEB128 numbers: unfinished calls, the number of errnos, each errno's distance from
/// the one before and its count, then each slot's distance from the one before and its count.
/// A slot with a few calls takes two or three bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct PackedTally(Box<[u8]>);

impl PackedTally {
    pub(super) fn new(tally: &Tally) -> Self {
        let mut bytes = Vec::with_capacity(2 + 3 * tally.latencies.entries().len());
        put(&mut bytes, tally.unfinished);
        put(&mut bytes, tally.errors.len() as u64);
        let mut before = 0;
        for &(errno, count) in &tally.errors {
            // Wrapping, so that negative numbers survive as well.
            put(
                &mut bytes,
                u64::from(errno.wrapping_sub(before).cast_unsigned()),
            );
            put(&mut bytes, count);
            before = errno;
        }
        let mut before = 0;
        for &(slot, count) in tally.latencies.entries() {
            put(&mut bytes, u64::from(slot - before));
            put(&mut bytes, count);
            before = slot;
        }
        Self(bytes.into_boxed_slice())
    }

    pub(super) fn unpack(&self) -> Tally {
        let (mut errors, mut counts) = (Vec::new(), Vec::new());
        let unfinished = self.read(
            |errno, count| errors.push((errno, count)),
            |slot, count| counts.push((slot, count)),
        );
        Tally {
            latencies: Distribution::new(&counts),
            errors,
            unfinished,
        }
    }

    /// Passes on each errno and each slot with its count, and returns the unfinished calls.
    fn read(&self, mut error: impl FnMut(i32, u64), mut slot: impl FnMut(u16, u64)) -> u64 {
        let mut rest = &self.0[..];
        let unfinished = take(&mut rest).unwrap_or(0);
        let errnos = take(&mut rest).unwrap_or(0);
        let mut errno = 0_i32;
        for _ in 0..errnos {
            let (Some(gap), Some(count)) = (take(&mut rest), take(&mut rest)) else {
                break;
            };
            errno = errno.wrapping_add((gap as u32).cast_signed());
            error(errno, count);
        }
        let mut number = 0_u16;
        while let (Some(gap), Some(count)) = (take(&mut rest), take(&mut rest)) {
            number = number.saturating_add(gap as u16);
            slot(number, count);
        }
        unfinished
    }

    /// The bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.0.len()
    }
}

/// Adds up many tallies, in time that does not grow with what was added before.
#[derive(Debug)]
pub(super) struct Sum {
    /// By slot.
    counts: Vec<u64>,
    errors: BTreeMap<i32, u64>,
    unfinished: u64,
}

impl Sum {
    pub(super) fn new() -> Self {
        Self {
            counts: vec![0; usize::from(bucket::SLOTS)],
            errors: BTreeMap::new(),
            unfinished: 0,
        }
    }

    pub(super) fn add(&mut self, tally: &PackedTally) {
        let (counts, errors) = (&mut self.counts, &mut self.errors);
        let unfinished = tally.read(
            |errno, count| {
                let sum = errors.entry(errno).or_insert(0);
                *sum = sum.saturating_add(count);
            },
            |slot, count| {
                if let Some(sum) = counts.get_mut(usize::from(slot)) {
                    *sum = sum.saturating_add(count);
                }
            },
        );
        self.unfinished = self.unfinished.saturating_add(unfinished);
    }

    pub(super) fn into_tally(self) -> Tally {
        let counts: Vec<(u16, u64)> = (0..).zip(self.counts).collect();
        Tally {
            latencies: Distribution::new(&counts),
            errors: self.errors.into_iter().collect(),
            unfinished: self.unfinished,
        }
    }
}

fn put(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn take(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..u64::BITS).step_by(7) {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use crate::histogram::bucket::SLOTS;

    proptest! {
        #[test]
        fn packing_loses_nothing(
            counts in vec((0..SLOTS, any::<u64>()), 0..60),
            errors in vec((any::<i32>(), any::<u64>()), 0..10),
            unfinished: u64,
        ) {
            let tally = Tally::new(&Delta { counts: &counts, errors: &errors, unfinished });
            prop_assert_eq!(PackedTally::new(&tally).unpack(), tally);
        }
    }

    proptest! {
        #[test]
        fn a_sum_is_what_merging_gives(
            drains in vec((vec((0..SLOTS, 0_u64..1_000), 0..20), vec((1..40, 1_u64..9), 0..4)), 0..8),
        ) {
            let (mut sum, mut merged) = (Sum::new(), Tally::default());
            for (counts, errors) in &drains {
                let tally = Tally::new(&Delta { counts, errors, unfinished: 1 });
                sum.add(&PackedTally::new(&tally));
                merged.merge(&tally);
            }
            prop_assert_eq!(sum.into_tally(), merged);
        }
    }

    #[test]
    fn a_slot_takes_about_three_bytes() {
        let counts: Vec<(u16, u64)> = (0..100).map(|step| (1_000 + step * 3, 40)).collect();
        let tally = Tally::new(&Delta {
            counts: &counts,
            ..Delta::default()
        });
        assert!(PackedTally::new(&tally).bytes() <= 300);
    }
}
