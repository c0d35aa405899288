//! [`OperandVersion`]: one version of an operand, with the memory that it is charged for.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use schemars::JsonSchema;
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use super::store::Charge;
use super::value::{ErasedValue, OperandArray, OperandValue};

/// One version of an operand.
///
/// It lives until it was replaced or deleted and the last request that refers to it has ended.
pub struct OperandVersion {
    // Dropped in this order: the memory counts as used until it was freed.
    value: Arc<dyn ErasedValue>,
    charge: Charge,
    id: u64,
    name: Arc<str>,
    version: u64,
    tag: String,
    public: bool,
    created: SystemTime,
    uses: AtomicU64,
}

impl OperandVersion {
    pub(super) fn new(
        value: Arc<dyn ErasedValue>,
        digest: u64,
        charge: Charge,
        (name, version): (Arc<str>, u64),
        public: bool,
    ) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        Self {
            value,
            charge,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            name,
            version,
            tag: format!("\"{version}-{digest:016x}\""),
            public,
            created: SystemTime::now(),
            uses: AtomicU64::new(0),
        }
    }

    /// Returns the name of the operand.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn shared_name(&self) -> Arc<str> {
        Arc::clone(&self.name)
    }

    /// Returns the version: 1, 2, 3 and so on for the operands of a tenant.
    pub fn version(&self) -> u64 {
        self.version
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
        self.charge.bytes()
    }

    /// Returns whether other tenants may use it.
    pub fn is_public(&self) -> bool {
        self.public
    }

    /// Returns the value's arrays.
    pub fn arrays(&self) -> Vec<OperandArray<'_>> {
        self.value.arrays()
    }

    /// Returns the value if its type is `T`.
    pub fn value<T: OperandValue>(&self) -> Option<Arc<T>> {
        Arc::clone(&self.value).downcast()
    }

    /// Returns the name of the value's type.
    pub fn type_name(&self) -> &'static str {
        self.value.type_name()
    }

    /// Returns how many requests have referred to it.
    pub fn uses(&self) -> u64 {
        self.uses.load(Ordering::Relaxed)
    }

    pub(super) fn count_use(&self) {
        self.uses.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns what clients see of it.
    pub fn info(&self) -> OperandInfo {
        let created = self.created.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        OperandInfo {
            name: self.name.to_string(),
            version: self.version,
            r#type: self.type_name(),
            bytes: self.bytes(),
            public: self.public,
            created_ms: u64::try_from(created.as_millis()).unwrap_or(u64::MAX),
            uses: self.uses(),
            summary: self.value.summary(),
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

/// Hashes the content of a value: the names, types and elements of its arrays.
pub(super) fn digest(value: &dyn ErasedValue) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(value.type_name().as_bytes());
    for OperandArray { name, dtype, bytes } in value.arrays() {
        for part in [name.as_bytes(), dtype.as_str().as_bytes(), bytes] {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part);
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
    /// The type: `graph` or `tensors`.
    pub r#type: &'static str,
    /// The size in host memory.
    pub bytes: u64,
    /// Whether other tenants may use it.
    pub public: bool,
    /// When it was stored, in milliseconds since 1970.
    pub created_ms: u64,
    /// How many requests have referred to it.
    pub uses: u64,
    /// What the type says of the value: the nodes and edges of a graph, the dtypes and shapes of tensors.
    pub summary: serde_json::Value,
    /// The entity tag, for `If-Match` and `If-None-Match`.
    pub etag: String,
}
