//! Events: the records in the ring buffer. Each begins with a [`Header`] that names its kind.

use super::{COMM_BYTES, Plain};

/// Which record follows the [`Header`].
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// [`ExecEvent`]
    Exec = 1,
    /// [`ForkEvent`]
    Fork = 2,
    /// [`ExitEvent`]
    Exit = 3,
    /// [`FaultEvent`]
    Fault = 4,
    /// [`TextEvent`]
    Text = 5,
    /// [`StackEvent`]
    Stack = 6,
}

/// The start of every event.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// An [`EventKind`].
    pub kind: u32,
    /// The target that the process belongs to.
    pub target: u32,
    /// The process, as the initial pid namespace numbers it.
    pub tgid: u32,
    /// The thread.
    pub tid: u32,
    /// When.
    pub time: u64,
    /// When the process started, in ns of `CLOCK_BOOTTIME`; with the tgid it names the process for
    /// ever. 0 where the kernel's type information is missing.
    pub start: u64,
}

/// Bytes kept of a path given to `execve(2)`, its NUL included.
pub const FILENAME_BYTES: usize = 256;

/// A process of a target runs a new program.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExecEvent {
    /// Whose.
    pub header: Header,
    /// The executable file.
    pub file: super::Inode,
    /// The histogram scope that its calls are counted in.
    pub scope: u32,
    /// Bits of `FLAG_*`.
    pub flags: u32,
    /// The thread's new name.
    pub comm: [u8; COMM_BYTES],
    /// The path as given to `execve(2)`, NUL-terminated, cut off if longer.
    pub filename: [u8; FILENAME_BYTES],
}

/// A process of a target has a new child process, which is watched as well.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ForkEvent {
    /// The child.
    pub header: Header,
    /// The parent.
    pub parent_tgid: u32,
    /// The child's histogram scope.
    pub scope: u32,
}

/// A process of a target ended: its last thread is gone.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ExitEvent {
    /// Whose; `tid` is the thread that ended last.
    pub header: Header,
    /// The status as `wait(2)` gives it: `code << 8`, or the signal number, with 0x80 for a core.
    pub status: u32,
    /// Its histogram scope.
    pub scope: u32,
    /// Whether the out-of-memory killer chose it.
    pub oom: u32,
    /// Whether `signal` holds the signal that ended it.
    pub has_signal: u32,
    /// The signal that ended it, as it was sent.
    pub signal: super::SignalRecord,
    /// The name of the thread that ended last.
    pub comm: [u8; COMM_BYTES],
}

/// What a probed address means; the upper half of a probe's attach cookie.
#[repr(u32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SiteKind {
    /// Rust: `std::panicking::panic_with_hook`, at the start of nearly every panic.
    RustPanicHook = 1,
    /// Rust: `__rustc::rust_panic`, when the hook has run and the message is formatted.
    RustPanic = 2,
    /// Rust: `alloc::alloc::handle_alloc_error`.
    RustAllocError = 3,
    /// C++: `std::terminate`.
    CppTerminate = 4,
    /// C: `abort`.
    Abort = 5,
    /// C: `__assert_fail`.
    AssertFail = 6,
    /// C: `__stack_chk_fail`.
    StackCheckFail = 7,
    /// C: `__fortify_fail`.
    FortifyFail = 8,
    /// A function that the user named.
    User = 9,
    /// Not a site: a fatal signal at its delivery.
    FatalSignal = 10,
}

/// The general-purpose registers of x86-64 user code.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct Registers {
    pub ax: u64,
    pub bx: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub bp: u64,
    pub sp: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
    pub ip: u64,
    pub flags: u64,
}

/// Texts that one fault event holds.
pub const TEXTS: usize = 6;
/// Bytes of each.
pub const TEXT_BYTES: usize = 256;

/// A text read from the process.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// How many of `bytes` hold text; [`super::ABSENT`] when there is none or it was not readable.
    pub length: u32,
    /// 1 when the text in the process is longer.
    pub truncated: u32,
    /// The text, without a NUL.
    pub bytes: [u8; TEXT_BYTES],
}

/// A site was hit, or a fatal signal is about to end a process. What the fields hold depends on
/// the [`SiteKind`]:
///
/// | kind | `texts` | `numbers` |
/// |---|---|---|
/// | `RustPanicHook` | 0 source file, 1 message if it is a literal | 0 line, 1 column |
/// | `RustPanic` | 1 message | |
/// | `RustAllocError` | | 0 alignment, 1 size |
/// | `CppTerminate`, `Abort` | 0 type name (mangled), 1 the C string behind the object's second word, 2 behind its first word, 3 the bytes behind its first word | 0 whether an exception was found, 1..2 the object's first words |
/// | `AssertFail` | 0 expression, 1 file, 2 function | 0 line |
/// | `FortifyFail` | 0 message | |
/// | `User` | n: argument n, if it is a text | n: argument n's register |
/// | `FatalSignal` | | see `signal` |
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct FaultEvent {
    /// Whose.
    pub header: Header,
    /// Numbers this fault; its [`TextEvent`] and [`StackEvent`]s carry the same number.
    pub id: u64,
    /// The probe's attach cookie: [`SiteKind`] in the upper half, site number in the lower.
    pub cookie: u64,
    /// The registers at the site.
    pub registers: Registers,
    /// How many [`StackEvent`]s follow at most.
    pub stack_chunks: u32,
    /// Padding.
    pub reserved: u32,
    /// The thread's name.
    pub comm: [u8; COMM_BYTES],
    /// See the table.
    pub numbers: [u64; TEXTS],
    /// The signal, for `FatalSignal`.
    pub signal: super::SignalRecord,
    /// See the table.
    pub texts: [Text; TEXTS],
}

/// Bytes of a late message.
pub const MESSAGE_BYTES: usize = 1024;

/// The message of a fault that was reported before it had one.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct TextEvent {
    /// Whose.
    pub header: Header,
    /// The fault's number.
    pub id: u64,
    /// How many of `bytes` hold text.
    pub length: u32,
    /// 1 when the message in the process is longer.
    pub truncated: u32,
    /// The message.
    pub bytes: [u8; MESSAGE_BYTES],
}

/// Bytes of one piece of a stack: a page.
pub const STACK_CHUNK: usize = 4096;
/// The most pieces that are taken of one stack.
pub const STACK_CHUNKS_MAX: u32 = 64;

/// A piece of the faulting thread's stack.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct StackEvent {
    /// Whose.
    pub header: Header,
    /// The fault's number.
    pub id: u64,
    /// The address of the first byte.
    pub address: u64,
    /// How many of `bytes` were read.
    pub length: u32,
    /// 1 in the last piece of the stack.
    pub last: u32,
    /// The memory.
    pub bytes: [u8; STACK_CHUNK],
}

/// How the arguments of a user's site are read; one entry per site in the `SITES` map.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct SiteArguments {
    /// Per argument: 0 none, 1 a number, 2 a NUL-terminated text, 3 pointer and length in two
    /// registers.
    pub kinds: [u8; TEXTS],
    /// Padding.
    pub reserved: [u8; 2],
}

// SAFETY: `repr(C)`, integers and arrays of integers, padding explicit (checked below).
unsafe impl Plain for ExecEvent {}
// SAFETY: as above.
unsafe impl Plain for ForkEvent {}
// SAFETY: as above.
unsafe impl Plain for ExitEvent {}
// SAFETY: as above.
unsafe impl Plain for FaultEvent {}
// SAFETY: as above.
unsafe impl Plain for TextEvent {}
// SAFETY: as above.
unsafe impl Plain for StackEvent {}
// SAFETY: as above.
unsafe impl Plain for Header {}
// SAFETY: as above.
unsafe impl Plain for SiteArguments {}

const _: () = {
    assert!(size_of::<Header>() == 32);
    assert!(size_of::<ExecEvent>() == 32 + 16 + 8 + 16 + 256);
    assert!(size_of::<ForkEvent>() == 40);
    assert!(size_of::<ExitEvent>() == 32 + 16 + 56 + 16);
    assert!(size_of::<Registers>() == 18 * 8);
    assert!(size_of::<Text>() == 264);
    assert!(size_of::<FaultEvent>() == 32 + 16 + 144 + 8 + 16 + 48 + 56 + 6 * 264);
    assert!(size_of::<TextEvent>() == 32 + 16 + 1024);
    assert!(size_of::<StackEvent>() == 32 + 24 + 4096);
    assert!(align_of::<FaultEvent>() == 8 && align_of::<StackEvent>() == 8);
};
