//! Atomic operations on map memory, which other CPUs and user space change at the same time.
//!
//! Rust's atomics offer no read-modify-write on this target, though BPF has had the instructions
//! since Linux 5.12 (Documentation/bpf/standardization/instruction-set.rst, "Atomic operations").
//!
//! All are sound to call with a pointer to a live, aligned element of an array map, which is what
//! the verifier proves of every pointer that reaches them.

use core::arch::asm;

/// `*word += value`
///
/// # Safety
///
/// `word` points to a live, aligned element of an array map.
#[inline(always)]
pub unsafe fn add_u64(word: *mut u64, value: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("lock *(u64 *)(r1 + 0) += r2", in("r1") word, in("r2") value) }
}

/// `*word += value`, and the value before
///
/// # Safety
///
/// As for [`add_u64`].
#[inline(always)]
pub unsafe fn fetch_add_u64(word: *mut u64, value: u64) -> u64 {
    let before;
    // SAFETY: as the caller promises.
    unsafe {
        asm!("r2 = atomic_fetch_add((u64 *)(r1 + 0), r2)",
            in("r1") word, inlateout("r2") value => before)
    }
    before
}

/// `*word |= bits`
///
/// # Safety
///
/// As for [`add_u64`].
#[inline(always)]
pub unsafe fn or_u64(word: *mut u64, bits: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("lock *(u64 *)(r1 + 0) |= r2", in("r1") word, in("r2") bits) }
}

/// `*word &= bits`
///
/// # Safety
///
/// As for [`add_u64`].
#[inline(always)]
pub unsafe fn and_u64(word: *mut u64, bits: u64) {
    // SAFETY: as the caller promises.
    unsafe { asm!("lock *(u64 *)(r1 + 0) &= r2", in("r1") word, in("r2") bits) }
}

/// `*word += 1`
///
/// # Safety
///
/// As for [`add_u64`].
#[inline(always)]
pub unsafe fn increment_u32(word: *mut u32) {
    // SAFETY: as the caller promises.
    unsafe { asm!("lock *(u32 *)(r1 + 0) += w2", in("r1") word, in("r2") 1u64) }
}

/// Writes `value` if the word is 0, and returns what was there before.
///
/// # Safety
///
/// As for [`add_u64`].
#[inline(always)]
pub unsafe fn claim_u32(word: *mut u32, value: u32) -> u32 {
    let before: u64;
    // SAFETY: as the caller promises.
    unsafe {
        asm!("w0 = cmpxchg32_32(r1 + 0, w0, w2)",
            in("r1") word, in("r2") u64::from(value), inlateout("r0") 0u64 => before)
    }
    before as u32
}
