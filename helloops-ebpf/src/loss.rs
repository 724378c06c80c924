//! Counts what gets lost, per cause.

use aya_ebpf::{macros::map, maps::Array};
use helloops_ebpf::abi::{LOSSES, Loss};

use crate::atomic;

/// `BPF_F_MMAPABLE` (include/uapi/linux/bpf.h): user space may map the array's memory.
pub const MMAPABLE: u32 = 1 << 10;
/// `BPF_F_NO_PREALLOC`: elements are allocated when they are inserted.
pub const NO_PREALLOC: u32 = 1;

#[map]
static LOST: Array<u64> = Array::with_max_entries(LOSSES, 0);

/// Counts one loss.
#[inline(always)]
pub fn count(loss: Loss) {
    if let Some(counter) = LOST.get_ptr_mut(loss as u32) {
        // SAFETY: the pointer is a live, aligned element of an array map; elements are never freed.
        unsafe { atomic::add_u64(counter, 1) };
    }
}
