//! Offsets of kernel structure fields, resolved from the running kernel's BTF at load time.

use super::Plain;

/// Marks what is not there: a field that this kernel's type information does not have, or a text
/// that could not be read.
pub const ABSENT: u32 = u32::MAX;

/// Byte offsets of the kernel fields that the programs read, each [`ABSENT`] where unknown. A
/// program that needs an absent field does without what it would have learnt.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[expect(
    missing_docs,
    reason = "each is named after the structure and field it locates"
)]
pub struct KernelLayout {
    pub task_tgid: u32,
    pub task_pid: u32,
    pub task_start_boottime: u32,
    pub task_group_leader: u32,
    pub task_signal: u32,
    pub task_exit_code: u32,
    pub task_mm: u32,
    pub signal_live: u32,
    pub signal_flags: u32,
    pub signal_group_exit_code: u32,
    pub mm_start_stack: u32,
    pub bprm_file: u32,
    pub bprm_filename: u32,
    pub bprm_buf: u32,
    pub file_inode: u32,
    pub inode_ino: u32,
    pub inode_sb: u32,
    pub super_dev: u32,
}

impl KernelLayout {
    /// The layout of a kernel about which nothing is known.
    pub const UNKNOWN: Self = Self {
        task_tgid: ABSENT,
        task_pid: ABSENT,
        task_start_boottime: ABSENT,
        task_group_leader: ABSENT,
        task_signal: ABSENT,
        task_exit_code: ABSENT,
        task_mm: ABSENT,
        signal_live: ABSENT,
        signal_flags: ABSENT,
        signal_group_exit_code: ABSENT,
        mm_start_stack: ABSENT,
        bprm_file: ABSENT,
        bprm_filename: ABSENT,
        bprm_buf: ABSENT,
        file_inode: ABSENT,
        inode_ino: ABSENT,
        inode_sb: ABSENT,
        super_dev: ABSENT,
    };
}

// SAFETY: `repr(C)`, 32-bit integers only.
unsafe impl Plain for KernelLayout {}
