//! Looks at processes in `/proc`.

use std::{
    collections::{HashMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
};

use super::{Selector, glob};
use crate::kernel::{abi::Inode, inode_of};

/// What `/proc/PID/stat` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// Whether it has ended and waits for its parent to notice (state Z or X).
    pub is_zombie: bool,
    /// The parent process.
    pub parent: u32,
    /// When it started, in ns since boot, to the precision of a clock tick (10 ms as a rule).
    pub start: u64,
}

/// # Errors
///
/// When the process is gone, or not ours to see.
pub fn stat(pid: u32) -> io::Result<Stat> {
    let text = fs::read(format!("/proc/{pid}/stat"))?;
    parse_stat(&text).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The fields behind the name, which is in parentheses and may hold anything (proc_pid_stat(5)).
fn parse_stat(text: &[u8]) -> Option<Stat> {
    let behind = text.iter().rposition(|byte| *byte == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(text.get(behind..)?)
        .ok()?
        .split_ascii_whitespace()
        .collect();
    // Field 3 (state) is the first behind the name; 4 is ppid and 22 starttime.
    let ticks: u64 = fields.get(19)?.parse().ok()?;
    // SAFETY: sysconf has no preconditions.
    let per_second = u64::try_from(unsafe { libc::sysconf(libc::_SC_CLK_TCK) })
        .ok()?
        .max(1);
    Some(Stat {
        is_zombie: matches!(*fields.first()?, "Z" | "X"),
        parent: fields.get(1)?.parse().ok()?,
        start: ticks.checked_mul(1_000_000_000 / per_second)?,
    })
}

/// The process that a thread belongs to.
///
/// # Errors
///
/// When there is no such thread or process.
pub fn tgid(pid: u32) -> io::Result<u32> {
    fs::read_to_string(format!("/proc/{pid}/status"))?
        .lines()
        .find_map(|line| line.strip_prefix("Tgid:")?.trim().parse().ok())
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

/// The name of a process's main thread.
///
/// # Errors
///
/// When the process is gone.
pub fn comm(pid: u32) -> io::Result<String> {
    let text = fs::read(format!("/proc/{pid}/comm"))?;
    Ok(String::from_utf8_lossy(&text)
        .trim_end_matches('\n')
        .to_owned())
}

/// The executable as the process names it, without a trailing ` (deleted)`.
///
/// # Errors
///
/// When the process is gone, has none (a kernel thread), or is not ours to see.
pub fn exe(pid: u32) -> io::Result<PathBuf> {
    let link = fs::read_link(format!("/proc/{pid}/exe"))?;
    match link
        .to_str()
        .and_then(|text| text.strip_suffix(" (deleted)"))
    {
        Some(path) => Ok(PathBuf::from(path)),
        None => Ok(link),
    }
}

/// The file of a process's executable; zeros if it cannot be seen.
pub fn exe_file(pid: u32) -> Inode {
    match fs::metadata(format!("/proc/{pid}/exe")) {
        Ok(metadata) => inode_of(&metadata),
        Err(_) => Inode {
            number: 0,
            device: 0,
            reserved: 0,
        },
    }
}

/// All processes.
pub fn all() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// The running processes that a selector chooses, and their descendants.
pub fn matching(selector: &Selector) -> Vec<u32> {
    let pids = all();
    let mut chosen: HashSet<u32> = pids
        .iter()
        .copied()
        .filter(|pid| is_chosen(*pid, selector))
        .collect();
    if let Selector::Cgroup(path) = selector {
        chosen.extend(in_cgroup(path));
    }
    let parents: HashMap<u32, u32> = pids
        .iter()
        .filter_map(|pid| Some((*pid, stat(*pid).ok()?.parent)))
        .collect();
    // Each round adds one generation.
    loop {
        let children: Vec<u32> = parents
            .iter()
            .filter(|(pid, parent)| chosen.contains(parent) && !chosen.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if children.is_empty() {
            break;
        }
        chosen.extend(children);
    }
    let mut chosen: Vec<u32> = chosen.into_iter().collect();
    chosen.sort_unstable();
    chosen
}

fn is_chosen(pid: u32, selector: &Selector) -> bool {
    match selector {
        Selector::Pid(wanted) => pid == *wanted,
        Selector::Exe(path) => runs(pid, path),
        Selector::Comm(pattern) => comm(pid)
            .is_ok_and(|name| glob::compile(pattern).is_ok_and(|glob| glob::matches(&glob, &name))),
        Selector::Cgroup(_) | Selector::Command(_) => false,
    }
}

/// Whether a process runs this file, or one that had its path before it was replaced.
fn runs(pid: u32, path: &Path) -> bool {
    let file = fs::metadata(path).map(|file| inode_of(&file));
    let running = fs::metadata(format!("/proc/{pid}/exe")).map(|file| inode_of(&file));
    if matches!((running, file), (Ok(running), Ok(file)) if running == file) {
        return true;
    }
    // The process names its file without symbolic links.
    let real = fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    exe(pid).is_ok_and(|exe| exe == real)
}

/// The processes of a cgroup and those below it.
pub fn in_cgroup(path: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_to_string(path.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            pids.extend(in_cgroup(&entry.path()));
        }
    }
    pids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_hold_parentheses_and_spaces() {
        let text = b"7 (a) b (c) S 3 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 1 0 1200 9 9";
        assert_eq!(
            parse_stat(text),
            Some(Stat {
                is_zombie: false,
                parent: 3,
                start: 12_000_000_000
            })
        );
        assert_eq!(parse_stat(b"7 (a"), None);
        assert_eq!(parse_stat(b""), None);
    }

    #[test]
    fn this_process_and_its_children_are_found_by_pid_and_exe() {
        let mut child = std::process::Command::new("sleep")
            .arg("20")
            .spawn()
            .unwrap();
        let own = std::process::id();
        let by_pid = matching(&Selector::Pid(own));
        let by_exe = matching(&Selector::Exe(std::env::current_exe().unwrap()));
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(by_pid.contains(&own) && by_pid.contains(&child.id()));
        assert!(by_exe.contains(&own));
    }
}
