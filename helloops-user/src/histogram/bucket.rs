//! The numbering of latency buckets, which the kernel side and every stored histogram share.
//!
//! A latency in nanoseconds belongs to one of [`SLOTS`] slots, in pages of 128: the values below
//! 256 have a slot each, and every power of two from there on is split into 128 equal steps. These
//! are exactly the ranges of an HdrHistogram with two significant digits and a lowest value of 1,
//! so a slot is never wider than 1/128 of its values.

use crate::kernel::abi::{PAGES_PER_SERIES, SLOTS_PER_PAGE, bucket_slot};

/// Slots in a page: the steps in each power of two from 2^8 up.
pub const PAGE_SLOTS: u16 = SLOTS_PER_PAGE as u16;

/// Pages of slots.
pub const PAGES: u16 = PAGES_PER_SERIES as u16;

/// All slots.
pub const SLOTS: u16 = PAGES * PAGE_SLOTS;

/// The highest latency that has a slot of its own, in nanoseconds (19.5 hours). Longer ones are
/// counted in its slot.
pub const HIGHEST_LATENCY: u64 = (1 << 46) - 1;

/// The slot of a latency of `nanoseconds`, by the kernel side's own reckoning.
pub fn slot_of(nanoseconds: u64) -> u16 {
    let (page, index) = bucket_slot(nanoseconds);
    page as u16 * PAGE_SLOTS + index as u16
}

/// The lowest latency in a slot, in nanoseconds. Numbers beyond the last slot are taken for it.
pub fn lowest(slot: u16) -> u64 {
    let slot = slot.min(SLOTS - 1);
    if slot < 256 {
        return u64::from(slot);
    }
    let (page, index) = (slot / PAGE_SLOTS, slot % PAGE_SLOTS);
    u64::from(PAGE_SLOTS + index) << (page - 1)
}

/// The highest latency in a slot, in nanoseconds. Numbers beyond the last slot are taken for it.
pub fn highest(slot: u16) -> u64 {
    let slot = slot.min(SLOTS - 1);
    let page = slot / PAGE_SLOTS;
    lowest(slot) + (1 << page.saturating_sub(1)) - 1
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use hdrhistogram::Histogram;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn slots_follow_each_other_without_gaps() {
        for slot in 0..SLOTS {
            assert_eq!(slot_of(lowest(slot)), slot);
            assert_eq!(slot_of(highest(slot)), slot);
            if slot + 1 < SLOTS {
                assert_eq!(highest(slot) + 1, lowest(slot + 1));
            }
        }
        assert_eq!(highest(SLOTS - 1), HIGHEST_LATENCY);
        assert_eq!(slot_of(u64::MAX), SLOTS - 1);
    }

    proptest! {
        #[test]
        fn slots_are_hdrhistograms_ranges(power in 0_u32..46, fraction in any::<u64>()) {
            let hdr = Histogram::<u64>::new_with_bounds(1, HIGHEST_LATENCY, 2).unwrap();
            let value = (1 << power) + fraction % (1 << power);
            let slot = slot_of(value);
            prop_assert_eq!(lowest(slot), hdr.lowest_equivalent(value));
            prop_assert_eq!(highest(slot), hdr.highest_equivalent(value));
        }
    }
}
