//! The kernel/user ABI: every type that crosses the boundary, defined once.
//!
//! All types are `#[repr(C)]` with explicit padding, so that no byte of them is uninitialised, and
//! hold plain numbers and byte arrays only: any bit pattern is a valid value. Times are nanoseconds
//! of `CLOCK_MONOTONIC` where nothing else is said.

mod event;
mod layout;
mod selector;
mod syscall;

pub use event::{
    EventKind, ExecEvent, ExitEvent, FILENAME_BYTES, FaultEvent, ForkEvent, Header, MESSAGE_BYTES,
    Registers, STACK_CHUNK, STACK_CHUNKS_MAX, SiteArguments, SiteKind, StackEvent, TEXT_BYTES,
    TEXTS, Text, TextEvent,
};
pub use layout::{ABSENT, KernelLayout};
pub use selector::{
    COMM_BYTES, COMM_GLOBS, CommGlob, FLAG_AWAITS_EXEC, FLAG_COMPAT, FLAG_PER_PROCESS, GATE_WORDS,
    Inode, PID_LIMIT, SignalRecord, Watched,
};
pub use syscall::{
    CALL_NUMBERS, CALL_PLACES, COMPAT_NUMBER, Call, ERRNO_SLOTS, PAGES_PER_SERIES, Page, SCOPES,
    SLOTS_PER_PAGE, Series, bucket_slot,
};

/// Marks a type whose every byte is initialised and whose every bit pattern is valid.
///
/// # Safety
///
/// The type must be `#[repr(C)]` without implicit padding, and hold only integers, arrays of them
/// and other `Plain` types.
pub unsafe trait Plain: Copy + 'static {}

/// What can get lost, and is then counted in the `LOST` map under this index.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// A fault event found no room in the ring buffer.
    Fault = 0,
    /// A piece of a stack found no room in the ring buffer.
    Stack = 1,
    /// A process's exec, fork or exit event found no room in the ring buffer.
    Process = 2,
    /// A latency was not counted, because the histogram memory is used up.
    Histogram = 3,
    /// A thread's call was not timed, because the table of calls in flight is full.
    Call = 4,
    /// A process was not watched, because the table of watched processes is full.
    Target = 5,
    /// The message of a fault that was sent before it had one found no room in the ring buffer.
    Message = 6,
}

/// How many kinds of [`Loss`] there are.
pub const LOSSES: u32 = 7;

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an array of integers.
unsafe impl<const N: usize> Plain for [u8; N] {}
