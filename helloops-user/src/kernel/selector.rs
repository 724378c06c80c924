//! Tells the programs what is watched.

use std::{
    fs::Metadata,
    io,
    os::{fd::AsFd as _, unix::ffi::OsStrExt as _, unix::fs::MetadataExt as _},
    path::Path,
    sync::atomic::Ordering,
};

use aya::maps::{Array, HashMap, MapData, MapError};

use super::{
    abi::{COMM_GLOBS, CommGlob, FILENAME_BYTES, GATE_WORDS, Inode, PID_LIMIT, Watched},
    memory::ArrayMemory,
    plain::Shared,
};

/// The programs' policy: which processes are watched, and which new ones will be.
pub struct Selectors {
    gate: ArrayMemory<u64>,
    targets: HashMap<MapData, u32, Shared<Watched>>,
    exe_files: HashMap<MapData, Shared<Inode>, Shared<Watched>>,
    exe_paths: HashMap<MapData, [u8; FILENAME_BYTES], Shared<Watched>>,
    cgroups: HashMap<MapData, u64, Shared<Watched>>,
    globs: Array<MapData, Shared<CommGlob>>,
}

/// The maps that [`Selectors`] is made of.
pub(super) struct SelectorMaps {
    pub gate: MapData,
    pub targets: HashMap<MapData, u32, Shared<Watched>>,
    pub exe_files: HashMap<MapData, Shared<Inode>, Shared<Watched>>,
    pub exe_paths: HashMap<MapData, [u8; FILENAME_BYTES], Shared<Watched>>,
    pub cgroups: HashMap<MapData, u64, Shared<Watched>>,
    pub globs: Array<MapData, Shared<CommGlob>>,
}

impl Selectors {
    /// How many targets there can be; the histogram scopes from this number on are processes'.
    pub const TARGETS_MAX: u32 = 128;
    /// How many name patterns there can be.
    pub const GLOBS_MAX: u32 = COMM_GLOBS;

    pub(super) fn new(maps: SelectorMaps) -> io::Result<Self> {
        Ok(Self {
            gate: ArrayMemory::map(maps.gate.fd().as_fd(), GATE_WORDS)?,
            targets: maps.targets,
            exe_files: maps.exe_files,
            exe_paths: maps.exe_paths,
            cgroups: maps.cgroups,
            globs: maps.globs,
        })
    }

    /// Watches a process that runs already.
    ///
    /// # Errors
    ///
    /// When the table is full, or the id is beyond what Linux allows.
    pub fn watch(&mut self, tgid: u32, watched: Watched) -> Result<(), MapError> {
        self.targets.insert(tgid, Shared(watched), 0)?;
        self.set_gate(tgid, true);
        Ok(())
    }

    /// Watches a process from its next exec on; `watched` must hold `FLAG_AWAITS_EXEC`.
    ///
    /// # Errors
    ///
    /// When the table is full.
    pub fn announce(&mut self, tgid: u32, watched: Watched) -> Result<(), MapError> {
        self.targets.insert(tgid, Shared(watched), 0)
    }

    /// Stops watching a process. One that is not watched is left as it is.
    pub fn forget(&mut self, tgid: u32) {
        self.set_gate(tgid, false);
        let _ = self.targets.remove(&tgid);
    }

    /// The entry of a watched process.
    pub fn watched(&self, tgid: u32) -> Option<Watched> {
        self.targets
            .get(&tgid, 0)
            .ok()
            .map(|Shared(watched)| watched)
    }

    /// All watched processes.
    pub fn all(&self) -> Vec<(u32, Watched)> {
        self.targets
            .iter()
            .filter_map(Result::ok)
            .map(|(tgid, Shared(watched))| (tgid, watched))
            .collect()
    }

    /// Selects processes that start this file, or a path that will come to name a new one.
    ///
    /// # Errors
    ///
    /// When the table is full.
    pub fn select_exe(
        &mut self,
        path: &Path,
        file: Option<Inode>,
        watched: Watched,
    ) -> Result<(), MapError> {
        if let Some(key) = path_key(path) {
            self.exe_paths.insert(key, Shared(watched), 0)?;
        }
        match file {
            Some(file) => self.exe_files.insert(Shared(file), Shared(watched), 0),
            None => Ok(()),
        }
    }

    /// Ends the selection of a file that no longer stands behind its path.
    pub fn deselect_file(&mut self, file: Inode) {
        let _ = self.exe_files.remove(&Shared(file));
    }

    /// Selects processes that exec in this cgroup2 or below it.
    ///
    /// # Errors
    ///
    /// When the table is full.
    pub fn select_cgroup(&mut self, id: u64, watched: Watched) -> Result<(), MapError> {
        self.cgroups.insert(id, Shared(watched), 0)
    }

    /// Sets one of the name patterns.
    ///
    /// # Errors
    ///
    /// When there is no such slot.
    pub fn select_comm(&mut self, slot: u32, glob: CommGlob) -> Result<(), MapError> {
        self.globs.set(slot, Shared(glob), 0)
    }

    fn set_gate(&self, tgid: u32, open: bool) {
        if tgid >= PID_LIMIT {
            return;
        }
        let bit = 1u64 << (tgid & 63);
        if let Some(word) = self.gate.word_u64(tgid as usize >> 6, 0) {
            if open {
                word.fetch_or(bit, Ordering::Relaxed);
            } else {
                word.fetch_and(!bit, Ordering::Relaxed);
            }
        }
    }
}

/// The key of a path in the kernel's table, or `None` for one that is too long to be kept whole.
fn path_key(path: &Path) -> Option<[u8; FILENAME_BYTES]> {
    let bytes = path.as_os_str().as_bytes();
    let mut key = [0; FILENAME_BYTES];
    // The last byte stays NUL.
    if bytes.len() >= FILENAME_BYTES {
        return None;
    }
    key.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(key)
}

/// How the kernel identifies a file: `st_dev` re-encoded as `MKDEV` (include/linux/kdev_t.h).
pub fn inode_of(metadata: &Metadata) -> Inode {
    let device = metadata.dev();
    Inode {
        number: metadata.ino(),
        device: libc::major(device) << 20 | libc::minor(device),
        reserved: 0,
    }
}
