//! Counts by latency slot: what the kernel drains, what windows merge, and what quantiles are read
//! from.

use hdrhistogram::{CreationError, Histogram};

use super::bucket;

/// How often each latency slot was hit; only the slots that were hit take space. Distributions
/// merge exactly: the result is what would have been counted together in the first place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Slot and count, ascending by slot, no count zero.
    entries: Vec<(u16, u64)>,
}

impl Distribution {
    /// Counts by slot, in any order; slots may repeat. See [`bucket::slot_of`] for their numbers.
    pub fn new(counts: &[(u16, u64)]) -> Self {
        let mut entries: Vec<(u16, u64)> = counts
            .iter()
            .filter(|&&(_, count)| count > 0)
            .map(|&(slot, count)| (slot.min(bucket::SLOTS - 1), count))
            .collect();
        if !entries.is_sorted_by_key(|&(slot, _)| slot) {
            entries.sort_unstable_by_key(|&(slot, _)| slot);
        }
        entries.dedup_by(|later, earlier| {
            let same = later.0 == earlier.0;
            if same {
                earlier.1 = earlier.1.saturating_add(later.1);
            }
            same
        });
        Self { entries }
    }

    /// Adds all that `other` counted.
    pub fn merge(&mut self, other: &Self) {
        if self.entries.is_empty() {
            self.entries.clone_from(&other.entries);
        } else if !other.entries.is_empty() {
            self.entries = merge_sorted(&self.entries, &other.entries);
        }
    }

    /// The slots that were hit, ascending, and how often.
    pub fn entries(&self) -> &[(u16, u64)] {
        &self.entries
    }

    /// Whether nothing was counted.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many latencies were counted.
    pub fn count(&self) -> u64 {
        self.entries
            .iter()
            .fold(0, |sum, &(_, count)| sum.saturating_add(count))
    }

    /// The lowest latency that the lowest slot stands for, in nanoseconds.
    pub fn min(&self) -> Option<u64> {
        self.entries.first().map(|&(slot, _)| bucket::lowest(slot))
    }

    /// The highest latency that the highest slot stands for, in nanoseconds.
    pub fn max(&self) -> Option<u64> {
        self.entries.last().map(|&(slot, _)| bucket::highest(slot))
    }

    /// All latencies together, in nanoseconds, each taken as the middle of its slot.
    pub fn sum(&self) -> f64 {
        self.entries
            .iter()
            .map(|&(slot, count)| middle(slot) * count as f64)
            .sum()
    }

    /// The mean in nanoseconds, each latency taken as the middle of its slot.
    pub fn mean(&self) -> Option<f64> {
        (!self.is_empty()).then(|| self.sum() / self.count() as f64)
    }

    /// The latency in nanoseconds that the fraction `quantile` (0 to 1) of all latencies does not
    /// exceed: the highest value of the slot that holds it.
    pub fn quantile(&self, quantile: f64) -> Option<u64> {
        let wanted = (quantile.clamp(0.0, 1.0) * self.count() as f64)
            .ceil()
            .max(1.0) as u64;
        let mut seen = 0_u64;
        for &(slot, count) in &self.entries {
            seen = seen.saturating_add(count);
            if seen >= wanted {
                return Some(bucket::highest(slot));
            }
        }
        self.max()
    }

    /// The ranges that were hit, ascending: lowest value, highest value (nanoseconds), count.
    pub fn ranges(&self) -> Vec<(u64, u64, u64)> {
        let range = |&(slot, count)| (bucket::lowest(slot), bucket::highest(slot), count);
        self.entries.iter().map(range).collect()
    }

    /// The same counts as an HdrHistogram with two significant digits, whose ranges are the slots.
    ///
    /// # Errors
    /// None is known: hdrhistogram takes these bounds.
    pub fn to_hdrhistogram(&self) -> Result<Histogram<u64>, CreationError> {
        let mut histogram = Histogram::new_with_bounds(1, bucket::HIGHEST_LATENCY, 2)?;
        for &(slot, count) in &self.entries {
            histogram.saturating_record_n(bucket::lowest(slot), count);
        }
        Ok(histogram)
    }
}

/// Adds two lists of counts that are sorted by what they count.
pub(super) fn merge_sorted<K: Ord + Copy>(left: &[(K, u64)], right: &[(K, u64)]) -> Vec<(K, u64)> {
    let mut merged = Vec::with_capacity(left.len() + right.len());
    let (mut left, mut right) = (left.iter().peekable(), right.iter().peekable());
    loop {
        match (left.peek(), right.peek()) {
            (Some(&&(low, count)), Some(&&(other, more))) if low == other => {
                merged.push((low, count.saturating_add(more)));
                left.next();
                right.next();
            }
            (Some(&&entry), Some(&&other)) if entry.0 < other.0 => {
                merged.push(entry);
                left.next();
            }
            (_, Some(&&entry)) => {
                merged.push(entry);
                right.next();
            }
            (Some(&&entry), None) => {
                merged.push(entry);
                left.next();
            }
            (None, None) => return merged,
        }
    }
}

fn middle(slot: u16) -> f64 {
    (bucket::lowest(slot) + bucket::highest(slot)) as f64 / 2.0
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn counts() -> impl Strategy<Value = Vec<(u16, u64)>> {
        vec((0..bucket::SLOTS, 1_u64..1_000_000), 0..60)
    }

    #[test]
    fn an_empty_distribution_has_no_values() {
        let empty = Distribution::default();
        assert_eq!(
            (
                empty.count(),
                empty.min(),
                empty.max(),
                empty.quantile(0.5),
                empty.mean()
            ),
            (0, None, None, None, None)
        );
    }

    #[test]
    fn a_slot_number_beyond_the_last_counts_in_the_last() {
        let distribution = Distribution::new(&[(u16::MAX, 2), (bucket::SLOTS - 1, 1)]);
        assert_eq!(distribution.entries(), [(bucket::SLOTS - 1, 3)]);
    }

    proptest! {
        #[test]
        fn merging_is_counting_together(left in counts(), right in counts(), third in counts()) {
            let together = Distribution::new(&[left.clone(), right.clone(), third.clone()].concat());
            let [left, right, third] = [left, right, third].map(|counts| Distribution::new(&counts));

            let mut from_the_left = left.clone();
            from_the_left.merge(&right);
            from_the_left.merge(&third);
            let mut from_the_right = third;
            from_the_right.merge(&right);
            from_the_right.merge(&left);

            prop_assert_eq!(&from_the_left, &together);
            prop_assert_eq!(&from_the_right, &together);
        }

        #[test]
        fn values_are_those_of_hdrhistogram(counts in counts(), quantile in 0.0_f64..=1.0) {
            let distribution = Distribution::new(&counts);
            let hdr = distribution.to_hdrhistogram().unwrap();
            prop_assert_eq!(distribution.count(), hdr.len());
            if !distribution.is_empty() {
                // hdrhistogram answers the quantile 0 with the lowest value of its slot.
                if quantile > 0.0 {
                    prop_assert_eq!(distribution.quantile(quantile), Some(hdr.value_at_quantile(quantile)));
                }
                prop_assert_eq!(distribution.max(), Some(hdr.max()));
                prop_assert_eq!(distribution.min(), Some(hdr.min()));
                let mean = distribution.mean().unwrap();
                prop_assert!((mean - hdr.mean()).abs() <= hdr.mean() / 128.0 + 1.0);
            }
        }
    }
}
