//! System-call latencies: calls in flight, and log-linear buckets.

use super::Plain;

/// Histogram scopes: each target has one, and each process where a target asks for it.
pub const SCOPES: u32 = 256;
/// Call numbers per scope; numbers from [`COMPAT_NUMBER`] on are those of 32-bit code.
pub const CALL_NUMBERS: u32 = 1024;
/// Added to the number of a call made by 32-bit code.
pub const COMPAT_NUMBER: u32 = 512;

/// Buckets in a page: the steps of one power of two.
pub const SLOTS_PER_PAGE: usize = 128;
/// Pages that cover all latencies from 0 to 2^46 - 1 ns, which is 19 hours.
pub const PAGES_PER_SERIES: usize = 40;
/// Failed calls are counted per errno below this (Linux uses 1 to 133); others at index 0.
pub const ERRNO_SLOTS: usize = 136;

/// The bucket of a latency, as page and index in the page.
///
/// Below 256 ns each nanosecond has a bucket (pages 0 and 1); above, each power of two is divided
/// into 128 steps. These are the buckets of an hdrhistogram with two significant digits that starts
/// at 1, so the width of a bucket is at most 1/128 of its values. Longer latencies count in the
/// last bucket.
#[inline(always)]
pub fn bucket_slot(nanoseconds: u64) -> (u32, u32) {
    if nanoseconds < 256 {
        return ((nanoseconds >> 7) as u32, (nanoseconds & 127) as u32);
    }
    let exponent = floor_log2(nanoseconds);
    if exponent > 45 {
        return (PAGES_PER_SERIES as u32 - 1, 127);
    }
    (exponent - 6, ((nanoseconds >> (exponent - 7)) & 127) as u32)
}

/// The position of the highest bit that is set; 0 for 0.
#[inline(always)]
fn floor_log2(mut value: u64) -> u32 {
    let mut log = 0;
    if value >> 32 != 0 {
        value >>= 32;
        log += 32;
    }
    if value >> 16 != 0 {
        value >>= 16;
        log += 16;
    }
    if value >> 8 != 0 {
        value >>= 8;
        log += 8;
    }
    if value >> 4 != 0 {
        value >>= 4;
        log += 4;
    }
    if value >> 2 != 0 {
        value >>= 2;
        log += 2;
    }
    log + (value >> 1) as u32
}

/// Places for threads' calls; a power of two.
pub const CALL_PLACES: u32 = 65536;

/// A thread's current call.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// When it was entered; 0 between calls.
    pub since: u64,
    /// When it came back to be restarted; 0 otherwise.
    pub interrupted: u64,
    /// Its number.
    pub number: u32,
    /// The histogram scope of the process.
    pub scope: u32,
    /// Added to the call's number: 0, or [`COMPAT_NUMBER`] in 32-bit code.
    pub number_base: u32,
    /// The thread; 0 in a place that is free.
    pub tid: u32,
}

/// The counters of one call number in one scope. User space takes them by swapping in zeros.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Series {
    /// Bit `n`: page `n` has counts that user space has not taken. Bit 63: an error or unfinished
    /// count has.
    pub dirty: u64,
    /// 1 + the scope and call number (`scope * CALL_NUMBERS + number`); 0 when unused.
    pub key: u32,
    /// Calls that never returned.
    pub unfinished: u32,
    /// Per page: its index in `PAGES`, or 0 when it has none.
    pub pages: [u32; PAGES_PER_SERIES],
    /// Failed calls per errno.
    pub errors: [u32; ERRNO_SLOTS],
}

/// Counts of one power of two.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Page {
    /// Calls per bucket.
    pub counts: [u32; SLOTS_PER_PAGE],
}

// SAFETY: `repr(C)`, integers and arrays of integers, no padding (checked below).
unsafe impl Plain for Call {}
// SAFETY: as above.
unsafe impl Plain for Series {}
// SAFETY: as above.
unsafe impl Plain for Page {}

const _: () = {
    assert!(size_of::<Call>() == 32);
    assert!(size_of::<Series>() == 16 + 160 + 544);
    assert!(size_of::<Page>() == 512);
};

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_contiguous_and_at_most_a_128th_wide() {
        let slot = |v| {
            let (page, index) = bucket_slot(v);
            page * 128 + index
        };
        assert_eq!(slot(0), 0);
        assert_eq!(slot(255), 255);
        assert_eq!(slot(256), 256);
        assert_eq!(slot(257), 256);
        assert_eq!(slot(258), 257);
        assert_eq!(slot(u64::MAX), 40 * 128 - 1);
        let mut previous = 0;
        let mut value: u64 = 1;
        while value < 1 << 45 {
            let now = slot(value);
            assert!(now >= previous && now - previous <= 2, "{value}");
            previous = now;
            value += (value / 300).max(1);
        }
    }
}
