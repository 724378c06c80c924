//! The Unix socket that an instance serves on: who may have it, and who may talk through it.

use std::fs::{self, DirBuilder, File, Metadata, Permissions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{Instant, sleep};

/// Owner and group may read and write; the kernel asks for write permission to connect.
const MODE: u32 = 0o660;

/// How long another instance may be busy with taking a socket in the same directory.
const DIRECTORY_WAIT: Duration = Duration::from_secs(3);

/// Why an instance cannot serve on a path.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another instance has it.
    #[error(
        "an agent already serves {} ({}); ask that one, or give this one another path with --socket",
        path.display(), match pid { Some(pid) => format!("pid {pid}"), None => "its pid is unknown".to_owned() }
    )]
    Taken {
        /// The socket.
        path: PathBuf,
        /// The process that listens on it.
        pid: Option<i32>,
    },
    /// Something that is no socket is there.
    #[error(
        "{} is there already and is no socket; move it away, or give another path with --socket",
        path.display()
    )]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The directory cannot be created, opened or locked.
    #[error(
        "cannot use the directory {} for a socket: {source}; run as root, or give a path that you \
         may write with --socket", path.display()
    )]
    Directory {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The socket itself cannot be created.
    #[error(
        "cannot listen on {}: {source}; give another path with --socket (107 bytes at most)",
        path.display()
    )]
    Listen {
        /// The socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Who may talk to an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Admission {
    own_uid: u32,
    group: u32,
}

/// The socket's file, removed with this value unless another instance has replaced it.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    identity: (u64, u64),
    pub(super) admission: Admission,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|now| identity(&now) == self.identity) {
            // Nothing can be done about a failure, and a stale socket hurts nobody.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Listens on `path`, in place of a dead instance's socket if there is one. Members of `group` may
/// talk to it; of the caller's own group if none is given.
pub(super) async fn listen(
    path: &Path,
    group: Option<u32>,
) -> Result<(UnixListener, SocketFile), SocketError> {
    let directory = match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
    };
    // Two instances that find the same stale socket must not remove each other's new one.
    let _lock = lock_directory(directory)
        .await
        .map_err(|source| SocketError::Directory {
            path: directory.to_owned(),
            source,
        })?;
    make_way(path).await?;

    let failed = |source| SocketError::Listen {
        path: path.to_owned(),
        source,
    };
    let listener = UnixListener::bind(path).map_err(failed)?;
    let created = fs::symlink_metadata(path).map_err(failed)?;
    let file = SocketFile {
        path: path.to_owned(),
        identity: identity(&created),
        admission: Admission {
            own_uid: nix::unistd::geteuid().as_raw(),
            group: group.unwrap_or(created.gid()),
        },
    };
    if let Some(group) = group {
        chown(path, None, Some(group)).map_err(failed)?;
    }
    fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(failed)?;
    Ok((listener, file))
}

async fn lock_directory(directory: &Path) -> io::Result<Flock<File>> {
    if !directory.is_dir() {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
        // The umask may have taken from the mode.
        fs::set_permissions(directory, Permissions::from_mode(0o755))?;
    }
    let mut handle = File::open(directory)?;
    let deadline = Instant::now() + DIRECTORY_WAIT;
    loop {
        match Flock::lock(handle, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, Errno::EWOULDBLOCK)) if Instant::now() < deadline => handle = back,
            Err((_, Errno::EWOULDBLOCK)) => {
                let reason = "another process keeps it locked (flock)";
                return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
            }
            Err((_, error)) => return Err(error.into()),
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// Removes the socket of an instance that is gone.
async fn make_way(path: &Path) -> Result<(), SocketError> {
    let failed = |source| SocketError::Listen {
        path: path.to_owned(),
        source,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
        Ok(there) if !there.file_type().is_socket() => {
            return Err(SocketError::NotASocket {
                path: path.to_owned(),
            });
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path).await {
        // The credentials are those of the process that called listen(2) (unix(7), SO_PEERCRED).
        Ok(stream) => Err(SocketError::Taken {
            path: path.to_owned(),
            pid: stream.peer_cred().ok().and_then(|listener| listener.pid()),
        }),
        // Nobody listens any more.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            match fs::remove_file(path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            }
        }
        // A full backlog, or no permission: somebody may be there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::Taken {
            path: path.to_owned(),
            pid: None,
        }),
        Err(error) => Err(failed(error)),
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

impl Admission {
    /// Whether the process at the other end is root, runs as the instance's own user, or is in the
    /// socket's group. The file's mode says the same, but somebody may have changed that.
    pub(super) fn admits(self, stream: &UnixStream) -> bool {
        let Ok(peer) = stream.peer_cred() else {
            return false;
        };
        peer.uid() == 0
            || peer.uid() == self.own_uid
            || peer.gid() == self.group
            || peer_groups(stream).is_ok_and(|groups| groups.contains(&self.group))
    }
}

/// The supplementary groups of the process at the other end.
fn peer_groups(stream: &UnixStream) -> io::Result<Vec<libc::gid_t>> {
    /// From include/uapi/asm-generic/socket.h, Linux 4.13 and later.
    const SO_PEERGROUPS: libc::c_int = 59;
    /// The most groups that a process can have (include/uapi/linux/limits.h).
    const NGROUPS_MAX: usize = 65_536;

    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = size_of_val(&groups[..]) as libc::socklen_t;
        // SAFETY: the buffer is valid for `length` bytes, of which the kernel writes at most that
        // many, and any bytes are valid group IDs.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::SOL_SOCKET,
                SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        if result == 0 {
            groups.truncate(length as usize / size_of::<libc::gid_t>());
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || groups.len() >= NGROUPS_MAX {
            return Err(error);
        }
        groups.resize(NGROUPS_MAX, 0);
    }
}
