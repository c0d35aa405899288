//! The file of a Unix domain socket: created, replaced if stale, and removed.

use std::fs::{self, File, Metadata, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::UnixListener;

/// Mode of the file: the owner and the group may connect.
const MODE: u32 = 0o660;
/// How long to wait for another process's lock on the folder.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The file of a [`Listener`](super::Listener) on a Unix domain socket. It is removed when this value or the listener
/// is dropped, whichever comes first. A file that another process has put there in the meantime is not removed.
#[derive(Debug)]
pub struct SocketFile(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    /// Device and inode.
    id: (u64, u64),
    is_removed: AtomicBool,
}

impl SocketFile {
    /// Returns another handle, which also removes the file when it is dropped.
    pub(super) fn another(&self) -> Self {
        Self(Arc::clone(&self.0))
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Removes the file. To be called while the socket is open: after that its inode may be another file's.
    pub(super) fn remove(&self) {
        if self.0.is_removed.swap(true, Ordering::AcqRel) {
            return;
        }
        match fs::symlink_metadata(&self.0.path) {
            Ok(found) if id(&found) == self.0.id => {
                if let Err(error) = fs::remove_file(&self.0.path) {
                    tracing::warn!(%error, path = %self.0.path.display(), "removing the socket file failed");
                }
            }
            // Another process has removed or replaced it.
            Ok(_) | Err(_) => {}
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        self.remove();
    }
}

fn id(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Listens at `path`. A stale socket is replaced.
pub(super) fn bind(path: &Path, backlog: u32) -> io::Result<(UnixListener, SocketFile)> {
    let _lock = lock_folder(path)?;
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let metadata = fs::symlink_metadata(path)?;
    let file = SocketFile(Arc::new(Inner { path: path.into(), id: id(&metadata), is_removed: AtomicBool::new(false) }));
    // Before any client can connect.
    fs::set_permissions(path, Permissions::from_mode(MODE))?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    socket.set_nonblocking(true)?;
    Ok((UnixListener::from_std(socket.into())?, file))
}

/// Removes a stale socket of a process that has ended, and nothing else.
fn remove_stale(path: &Path) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?,
    };
    if !found.file_type().is_socket() {
        let message = "a file exists there that is not a socket";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) => {
            let message =
                format!("a socket exists there, and checking whether a process listens on it failed: {error}");
            Err(io::Error::new(error.kind(), message))
        }
    }
}

/// Locks the folder, so that two processes do not replace the same file at once and one removes the new socket of the
/// other.
fn lock_folder(path: &Path) -> io::Result<Option<File>> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", folder.display()));
    let file = match File::open(folder) {
        // Files can be created in a folder that cannot be read, but such a folder cannot be locked.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Ok(None),
        opened => opened.map_err(named)?,
    };
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Some(file)),
            // Not every file system supports locks.
            Err(TryLockError::Error(_)) => return Ok(None),
            Err(TryLockError::WouldBlock) if begun.elapsed() < LOCK_TIMEOUT => {
                std::thread::sleep(Duration::from_millis(20));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(named(io::Error::new(io::ErrorKind::WouldBlock, "another process holds a lock on it")));
            }
        }
    }
}
