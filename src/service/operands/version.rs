//! [`OperandVersion`]: one version of an operand.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

use super::memory::OperandMemory;
use super::placement::Placement;
use super::reference::OperandReference;
use super::value::{ErasedValue, OperandArray, OperandValue};
#[cfg(feature = "cuda")]
use crate::cuda::HostArrays;

/// One version of an operand.
///
/// It lives until it was replaced or deleted and the last request that refers to it has ended.
pub struct OperandVersion {
    memory: OperandMemory,
    id: u64,
    name: Arc<str>,
    version: u64,
    digest: u64,
    tag: String,
    public: bool,
    created: SystemTime,
    uses: AtomicU64,
}

impl OperandVersion {
    pub(super) fn new(
        memory: OperandMemory,
        digest: u64,
        (name, version): (Arc<str>, u64),
        public: bool,
        created: SystemTime,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self::with_id(NEXT.fetch_add(1, Ordering::Relaxed), memory, digest, (name, version), public, created)
    }

    /// Creates the version that another process knows by this id. Its content is not hashed, as no client sees its tag.
    #[cfg(feature = "isolation")]
    pub(super) fn received(id: u64, memory: OperandMemory, identity: (Arc<str>, u64)) -> Self {
        Self::with_id(id, memory, 0, identity, false, SystemTime::now())
    }

    fn with_id(
        id: u64,
        memory: OperandMemory,
        digest: u64,
        (name, version): (Arc<str>, u64),
        public: bool,
        created: SystemTime,
    ) -> Self {
        Self {
            id,
            name,
            version,
            digest,
            tag: format!("\"{version}-{digest:016x}\""),
            public,
            created,
            uses: AtomicU64::new(0),
            memory,
        }
    }

    /// Returns the name of the operand.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Returns the version: 1, 2, 3 and so on for the operands of a tenant.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the reference to this version, such as `payments@7`.
    pub(crate) fn reference(&self) -> OperandReference<'_> {
        OperandReference { name: &self.name, version: Some(self.version), tensor: None }
    }

    /// Returns a number that no other version has in this process. Requests on the same version can share runs and cached
    /// outputs by it, without comparing contents.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Returns the entity tag, with its quotation marks: the version and a hash of the content.
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Returns the size of the value's arrays in bytes.
    pub fn bytes(&self) -> u64 {
        self.memory.bytes()
    }

    /// Returns whether other tenants may use it.
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Returns on which devices it is.
    pub fn placement(&self) -> Placement {
        self.memory.placement()
    }

    /// Returns the ordinals of the devices that have copies of all arrays now. Arrays below 4 KiB have none.
    pub fn devices(&self) -> Vec<u32> {
        self.memory.devices()
    }

    /// Returns the arrays as devices find them; `None` where no device gets copies.
    #[cfg(feature = "cuda")]
    pub(crate) fn host_arrays(&self) -> Option<&HostArrays> {
        self.memory.host_arrays()
    }

    /// Lets devices find the arrays that the value has made since the last call.
    #[cfg(feature = "cuda")]
    pub(crate) fn register_derived_arrays(&self) {
        self.memory.register_derived_arrays();
    }

    /// Returns the value's arrays.
    pub fn arrays(&self) -> Vec<OperandArray<'_>> {
        self.memory.value().arrays()
    }

    /// Returns the value if its type is `T`.
    pub fn value<T: OperandValue>(&self) -> Option<Arc<T>> {
        Arc::clone(self.memory.value()).downcast()
    }

    #[cfg(feature = "isolation")]
    pub(super) fn erased_value(&self) -> &dyn ErasedValue {
        &**self.memory.value()
    }

    /// Returns the name of the value's type.
    pub fn type_name(&self) -> &'static str {
        self.memory.value().type_name()
    }

    /// Returns how many requests have referred to it.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    pub(super) fn count_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns the hash of the content that is in the entity tag.
    pub(super) fn digest(&self) -> u64 {
        self.digest
    }

    /// Returns when it was stored, in milliseconds since 1970.
    pub(super) fn created_ms(&self) -> u64 {
        let created = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        u64::try_from(created.as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns what clients see of it.
    pub fn info(&self) -> OperandInfo {
        OperandInfo {
            name: self.name.to_string(),
            version: self.version,
            r#type: self.type_name(),
            bytes: self.bytes(),
            public: self.public,
            placement: self.placement(),
            devices: self.devices(),
            created_ms: self.created_ms(),
            uses: self.uses(),
            summary: self.memory.value().summary(),
            etag: self.tag.clone(),
        }
    }
}

impl fmt::Debug for OperandVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OperandVersion")
            .field("name", &self.name)
            .field("version", &self.version)
            .field("type", &self.type_name())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Bytes of an array that are hashed as one piece: about 100 µs.
const PIECE: usize = 1 << 20;

/// Hashes the content of a value: the names, types, lengths and elements of its arrays. The pieces of a large array are
/// hashed on all processors, and then their hashes.
pub(super) fn digest(value: &dyn ErasedValue) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(value.type_name().as_bytes());
    for OperandArray { name, dtype, bytes } in value.arrays() {
        for text in [name, dtype.as_str()] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        if bytes.len() <= PIECE {
            hasher.update(bytes);
        } else {
            let pieces: Vec<u64> = bytes.par_chunks(PIECE).map(xxh3_64).collect();
            pieces.iter().for_each(|hash| hasher.update(&hash.to_le_bytes()));
        }
    }
    hasher.digest()
}

/// What clients see of an operand.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "Operand")]
#[non_exhaustive]
pub struct OperandInfo {
    /// The name.
    pub name: String,
    /// The version.
    pub version: u64,
    /// The type: `graph`, `vectors` or `tensors`.
    pub r#type: &'static str,
    /// The size in host memory.
    pub bytes: u64,
    /// Whether other tenants may use it.
    pub public: bool,
    /// On which devices it is.
    pub placement: Placement,
    /// The ordinals of the devices that have copies of all arrays now.
    pub devices: Vec<u32>,
    /// When it was stored, in milliseconds since 1970.
    pub created_ms: u64,
    /// How many requests have referred to it.
    pub uses: u64,
    /// What the type says of the value: the nodes and edges of a graph, the rows and dimension of vectors, the dtypes and shapes of
    /// tensors.
    pub summary: serde_json::Value,
    /// The entity tag, for `If-Match` and `If-None-Match`.
    pub etag: String,
}
