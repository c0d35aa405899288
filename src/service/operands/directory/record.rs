//! The small files of a directory of operands: a [`Manifest`] for each version, and a [`TenantRecord`] for each tenant.
//!
//! A line of text with the format, the kind and a SHA-256 of what follows, and a JSON object.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::WriteError;
use super::files::{Sha256Hash, TemporaryFile};
use crate::service::Placement;

/// The format of records; a change of their fields has another number.
const FORMAT: &str = "tower-kernels-operands/1";

/// Maximum size of a record that is read, in bytes. Names have at most 128.
const MAX_SIZE: u64 = 64 << 10;

/// A small file that is written and read as a whole.
pub(super) trait Record: Serialize + DeserializeOwned {
    /// The kind of record, which is the extension of its file.
    const KIND: &'static str;

    /// Returns the name of the file. It depends on what the record is about, so that another file of the same name is one
    /// about the same.
    fn file_name(&self) -> String;
}

/// What is stored of a version besides its value.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::service::operands) struct Manifest {
    /// The tenant; empty without one.
    pub(in crate::service::operands) tenant: String,
    pub(in crate::service::operands) name: String,
    pub(in crate::service::operands) version: u64,
    pub(in crate::service::operands) public: bool,
    pub(in crate::service::operands) placement: Placement,
    /// The name of the value's type.
    pub(in crate::service::operands) r#type: String,
    /// The size in host memory.
    pub(in crate::service::operands) bytes: u64,
    /// Milliseconds since 1970.
    pub(in crate::service::operands) created_ms: u64,
    /// The hash in the entity tag.
    pub(in crate::service::operands) digest: u64,
    /// The file of the value.
    pub(super) content: Sha256Hash,
    /// The size of that file.
    pub(super) content_bytes: u64,
}

impl Manifest {
    /// Returns when the version was stored.
    pub(in crate::service::operands) fn created(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(self.created_ms)
    }
}

impl Record for Manifest {
    const KIND: &'static str = "version";

    fn file_name(&self) -> String {
        manifest_name(&self.tenant, &self.name, self.version)
    }
}

/// Returns the name of the file of a version's manifest.
pub(super) fn manifest_name(tenant: &str, name: &str, version: u64) -> String {
    let hash = Sha256Hash::of_texts(&[tenant, name, &version.to_string()]);
    format!("{hash}.{}", Manifest::KIND)
}

/// The highest version that a tenant has had, so that none is used twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantRecord {
    /// Empty for operands without a tenant.
    pub(super) tenant: String,
    pub(super) last_version: u64,
}

impl Record for TenantRecord {
    const KIND: &'static str = "tenant";

    fn file_name(&self) -> String {
        format!("{}.{}", Sha256Hash::of_texts(&[&self.tenant]), Self::KIND)
    }
}

/// Writes a record under its name, in place of the one before.
pub(super) fn write<R: Record>(directory: &Path, record: &R) -> Result<(), WriteError> {
    let json = serde_json::to_string(record).map_err(|error| WriteError { error: error.into(), need: 0 })?;
    let text = format!("{FORMAT} {} {}\n{json}\n", R::KIND, Sha256Hash::of_bytes(format!("{json}\n").as_bytes()));
    let write = || {
        let mut file = TemporaryFile::create(directory)?;
        file.write_all(text.as_bytes())?;
        file.sync()?;
        file.rename(&directory.join(record.file_name()))
    };
    write().map_err(|error| WriteError { error, need: text.len() as u64 })
}

/// Reads the record of a file.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn read<R: Record>(path: &Path) -> Result<R, String> {
    let text = read_small(path)?;
    let (head, json) = text.split_once('\n').ok_or("the first line is not complete")?;
    let [format, kind, hash] = head.split(' ').collect::<Vec<_>>()[..] else {
        return Err("the first line is not that of a record of operands".to_owned());
    };
    if format != FORMAT {
        return Err(format!("the format is not {FORMAT}"));
    }
    if kind != R::KIND || hash.parse() != Ok(Sha256Hash::of_bytes(json.as_bytes())) {
        return Err("the checksum does not match: the file is damaged".to_owned());
    }
    let record: R =
        serde_json::from_str(json).map_err(|error| format!("the fields are not those of {kind}: {error}"))?;
    if path.file_name().is_none_or(|name| *name != *record.file_name()) {
        return Err("the file has the name of another record".to_owned());
    }
    Ok(record)
}

fn read_small(path: &Path) -> Result<String, String> {
    let size = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if size > MAX_SIZE {
        return Err(format!("the file has {size} bytes, and {MAX_SIZE} is the most"));
    }
    fs::read_to_string(path).map_err(|error| error.to_string())
}
