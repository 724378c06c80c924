//! Reads kernel structures at the offsets that user space resolved from BTF.

use aya_ebpf::{Global, helpers::bpf_probe_read_kernel};
use helloops_ebpf::abi::{ABSENT, KernelLayout};

/// Set by user space before loading. Read-only for the programs, so that the verifier sees
/// constants and drops what an absent field makes unreachable.
#[unsafe(no_mangle)]
pub static LAYOUT: Global<KernelLayout> = Global::new(KernelLayout::UNKNOWN);

/// The offsets.
#[inline(always)]
pub fn layout() -> KernelLayout {
    LAYOUT.load()
}

/// Reads the field at `offset` of the structure at `base`; `None` if the kernel has no such field
/// or the address is not readable.
#[inline(always)]
pub fn read<T: Copy>(base: u64, offset: u32) -> Option<T> {
    if offset == ABSENT || base == 0 {
        return None;
    }
    // SAFETY: the helper checks the address, and T is a plain integer in all uses.
    unsafe { bpf_probe_read_kernel((base + u64::from(offset)) as *const T) }.ok()
}

/// When the task's process started, in ns of `CLOCK_BOOTTIME`; 0 if unknown. Its leader's start is
/// taken, for threads start later than their process.
#[inline(always)]
pub fn process_start(task: u64) -> u64 {
    let layout = layout();
    let leader = read::<u64>(task, layout.task_group_leader).unwrap_or(task);
    read(leader, layout.task_start_boottime).unwrap_or(0)
}
