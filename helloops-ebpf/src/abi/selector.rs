//! Which processes are watched, and how new ones are recognised at exec.

use super::Plain;

/// The kernel's upper limit of process ids (`PID_MAX_LIMIT`, include/linux/threads.h).
pub const PID_LIMIT: u32 = 4 * 1024 * 1024;
/// 64-bit words of the gate: one bit per possible process id.
pub const GATE_WORDS: u32 = PID_LIMIT / 64;
/// Bytes of a thread's name, its NUL included (`TASK_COMM_LEN`).
pub const COMM_BYTES: usize = 16;
/// How many name patterns can be watched at once.
pub const COMM_GLOBS: u32 = 32;

/// The process is to be watched from its next exec on; until then it is not.
pub const FLAG_AWAITS_EXEC: u32 = 1;
/// The process runs 32-bit code, whose system calls are numbered differently.
pub const FLAG_COMPAT: u32 = 2;
/// Each process of the target has a histogram scope of its own.
pub const FLAG_PER_PROCESS: u32 = 4;

/// A watched process; the value in `TARGETS`, keyed by tgid.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Watched {
    /// The target it belongs to.
    pub target: u32,
    /// The histogram scope that its calls are counted in.
    pub scope: u32,
    /// Bits of `FLAG_*`.
    pub flags: u32,
    /// Padding.
    pub reserved: u32,
    /// When it started, in ns of `CLOCK_BOOTTIME`.
    pub start: u64,
}

/// A file, as the kernel tells files apart.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Inode {
    /// The inode number.
    pub number: u64,
    /// The device as the kernel encodes it internally (`MKDEV`: `major << 20 | minor`,
    /// include/linux/kdev_t.h).
    pub device: u32,
    /// Padding.
    pub reserved: u32,
}

/// A pattern for thread names, compiled to a bit-parallel automaton: state `i` is alive when the
/// first `i` tokens of the pattern have matched. A literal, `?` or `[…]` token is one state, and a
/// `*` keeps the state before it alive. The NUL that ends a name is the last token, and keeps its
/// own state alive through the padding; so there is no branch on the way, which the verifier would
/// follow both ways at each byte.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CommGlob {
    /// Per byte value: the states that may be entered on it.
    pub enter: [u32; 256],
    /// The states that stay alive on every byte.
    pub stay: u32,
    /// The state that means a match; 0 when this pattern is unused.
    pub accept: u32,
    /// The target to watch.
    pub target: u32,
    /// Its histogram scope.
    pub scope: u32,
    /// Bits of `FLAG_*`.
    pub flags: u32,
    /// Padding.
    pub reserved: u32,
}

impl CommGlob {
    /// Whether the pattern matches a thread name, which the kernel pads with NULs.
    #[inline(always)]
    pub fn matches(&self, comm: &[u8; COMM_BYTES]) -> bool {
        let mut states = 1;
        for byte in comm {
            states = ((states << 1) & self.enter[*byte as usize]) | (states & self.stay);
        }
        states & self.accept != 0
    }
}

/// A signal as it was sent.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SignalRecord {
    /// When it was sent.
    pub time: u64,
    /// The faulting address (`si_addr`), for the signals that carry one.
    pub address: u64,
    /// Its number.
    pub number: u32,
    /// `si_code`: above 0 when the kernel sent it, 0 or below when a process did.
    pub code: i32,
    /// The process that sent it; 0 when the kernel did.
    pub sender_tgid: u32,
    /// The thread that it was sent to or raised by.
    pub tid: u32,
    /// The sender's thread name.
    pub sender_comm: [u8; COMM_BYTES],
    /// Whether the sender is the process itself.
    pub from_self: u32,
    /// Padding.
    pub reserved: u32,
}

impl SignalRecord {
    /// No signal.
    pub const NONE: Self = Self {
        time: 0,
        address: 0,
        number: 0,
        code: 0,
        sender_tgid: 0,
        tid: 0,
        sender_comm: [0; COMM_BYTES],
        from_self: 0,
        reserved: 0,
    };
}

// SAFETY: `repr(C)`, integers and arrays of integers, padding explicit (checked below).
unsafe impl Plain for Watched {}
// SAFETY: as above.
unsafe impl Plain for Inode {}
// SAFETY: as above.
unsafe impl Plain for CommGlob {}
// SAFETY: as above.
unsafe impl Plain for SignalRecord {}

const _: () = {
    assert!(size_of::<Watched>() == 24);
    assert!(size_of::<Inode>() == 16);
    assert!(size_of::<CommGlob>() == 1024 + 24);
    assert!(size_of::<SignalRecord>() == 56);
};
