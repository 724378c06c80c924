//! One fault, in the shape that the API and `--json` show.

use std::path::PathBuf;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::symbol::Frame;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A Rust or Go panic.
    Panic,
    /// An exception that nothing caught.
    Exception,
    /// `abort(3)`, or the C library ending the process for a broken invariant.
    Abort,
    /// A failed `assert(3)`.
    Assert,
    /// A signal that ended the process.
    Signal,
    /// The kernel's out-of-memory killer.
    Oom,
    /// The process ended with a non-zero code.
    Exit,
    /// A function that the user named as an error site.
    Error,
}

/// The language runtime that reported the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Rust's standard library.
    Rust,
    /// Go's runtime.
    Go,
    /// The C++ runtime (libstdc++).
    Cpp,
    /// The C library.
    C,
    /// CPython.
    Python,
    /// Node.js.
    Node,
    /// The Java virtual machine.
    Jvm,
    /// None was recognised.
    Unknown,
}

/// Where in the source the fault says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Location {
    /// The file as the compiler recorded it.
    pub file: PathBuf,
    /// The line, from 1.
    pub line: u32,
    /// The column, from 1, where the runtime knows it.
    pub column: Option<u32>,
}

/// The signal behind a fault.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    /// The signal's number.
    pub number: i32,
    /// Its name, such as `SIGSEGV`.
    pub name: String,
    /// Why it was sent (`si_code`), such as `SEGV_MAPERR` or `SI_USER`.
    pub code: Option<String>,
    /// The faulting address (`si_addr`), for the signals that carry one.
    pub address: Option<u64>,
    /// The process that sent it, where another one did.
    pub sender_pid: Option<u32>,
    /// That process's thread name (`comm`).
    pub sender_comm: Option<String>,
}

/// An argument of a function that the user named as an error site.
pub type Argument = String;

/// Whether something caught the fault and the program went on; `None` while it is not known.
pub type Caught = Option<bool>;

/// One fault of one process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// Unique within the instance that recorded it.
    pub id: String,
    /// What went wrong.
    pub kind: Kind,
    /// The runtime that reported it.
    pub runtime: Runtime,
    /// What the program, or the kernel, says about it.
    pub message: String,
    /// Where the program says it is.
    pub location: Option<Location>,
    /// The target's name.
    pub target: String,
    /// The process (tgid).
    pub pid: u32,
    /// The thread.
    pub tid: u32,
    /// The thread's name.
    pub comm: String,
    /// The executable, as the process names it.
    pub exe: PathBuf,
    /// When it happened.
    pub time: Timestamp,
    /// Equal for faults with the same cause: target, kind, build ID and top in-app frames.
    pub fingerprint: String,
    /// How many faults with this fingerprint there have been, this one included.
    pub count: u64,
    /// Whether something caught it.
    pub caught: Caught,
    /// The arguments of a function that the user named, as text.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub arguments: Vec<Argument>,
    /// The signal that caused it, or that ended the process because of it.
    pub signal: Option<Signal>,
    /// The exit code, where the process ended by itself because of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The stack, innermost frame first.
    pub stack: Vec<Frame>,
    /// Why the stack ends before its root, where it does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stack_truncated: Option<String>,
}
