//! Opens files that other processes name, so that a name which leads somewhere unexpected does no
//! harm: only regular files are opened, and never the wrong one for a mapping.

use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use nix::libc;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, fstatfs};

use super::mapping::Mapping;

/// Why a file was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The system refused.
    #[error("cannot open {path}: {source}")]
    Refused {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is a directory, device, pipe or socket.
    #[error("{path} is not a regular file")]
    NotRegular {
        /// The file.
        path: PathBuf,
    },
    /// The name leads to another file by now.
    #[error(
        "{path} is not the file that the process has mapped (device {major:x}:{minor:x}, inode \
         {inode}); it was replaced or belongs to another mount namespace"
    )]
    Replaced {
        /// The file.
        path: PathBuf,
        /// The mapped file's device, major number.
        major: u32,
        /// The mapped file's device, minor number.
        minor: u32,
        /// The mapped file's inode.
        inode: u64,
    },
}

/// What changes when a file's contents do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Stamp {
    size: u64,
    modified: Option<SystemTime>,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            size: metadata.len(),
            modified: metadata.modified().ok(),
        }
    }
}

/// Opens the regular file at the path for reading.
///
/// It is opened without access first and looked at: to open a pipe would block, and to open a
/// device may act on it.
///
/// # Errors
/// The system refuses, or it is not a regular file.
pub(super) fn regular_file(path: &Path) -> Result<File, OpenError> {
    locate(path)?.open()
}

/// Opens the file of a mapping, and no other.
///
/// # Errors
/// As [`regular_file`]; or what is found is not the file that is mapped.
pub(super) fn mapped_file(mapping: &Mapping) -> Result<(File, Stamp), OpenError> {
    let located = mapping
        .open_as
        .iter()
        .chain([&mapping.path])
        .map(|path| locate(path).and_then(|located| located.verified(mapping)));
    let mut first_error = None;
    for located in located {
        match located {
            Ok(located) => return Ok((located.open()?, Stamp::of(&located.metadata))),
            // The path is a poorer guess than the link to the mapped file, which however may
            // merely have gone away with the process.
            Err(error) => first_error = Some(error),
        }
    }
    Err(first_error.unwrap_or_else(|| OpenError::NotRegular {
        path: mapping.path.clone(),
    }))
}

/// The stamp of a mapping's file as it is now, if it can still be found.
pub(super) fn mapped_stamp(mapping: &Mapping) -> Option<Stamp> {
    mapping
        .open_as
        .iter()
        .chain([&mapping.path])
        .find_map(|path| locate(path).ok()?.verified(mapping).ok())
        .map(|located| Stamp::of(&located.metadata))
}

/// A file that was found, but not opened for reading.
struct Located {
    handle: File,
    metadata: Metadata,
    path: PathBuf,
}

fn locate(path: &Path) -> Result<Located, OpenError> {
    let refused = |source| OpenError::Refused {
        path: path.to_owned(),
        source,
    };
    let handle = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path)
        .map_err(refused)?;
    let metadata = handle.metadata().map_err(refused)?;
    Ok(Located {
        handle,
        metadata,
        path: path.to_owned(),
    })
}

impl Located {
    fn verified(self, mapping: &Mapping) -> Result<Self, OpenError> {
        let device = self.metadata.dev();
        let device = (libc::major(device), libc::minor(device));
        let same_device = device == mapping.device || self.has_private_device_numbers();
        if self.metadata.ino() == mapping.inode && same_device {
            Ok(self)
        } else {
            let (major, minor) = mapping.device;
            Err(OpenError::Replaced {
                path: self.path,
                major,
                minor,
                inode: mapping.inode,
            })
        }
    }

    /// Whether `stat` reports another device than `/proc/PID/maps` does, as it does on btrfs (one
    /// per subvolume) and overlayfs (the overlay's, or its layer's).
    fn has_private_device_numbers(&self) -> bool {
        fstatfs(&self.handle).is_ok_and(|system| {
            let kind = system.filesystem_type();
            kind == BTRFS_SUPER_MAGIC || kind == OVERLAYFS_SUPER_MAGIC
        })
    }

    fn open(&self) -> Result<File, OpenError> {
        if !self.metadata.is_file() {
            return Err(OpenError::NotRegular {
                path: self.path.clone(),
            });
        }
        File::open(format!("/proc/self/fd/{}", self.handle.as_raw_fd())).map_err(|source| {
            OpenError::Refused {
                path: self.path.clone(),
                source,
            }
        })
    }
}
