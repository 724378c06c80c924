//! The least that any watcher of all system calls can cost: a raw tracepoint on their entry and
//! one on their exit, each with a program that does nothing.
//!
//! Loaded by bpf(2) itself: the two instructions need no loader, and Debian 12's bpftrace cannot
//! parse `rawtracepoint`.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

/// Both programs, attached until this is dropped.
#[derive(Debug)]
pub struct EmptyPair {
    _entry: OwnedFd,
    _exit: OwnedFd,
}

impl EmptyPair {
    /// Attaches both.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn attach() -> Result<Self> {
        let program = load().context("the kernel does not load an empty BPF program")?;
        let attach = |name: &CStr| {
            open(name, &program)
                .with_context(|| format!("cannot attach to raw tracepoint {name:?}"))
        };
        Ok(Self {
            _entry: attach(c"sys_enter")?,
            _exit: attach(c"sys_exit")?,
        })
    }
}

// Numbers and layouts from include/uapi/linux/bpf.h.
const BPF_PROG_LOAD: libc::c_long = 5;
const BPF_RAW_TRACEPOINT_OPEN: libc::c_long = 17;
const BPF_PROG_TYPE_RAW_TRACEPOINT: u32 = 17;

/// `struct bpf_insn`: opcode, registers, offset and immediate.
#[repr(C)]
struct Instruction(u8, u8, i16, i32);

/// `r0 = 0; exit`.
static NOTHING: [Instruction; 2] = [Instruction(0xb7, 0, 0, 0), Instruction(0x95, 0, 0, 0)];

/// The beginning of what BPF_PROG_LOAD takes; the kernel takes the rest as zero.
#[repr(C)]
#[derive(Default)]
struct Load {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// What BPF_RAW_TRACEPOINT_OPEN takes.
#[repr(C)]
struct Open {
    name: u64,
    program: RawFd,
    padding: u32,
}

fn load() -> io::Result<OwnedFd> {
    let load = Load {
        program_type: BPF_PROG_TYPE_RAW_TRACEPOINT,
        instruction_count: 2,
        instructions: NOTHING.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        ..Load::default()
    };
    bpf(BPF_PROG_LOAD, &load)
}

fn open(name: &CStr, program: &OwnedFd) -> io::Result<OwnedFd> {
    let open = Open {
        name: name.as_ptr() as u64,
        program: program.as_raw_fd(),
        padding: 0,
    };
    bpf(BPF_RAW_TRACEPOINT_OPEN, &open)
}

/// Calls bpf(2) for a command that gives back a descriptor.
fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is what the command takes, of the size given; what it points to is
    // static, or outlives the call.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            command,
            std::ptr::from_ref(attributes),
            size_of::<T>(),
        )
    };
    match RawFd::try_from(fd) {
        // SAFETY: the kernel has just given it to us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}
