//! What a person asks to watch.

use std::{
    fmt, fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use object::{
    Endianness, ReadCache,
    elf::{FileHeader32, FileHeader64},
    read::elf::{FileHeader, ProgramHeader as _},
};
use thiserror::Error;

use super::{
    glob::{self, GlobError},
    process,
};
use crate::kernel::abi::CommGlob;

/// Chooses processes. Their children are watched as well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// One process that runs already.
    Pid(u32),
    /// All that run this executable file, now or later.
    Exe(PathBuf),
    /// All whose name (`comm`) matches a pattern when they start.
    Comm(String),
    /// All in this cgroup2 and below it.
    Cgroup(PathBuf),
    /// A command that HelloOps starts.
    Command(PathBuf),
}

/// A selector that cannot be used.
#[derive(Debug, Error)]
pub enum SelectorError {
    /// No such process.
    #[error("there is no process {0}: `ps -e` lists those that run")]
    NoProcess(u32),
    /// It is a thread.
    #[error("{thread} is a thread of process {process}: watch the process with --pid {process}")]
    Thread {
        /// The thread.
        thread: u32,
        /// Its process.
        process: u32,
    },
    /// The file cannot be read.
    #[error("cannot watch {path}: {reason}")]
    Unreadable {
        /// The path.
        path: String,
        /// What the system says.
        reason: io::Error,
    },
    /// The file is not a program.
    #[error("cannot watch {path}: it is {what}; {instead}")]
    NotAnElf {
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
        /// What to do.
        instead: &'static str,
    },
    /// A pattern is wrong.
    #[error(transparent)]
    Glob(#[from] GlobError),
    /// There is no cgroup2 hierarchy.
    #[error(
        "cannot watch cgroup {0}: no cgroup2 hierarchy is mounted here (mount one with \
         `mount -t cgroup2 none /sys/fs/cgroup`), or use --exe or --comm"
    )]
    NoCgroup2(String),
    /// The path is no cgroup.
    #[error(
        "cannot watch cgroup {path}: there is no such directory in {root}; a systemd unit is \
         usually at system.slice/NAME.service"
    )]
    NoCgroup {
        /// The path.
        path: String,
        /// Where the hierarchy is mounted.
        root: String,
    },
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pid(pid) => write!(f, "pid {pid}"),
            Self::Exe(path) => write!(f, "exe {}", path.display()),
            Self::Comm(pattern) => write!(f, "comm {pattern}"),
            Self::Cgroup(path) => write!(f, "cgroup {}", path.display()),
            Self::Command(path) => write!(f, "command {}", path.display()),
        }
    }
}

impl Selector {
    /// A name for the target: the file's, the unit's, the pattern, or the process's own.
    pub fn default_name(&self) -> String {
        let file_name = |path: &Path| {
            path.file_name().map_or_else(
                || path.display().to_string(),
                |name| name.to_string_lossy().into_owned(),
            )
        };
        match self {
            Self::Pid(pid) => process::comm(*pid).unwrap_or_else(|_| pid.to_string()),
            Self::Exe(path) | Self::Command(path) => file_name(path),
            Self::Comm(pattern) => pattern.clone(),
            Self::Cgroup(path) => file_name(path).trim_end_matches(".service").to_owned(),
        }
    }

    /// Checks that it can choose anything, and makes its path absolute.
    ///
    /// # Errors
    ///
    /// [`SelectorError`] says what is wrong and what to do.
    pub fn resolve(self) -> Result<Self, SelectorError> {
        match self {
            Self::Pid(pid) => match process::tgid(pid) {
                Ok(tgid) if tgid == pid => Ok(self),
                Ok(process) => Err(SelectorError::Thread {
                    thread: pid,
                    process,
                }),
                Err(_) => Err(SelectorError::NoProcess(pid)),
            },
            Self::Exe(path) => Ok(Self::Exe(executable(&path)?)),
            Self::Command(path) => Ok(Self::Command(path)),
            Self::Comm(pattern) => {
                compile_comm(&pattern)?;
                Ok(Self::Comm(pattern))
            }
            Self::Cgroup(path) => Ok(Self::Cgroup(cgroup(&path)?)),
        }
    }
}

/// Compiles a name pattern.
///
/// # Errors
///
/// [`GlobError`]
pub fn compile_comm(pattern: &str) -> Result<CommGlob, GlobError> {
    glob::compile(pattern)
}

/// The absolute path of an ELF executable, with its symbolic links: where they lead may change, as
/// when `current` comes to mean the next release.
fn executable(path: &Path) -> Result<PathBuf, SelectorError> {
    let unreadable = |reason| SelectorError::Unreadable {
        path: path.display().to_string(),
        reason,
    };
    let refuse = |what, instead| {
        Err(SelectorError::NotAnElf {
            path: path.display().to_string(),
            what,
            instead,
        })
    };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return refuse("not a file", "give the program's own binary");
    }
    let file = fs::File::open(path).map_err(unreadable)?;
    let mut start = Vec::new();
    (&file)
        .take(4)
        .read_to_end(&mut start)
        .map_err(unreadable)?;
    if start.starts_with(b"#!") {
        return refuse(
            "a script",
            "watch its interpreter with --exe, or its name with --comm",
        );
    }
    if start != b"\x7fELF" {
        return refuse("not an ELF file", "give the program's own binary");
    }
    if !is_whole(file, metadata.len()) {
        return refuse("a truncated ELF file", "give the program's own binary");
    }
    std::path::absolute(path).map_err(unreadable)
}

/// Whether an ELF file has all that a process of it would map.
fn is_whole(file: fs::File, length: u64) -> bool {
    let data = ReadCache::new(file);
    has_all_segments::<FileHeader64<Endianness>>(&data, length)
        || has_all_segments::<FileHeader32<Endianness>>(&data, length)
}

fn has_all_segments<H: FileHeader<Endian = Endianness>>(
    data: &ReadCache<fs::File>,
    length: u64,
) -> bool {
    let Ok(header) = H::parse(data) else {
        return false;
    };
    let Ok(endian) = header.endian() else {
        return false;
    };
    header.program_headers(endian, data).is_ok_and(|segments| {
        segments.iter().all(|segment| {
            let (offset, size) = segment.file_range(endian);
            offset.checked_add(size).is_some_and(|end| end <= length)
        })
    })
}

/// The directory of a cgroup, given as a path in the file system or within the hierarchy.
fn cgroup(path: &Path) -> Result<PathBuf, SelectorError> {
    let root =
        cgroup2_root().ok_or_else(|| SelectorError::NoCgroup2(path.display().to_string()))?;
    let inside = root.join(path.strip_prefix("/").unwrap_or(path));
    [path.to_path_buf(), inside]
        .into_iter()
        .filter(|candidate| candidate.is_absolute() && candidate.starts_with(&root))
        .find(|candidate| candidate.is_dir())
        .ok_or_else(|| SelectorError::NoCgroup {
            path: path.display().to_string(),
            root: root.display().to_string(),
        })
}

/// Where the cgroup2 hierarchy is mounted: alone, or beside version 1.
pub fn cgroup2_root() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").ok()?;
    mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    })
}

/// The id that BPF programs know a cgroup by: its directory's inode number (64-bit kernels).
///
/// # Errors
///
/// When the directory is gone.
pub fn cgroup_id(path: &Path) -> io::Result<u64> {
    Ok(fs::metadata(path)?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_watched_says_what_to_do_instead() {
        let text = |selector: Selector| selector.resolve().unwrap_err().to_string();
        assert!(text(Selector::Pid(4_194_304)).contains("no process"));
        assert!(text(Selector::Exe("/nonexistent".into())).contains("No such file"));
        assert!(text(Selector::Exe("/proc/self/maps".into())).contains("not an ELF file"));
        let script = tempfile::NamedTempFile::new().unwrap();
        fs::write(script.path(), "#!/bin/sh\n").unwrap();
        assert!(text(Selector::Exe(script.path().into())).contains("interpreter"));
        fs::write(script.path(), b"\x7fELF\x02").unwrap();
        assert!(text(Selector::Exe(script.path().into())).contains("truncated"));
        assert!(text(Selector::Comm(String::new())).contains("empty"));
        let missing = text(Selector::Cgroup("no/such/unit".into()));
        assert!(
            missing.contains("no such directory") || missing.contains("no cgroup2"),
            "{missing}"
        );
    }

    #[test]
    fn a_thread_is_told_from_its_process() {
        let tid = std::thread::spawn(|| nix::unistd::gettid().as_raw() as u32);
        let own = std::process::id();
        assert!(Selector::Pid(own).resolve().is_ok());
        drop(tid.join());
    }
}
