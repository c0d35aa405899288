//! [`OperandDirectory`]: the files that operands are loaded from after a restart.
//!
//! # Files
//!
//! Names are SHA-256 hashes in hexadecimal digits, whatever operands and tenants are called.
//!
//! | file | content |
//! |---|---|
//! | `HASH.operand` | a value, named after the SHA-256 of the file: `sha256sum` prints it. Equal values share one |
//! | `HASH.version` | a version: tenant, name, number, type, options, and the name of the value's file |
//! | `HASH.tenant` | the highest version that a tenant has had |
//! | `NUMBER.partial` | a file that is being written; removed at the next start |
//! | `lock` | empty; locked by the process that uses the directory |
//!
//! The file of a value, with all numbers in little-endian order:
//!
//! | offset | size | |
//! |---|---|---|
//! | 0 | 8 | `TKOPERND` |
//! | 8 | 4 | the format, 1 |
//! | 12 | 4 | the size of the table |
//! | 16 | | the table, a JSON object: `{"type": "graph", "tensors": [{"name": ..., "dtype": "uint32", "shape": [3]}]}` |
//! | | | the elements of each tensor, from the next multiple of 64 on; zeros before it |
//!
//! The tensors are those of a document of the type ([`OperandValue::to_tensors`](super::OperandValue::to_tensors)), so a
//! new type needs no change of the format. A tensor is read into the memory that kernels use, and not copied from there.
//!
//! Records, that is `.version` and `.tenant`, are a line `tower-kernels-operands/1 KIND SHA256` and a JSON object, of which
//! it is the hash.
//!
//! # Order of writes
//!
//! A file is written under a temporary name, synced and renamed. A put writes the value, syncs the directory, writes the
//! records, and syncs the directory; then it removes the version before. A crash leaves the old version, the new one, or
//! both, of which the higher one counts. A removal removes the record of the version first, and then the value, unless
//! another version has the same.

mod content;
mod files;
mod record;
mod scan;
#[cfg(test)]
mod tests;

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use foldhash::HashMap;
use parking_lot::Mutex;

use self::files::Sha256Hash;
pub(super) use self::record::Manifest;
use self::record::{TenantRecord, manifest_name};
pub(super) use self::scan::Scan;
use super::error::OperandError;
use crate::service::Tensors;

/// The name of the file that the process that uses the directory has locked.
const LOCK: &str = "lock";

/// The files of operands in one directory, which no other process uses.
#[derive(Debug)]
pub(super) struct OperandDirectory {
    path: PathBuf,
    state: Mutex<State>,
    /// Files that were skipped since the start.
    skipped: AtomicU64,
    /// Locked until it is closed.
    _lock: File,
}

/// The files that there are.
#[derive(Debug, Default)]
struct State {
    contents: HashMap<Sha256Hash, Content>,
    /// By tenant and name: the version that is stored, or was skipped at the start.
    versions: HashMap<(String, String), StoredVersion>,
    /// The size of all files of values.
    bytes: u64,
}

/// The file of a value.
#[derive(Debug)]
struct Content {
    bytes: u64,
    /// Versions with this value, and puts of it that are not complete.
    references: usize,
}

/// The files of a version.
#[derive(Clone, Copy, Debug)]
struct StoredVersion {
    version: u64,
    content: Sha256Hash,
}

/// The error of opening a directory of operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenOperandsError {
    /// Another process uses the directory.
    #[error("the operands in {} are in use by another process", path.display())]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The directory cannot be created, locked, read or written.
    #[error("the operands in {} cannot be opened", path.display())]
    Io {
        /// The directory, or the file in it.
        path: PathBuf,
        /// The error of the operating system.
        #[source]
        error: io::Error,
    },
}

/// The error of writing a file.
#[derive(Debug)]
pub(super) struct WriteError {
    error: io::Error,
    /// The size of the file.
    need: u64,
}

impl From<WriteError> for OperandError {
    fn from(WriteError { error, need }: WriteError) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                Self::DiskFull { need }
            }
            _ => Self::Directory(Arc::new(error)),
        }
    }
}

impl OperandDirectory {
    /// Opens a directory, which is created unless it exists, and finds out what is in it.
    pub(super) fn open(path: &Path) -> Result<(Self, Scan), OpenOperandsError> {
        let failed = |error| OpenOperandsError::Io { path: path.to_owned(), error };
        files::create_private_directory(path).map_err(failed)?;
        if files::is_writable_by_others(path).map_err(failed)? {
            tracing::warn!(path = %path.display(), "other users can change the files of the directory of operands");
        }
        let lock = lock(path)?;
        let (state, skipped) = (Mutex::default(), AtomicU64::new(0));
        let this = Self { path: path.to_owned(), state, skipped, _lock: lock };
        let scan = this.scan().map_err(failed)?;
        Ok((this, scan))
    }

    /// Returns the size of all files of values.
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    /// Returns how many files were skipped since the start.
    pub(super) fn skipped(&self) -> u64 {
        self.skipped.load(Ordering::Relaxed)
    }

    /// Reports a file that cannot be used. It stays where it is.
    fn skip(&self, file: &str, reason: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(directory = %self.path.display(), file, reason, "skipped a file of operands");
    }

    /// Reports a version that cannot be used. Its files stay where they are until the operand is stored again.
    pub(super) fn skip_version(&self, manifest: &Manifest, reason: &str) {
        self.skipped.fetch_add(1, Ordering::Relaxed);
        let Manifest { name, version, content, .. } = manifest;
        let file = format!("{content}.{CONTENT}");
        let directory = self.path.display();
        tracing::warn!(%directory, file, operand = name, version, reason, "skipped a stored operand");
    }

    /// Reads the value of a version.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub(super) fn read(&self, manifest: &Manifest) -> Result<Tensors, String> {
        let Manifest { content, content_bytes, r#type, .. } = manifest;
        content::read(&self.content_path(*content), *content, *content_bytes, r#type)
    }

    /// Writes a value to the disk. Its file is removed unless a version of it is [committed](Self::commit).
    pub(super) fn write_value(&self, type_name: &str, tensors: &Tensors) -> Result<StoredValue<'_>, WriteError> {
        let content::Written { file, hash, bytes } = content::write(&self.path, type_name, tensors)?;
        let failed = |error| WriteError { error, need: bytes };
        {
            // Under the lock, so that no removal of the same value comes between. A file that is there is replaced: it
            // may be damaged.
            let mut state = self.state.lock();
            file.rename(&self.content_path(hash)).map_err(failed)?;
            state.add_reference(hash, bytes);
        }
        let value = StoredValue { directory: self, hash, bytes };
        files::sync_directory(&self.path).map_err(failed)?;
        Ok(value)
    }

    /// Writes the record of a version to the disk, and removes the version that it replaces. Not called by two threads at a
    /// time.
    pub(super) fn commit(&self, value: StoredValue<'_>, manifest: &Manifest) -> Result<(), WriteError> {
        let Manifest { tenant, name, version, .. } = manifest;
        record::write(&self.path, &TenantRecord { tenant: tenant.clone(), last_version: *version })?;
        record::write(&self.path, manifest)?;
        if let Err(error) = files::sync_directory(&self.path) {
            self.remove_record(tenant, name, *version);
            return Err(WriteError { error, need: value.bytes });
        }
        let stored = StoredVersion { version: *version, content: value.hash };
        let replaced = {
            let mut state = self.state.lock();
            // The version's own, besides that of `value`.
            state.add_reference(value.hash, value.bytes);
            state.versions.insert((tenant.clone(), name.clone()), stored)
        };
        if let Some(replaced) = replaced {
            self.remove_record(tenant, name, replaced.version);
            self.release(replaced.content);
        }
        Ok(())
    }

    /// Removes a version from the disk.
    pub(super) fn remove(&self, tenant: &str, name: &str) -> io::Result<()> {
        let key = (tenant.to_owned(), name.to_owned());
        let Some(stored) = self.state.lock().versions.get(&key).copied() else { return Ok(()) };
        files::remove_if_present(&self.path.join(manifest_name(tenant, name, stored.version)))?;
        files::sync_directory(&self.path)?;
        self.state.lock().versions.remove(&key);
        self.release(stored.content);
        Ok(())
    }

    /// Removes a record that no longer counts. If that fails, the next start does it.
    fn remove_record(&self, tenant: &str, name: &str, version: u64) {
        self.remove_unused(&manifest_name(tenant, name, version));
    }

    /// Removes one reference to a value, and its file with the last one.
    fn release(&self, hash: Sha256Hash) {
        let mut state = self.state.lock();
        if state.remove_reference(hash) {
            self.remove_unused(&format!("{hash}.{CONTENT}"));
        }
    }

    fn remove_unused(&self, file: &str) {
        if let Err(error) = files::remove_if_present(&self.path.join(file)) {
            tracing::warn!(directory = %self.path.display(), file, %error, "cannot remove an unused file of operands");
        }
    }

    fn content_path(&self, hash: Sha256Hash) -> PathBuf {
        self.path.join(format!("{hash}.{CONTENT}"))
    }
}

/// The extension of the files of values.
const CONTENT: &str = "operand";

impl State {
    fn add_reference(&mut self, hash: Sha256Hash, bytes: u64) {
        let content = self.contents.entry(hash).or_insert(Content { bytes: 0, references: 0 });
        self.bytes = self.bytes - content.bytes + bytes;
        content.bytes = bytes;
        content.references += 1;
    }

    /// Returns whether it was the last one.
    fn remove_reference(&mut self, hash: Sha256Hash) -> bool {
        let Some(content) = self.contents.get_mut(&hash) else { return false };
        content.references -= 1;
        if content.references > 0 {
            return false;
        }
        self.bytes -= content.bytes;
        self.contents.remove(&hash);
        true
    }
}

/// A value on the disk. Its file is removed when this is dropped, unless a version has the same value.
pub(super) struct StoredValue<'a> {
    directory: &'a OperandDirectory,
    hash: Sha256Hash,
    bytes: u64,
}

impl StoredValue<'_> {
    /// Returns the manifest of a version of this value.
    pub(super) fn manifest(&self, version: &super::OperandVersion, tenant: &str) -> Manifest {
        Manifest {
            tenant: tenant.to_owned(),
            name: version.name().to_owned(),
            version: version.version(),
            public: version.is_public(),
            placement: version.placement(),
            r#type: version.type_name().to_owned(),
            bytes: version.bytes(),
            created_ms: version.created_ms(),
            digest: version.digest(),
            content: self.hash,
            content_bytes: self.bytes,
        }
    }
}

impl Drop for StoredValue<'_> {
    fn drop(&mut self) {
        self.directory.release(self.hash);
    }
}

/// Locks a directory for this process, until the file is closed.
fn lock(directory: &Path) -> Result<File, OpenOperandsError> {
    let path = directory.join(LOCK);
    let file = files::private_file().read(true).write(true).create(true).truncate(false).open(&path);
    let failed = |error| OpenOperandsError::Io { path: path.clone(), error };
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenOperandsError::InUse { path: directory.to_owned() }),
        Err(TryLockError::Error(error)) => Err(failed(error)),
    }
}
