//! What a test has for itself: tests run side by side, and one that watched a file, a name or a
//! cgroup of another's would see the other's faults.

use std::fs;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::TempDir;

use crate::artifacts;
use crate::wait::eventually;

/// A copy of a victim, in a directory that any user may enter.
#[derive(Debug)]
pub struct OwnVictim {
    directory: TempDir,
    path: PathBuf,
}

impl OwnVictim {
    /// Copies a victim under a name that no other process has.
    ///
    /// # Errors
    /// When there is no such victim, or no room for a copy.
    pub fn of(victim: &str) -> Result<Self> {
        let directory = open_directory()?;
        let path = directory.path().join(own_name());
        copy(&artifacts::victim(victim)?, &path)?;
        Ok(Self { directory, path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its file's name, which is its processes' name too.
    pub fn name(&self) -> String {
        let name = self.path.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    /// Puts another victim's file in its place, as a deployment does: by renaming.
    ///
    /// # Errors
    /// When there is no such victim, or no room for a copy.
    pub fn replace_by(&self, victim: &str) -> Result<()> {
        let fresh = self.directory.path().join("fresh");
        copy(&artifacts::victim(victim)?, &fresh)?;
        fs::rename(&fresh, &self.path).context("cannot put the new file in the old one's place")
    }

    /// Writes another victim's contents into its file, as `cp` does: the file stays the same.
    ///
    /// # Errors
    /// When there is no such victim, or this one runs.
    pub fn overwrite_by(&self, victim: &str) -> Result<()> {
        copy(&artifacts::victim(victim)?, &self.path)
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to)
        .map(drop)
        .with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

/// A temporary directory that any user may enter and look at.
///
/// # Errors
/// When there is no room for one.
pub fn open_directory() -> Result<TempDir> {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = TempDir::new().context("cannot create a temporary directory")?;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
    Ok(directory)
}

/// A name of at most 15 bytes, the length of a thread's, that is given once on this machine.
pub fn own_name() -> String {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let number = GIVEN.fetch_add(1, Ordering::Relaxed);
    format!("v{}-{number}", process::id())
}

/// A cgroup, removed with this value.
#[derive(Debug)]
pub struct OwnCgroup {
    path: PathBuf,
}

impl OwnCgroup {
    /// Makes one at the root of the cgroup2 hierarchy.
    ///
    /// # Errors
    /// When none is mounted, or this is not root.
    pub fn new() -> Result<Self> {
        let root = helloops::target::cgroup2_root().context("no cgroup2 is mounted here")?;
        let path = root.join(own_name());
        fs::create_dir(&path).with_context(|| format!("cannot make cgroup {}", path.display()))?;
        Ok(Self { path })
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves a process into it.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn take_in(&self, pid: u32) -> Result<()> {
        fs::write(self.path.join("cgroup.procs"), pid.to_string())
            .with_context(|| format!("cannot move process {pid} to {}", self.path.display()))
    }
}

impl Drop for OwnCgroup {
    fn drop(&mut self) {
        // It cannot be removed before its processes are reaped, which their own guards see to.
        let removed = eventually("empty cgroup", Duration::from_secs(10), || {
            Ok(fs::remove_dir(&self.path).ok())
        });
        if let Err(error) = removed {
            eprintln!("{} is left behind: {error}", self.path.display());
        }
    }
}
