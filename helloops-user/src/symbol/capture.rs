//! What the kernel side captures of a faulting thread, and what unwinding makes of it: registers
//! and a copy of the stack on the way in, code addresses on the way out.

use super::Frame;
use super::unwind::Truncation;

/// The general registers of a thread in user space (x86-64), named as in `struct pt_regs`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each field is the register of the same name")]
pub struct Registers {
    pub ip: u64,
    pub sp: u64,
    pub bp: u64,
    pub ax: u64,
    pub bx: u64,
    pub cx: u64,
    pub dx: u64,
    pub si: u64,
    pub di: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A copy of a thread's stack.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StackCopy {
    /// The address of the first byte in the process, usually the stack pointer.
    pub base: u64,
    /// What was there.
    pub bytes: Vec<u8>,
}

impl StackCopy {
    /// The `size` bytes (1 to 8) at the address as a little-endian number, where the copy has them.
    pub(super) fn read(&self, address: u64, size: usize) -> Option<u64> {
        let start = usize::try_from(address.checked_sub(self.base)?).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(size)?)?;
        let mut word = [0; 8];
        word.get_mut(..size)?.copy_from_slice(bytes);
        Some(u64::from_le_bytes(word))
    }
}

/// An address in a process's code, with what it says about where the thread was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum CodeAddress {
    /// The instruction that the thread was about to execute: that of the innermost frame, or of one
    /// that a signal interrupted.
    Instruction(u64),
    /// A return address: the instruction *after* the call that the thread is in.
    Return(u64),
}

impl CodeAddress {
    /// The address itself.
    pub fn address(self) -> u64 {
        match self {
            Self::Instruction(address) | Self::Return(address) => address,
        }
    }

    /// An address within the instruction that the thread is at. A call may be the last instruction
    /// of its function, or of an inlined one, so that the return address lies outside it.
    pub(super) fn lookup(self) -> u64 {
        match self {
            Self::Instruction(address) => address,
            Self::Return(address) => address.saturating_sub(1),
        }
    }
}

/// An unwound stack, not symbolized yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawStack {
    /// The addresses, innermost first.
    pub frames: Vec<CodeAddress>,
    /// Why the last frame is not the thread's root, where it is not.
    pub truncated: Option<Truncation>,
}

/// A symbolized stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stack {
    /// The frames, innermost first; several for an address in inlined code.
    pub frames: Vec<Frame>,
    /// Why the last frame is not the thread's root, where it is not.
    pub truncated: Option<String>,
}
