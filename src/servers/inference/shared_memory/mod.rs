//! System shared memory: regions that clients register, and the tensors in them.

mod file;
mod inputs;
mod parameters;

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use self::file::SharedFile;
pub(crate) use self::inputs::{RegionInput, RegionInputs};
pub(crate) use self::parameters::RegionParameters;
use crate::error::ErrorKind;
use crate::request::limits::check_name;
use crate::service::{Buffer, InvalidInput};

/// Maximum number of regions, each of which is an open file.
const MAX_REGIONS: usize = 256;

/// Maximum length of the name of a file.
const MAX_FILE_NAME: usize = 255;

/// The regions that a client can use, or why it can use none.
pub(crate) type RegionAccess = Result<Regions, NoSharedMemory>;

/// Why a client can use no shared memory.
#[derive(Clone, Copy, Debug, thiserror::Error)]
pub(crate) enum NoSharedMemory {
    #[error("system shared memory is not enabled on this server; send the data of tensors")]
    Off,
    #[error("system shared memory is for clients on a loopback address, and that of this client is unknown")]
    UnknownPeer,
    #[error("system shared memory is for clients on a loopback address, and this client has {0}")]
    Remote(IpAddr),
    #[error("system shared memory is not for pages in browsers, whose requests have the header `origin`")]
    Browser,
}

impl NoSharedMemory {
    /// The kind of the error.
    pub(crate) const KIND: ErrorKind = ErrorKind::Unsupported;
}

/// Why a region is not registered or described.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RegionError {
    #[error(transparent)]
    Denied(#[from] NoSharedMemory),
    #[error("there is no region {0:?}")]
    Unknown(String),
    #[error("the region {0:?} is registered already; unregister it first")]
    AlreadyExists(String),
    #[error("{MAX_REGIONS} regions are registered, and no more can be; unregister one first")]
    TooMany,
    #[error(transparent)]
    Invalid(#[from] InvalidInput),
}

impl RegionError {
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Denied(_) => NoSharedMemory::KIND,
            Self::Unknown(_) => ErrorKind::NotFound,
            Self::AlreadyExists(_) => ErrorKind::AlreadyExists,
            Self::TooMany => ErrorKind::InsufficientStorage,
            Self::Invalid(_) => ErrorKind::InvalidArgument,
        }
    }
}

/// A registered part of an object of shared memory.
#[derive(Debug)]
pub(crate) struct Region {
    pub(crate) name: String,
    /// The object, as the client named it.
    pub(crate) key: String,
    /// Where the region begins in the object.
    pub(crate) offset: u64,
    pub(crate) byte_size: u64,
    file: SharedFile,
}

/// The registered regions. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Regions(Arc<Mutex<BTreeMap<String, Arc<Region>>>>);

impl Regions {
    /// Registers a part of an object of shared memory, which is opened now and kept open.
    ///
    /// # Errors
    /// The name is invalid or taken, there are too many regions, or the object does not exist, cannot be opened for
    /// reading and writing, or does not have this part.
    pub(crate) fn register(&self, name: &str, key: &str, offset: u64, byte_size: u64) -> Result<(), RegionError> {
        check_name(name).map_err(|error| InvalidInput::new("name", error.to_string()))?;
        self.check_free(name, &self.0.lock())?;
        let invalid = |error: io::Error| InvalidInput::new("key", format!("the object cannot be used: {error}"));
        let file = SharedFile::open(file_name(key)?).map_err(invalid)?;
        let length = file.length().map_err(invalid)?;
        if byte_size == 0 {
            return Err(InvalidInput::new("byte_size", "it is 0").into());
        }
        if offset.checked_add(byte_size).is_none_or(|end| end > length) {
            let reason =
                format!("{byte_size} bytes from offset {offset} on are not within the object, which has {length}");
            return Err(InvalidInput::new("byte_size", reason).into());
        }
        let region = Region { name: name.to_owned(), key: key.to_owned(), offset, byte_size, file };
        let mut regions = self.0.lock();
        // Again, as the file was opened without the lock.
        self.check_free(name, &regions)?;
        regions.insert(name.to_owned(), Arc::new(region));
        Ok(())
    }

    fn check_free(&self, name: &str, regions: &BTreeMap<String, Arc<Region>>) -> Result<(), RegionError> {
        if regions.contains_key(name) {
            return Err(RegionError::AlreadyExists(name.to_owned()));
        }
        if regions.len() < MAX_REGIONS { Ok(()) } else { Err(RegionError::TooMany) }
    }

    /// Removes a region, or all without a name. One that does not exist is as one that was removed, as for Triton.
    /// Requests that use it keep it open until they end.
    pub(crate) fn unregister(&self, name: Option<&str>) {
        // Closed without the lock.
        let removed = match name {
            Some(name) => self.0.lock().remove(name).into_iter().collect(),
            None => std::mem::take(&mut *self.0.lock()).into_values().collect::<Vec<_>>(),
        };
        drop(removed);
    }

    /// Returns the region of this name, or all without a name.
    ///
    /// # Errors
    /// There is no such region.
    pub(crate) fn status(&self, name: Option<&str>) -> Result<Vec<Arc<Region>>, RegionError> {
        let regions = self.0.lock();
        let Some(name) = name else { return Ok(regions.values().cloned().collect()) };
        let region =
            regions.get(name).ok_or_else(|| RegionError::Unknown(crate::text::prefix(name, 128).to_string()))?;
        Ok(vec![Arc::clone(region)])
    }

    fn find(&self, name: &str) -> Option<Arc<Region>> {
        self.0.lock().get(name).cloned()
    }
}

/// Returns the name of the file of an object: as for `shm_open`, slashes at the beginning are ignored.
fn file_name(key: &str) -> Result<&str, InvalidInput> {
    let name = key.trim_start_matches('/');
    let is_file = !matches!(name, "" | "." | "..") && name.len() <= MAX_FILE_NAME && !name.contains(['/', '\0']);
    let reason = "it is not the name of a shared memory object: one name of at most 255 bytes, with or without a slash before it";
    is_file.then_some(name).ok_or_else(|| InvalidInput::new("key", reason))
}

/// A part of a region that a tensor is in. It keeps the region's object open.
#[derive(Clone, Debug)]
pub(crate) struct RegionSlice {
    region: Arc<Region>,
    /// Where it begins in the region.
    offset: u64,
    bytes: usize,
}

impl RegionSlice {
    /// Returns a part of a region. The fields of errors are those of parameters.
    fn new(region: Arc<Region>, offset: u64, byte_size: u64) -> Result<Self, InvalidInput> {
        let is_within = offset.checked_add(byte_size).is_some_and(|end| end <= region.byte_size);
        match usize::try_from(byte_size) {
            Ok(bytes) if is_within => Ok(Self { region, offset, bytes }),
            _ => {
                let reason = format!(
                    "{byte_size} bytes from offset {offset} on are not within the region {:?}, which has {}",
                    region.name, region.byte_size
                );
                Err(InvalidInput::new("parameters.shared_memory_byte_size", reason))
            }
        }
    }

    pub(crate) fn region(&self) -> &str {
        &self.region.name
    }

    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Returns its length.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Checks that the object has not been truncated, before memory is allocated for what it should have.
    fn check_length(&self) -> Result<(), InvalidInput> {
        let length = self.region.file.length().map_err(|error| self.unusable(&error.to_string()))?;
        // Within the object when it was registered, so that this does not overflow.
        if self.position() + self.bytes as u64 <= length {
            return Ok(());
        }
        Err(self.unusable("its object has been truncated"))
    }

    /// Copies it, aligned for every type. The caller has reserved the memory.
    fn read(&self) -> Result<Bytes, InvalidInput> {
        self.check_length()?;
        let mut memory: Buffer<u64> = Buffer::zeroed(self.bytes.div_ceil(size_of::<u64>()));
        let data: &mut [u8] = bytemuck::cast_slice_mut(&mut memory);
        self.region.file.read(&mut data[..self.bytes], self.position()).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => self.unusable("its object has been truncated"),
            _ => self.unusable(&error.to_string()),
        })?;
        Ok(memory.into_bytes().slice(..self.bytes))
    }

    /// Writes an output to its beginning. The field of the error is that of the parameters.
    ///
    /// # Errors
    /// The output is larger, or the object is truncated or cannot be written.
    pub(crate) fn write(&self, output: &[u8]) -> Result<(), InvalidInput> {
        self.check_fits(output.len())?;
        // A write would extend the object.
        self.check_length()?;
        let written = self.region.file.write(output, self.position());
        written.map_err(|error| self.unusable(&error.to_string()))
    }

    /// Checks that an output of this length fits. The field of the error is that of the parameters.
    pub(crate) fn check_fits(&self, output: usize) -> Result<(), InvalidInput> {
        if output <= self.bytes {
            return Ok(());
        }
        let reason = format!("it is {}, but the output has {output} bytes", self.bytes);
        Err(InvalidInput::new("parameters.shared_memory_byte_size", reason))
    }

    fn position(&self) -> u64 {
        self.region.offset + self.offset
    }

    fn unusable(&self, reason: &str) -> InvalidInput {
        let reason = format!("the region {:?} cannot be used: {reason}", self.region.name);
        InvalidInput::new("parameters.shared_memory_region", reason)
    }
}

#[cfg(all(test, feature = "hyper", target_os = "linux"))]
mod tests;
