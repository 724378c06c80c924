//! Resolves the offsets of kernel structure fields from BTF, the kernel's own type information.

use std::path::{Path, PathBuf};

use super::{
    abi::{ABSENT, KernelLayout},
    btf::Types,
};

/// Where the kernel's BTF comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Btf {
    /// `/sys/kernel/btf/vmlinux`, which a kernel with `CONFIG_DEBUG_INFO_BTF` has.
    #[default]
    Kernel,
    /// A file with the running kernel's BTF, for kernels that lack their own.
    File(PathBuf),
    /// Do without.
    None,
}

impl Btf {
    /// Reads the layout; the error is a text for a [`super::Feature`].
    pub fn layout(&self) -> Result<KernelLayout, String> {
        let path = match self {
            Self::Kernel => Path::new("/sys/kernel/btf/vmlinux"),
            Self::File(path) => path,
            Self::None => return Err("switched off by --btf none".to_owned()),
        };
        let types = Types::read(path).map_err(|error| {
            format!(
                "{}: {error}; use a kernel with CONFIG_DEBUG_INFO_BTF, or give its BTF with --btf FILE",
                path.display()
            )
        })?;
        let offset = |structure, field| types.field_offset(structure, field).unwrap_or(ABSENT);
        Ok(KernelLayout {
            task_tgid: offset("task_struct", "tgid"),
            task_pid: offset("task_struct", "pid"),
            task_start_boottime: offset("task_struct", "start_boottime"),
            task_group_leader: offset("task_struct", "group_leader"),
            task_signal: offset("task_struct", "signal"),
            task_exit_code: offset("task_struct", "exit_code"),
            task_mm: offset("task_struct", "mm"),
            signal_live: offset("signal_struct", "live"),
            signal_flags: offset("signal_struct", "flags"),
            signal_group_exit_code: offset("signal_struct", "group_exit_code"),
            mm_start_stack: offset("mm_struct", "start_stack"),
            bprm_file: offset("linux_binprm", "file"),
            bprm_filename: offset("linux_binprm", "filename"),
            bprm_buf: offset("linux_binprm", "buf"),
            file_inode: offset("file", "f_inode"),
            inode_ino: offset("inode", "i_ino"),
            inode_sb: offset("inode", "i_sb"),
            super_dev: offset("super_block", "s_dev"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_kernel_has_every_field() {
        let layout = Btf::Kernel.layout().unwrap();
        let text = format!("{layout:?}");
        assert!(!text.contains(&ABSENT.to_string()), "{text}");
        assert!(layout.task_pid + 4 == layout.task_tgid);
    }

    #[test]
    fn a_missing_file_says_what_to_do() {
        let error = Btf::File("/nonexistent".into()).layout().unwrap_err();
        assert!(error.contains("--btf FILE"), "{error}");
    }
}
