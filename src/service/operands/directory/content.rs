//! The files of operands' values. The [module above](super) describes their format.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::WriteError;
use super::files::{Sha256Hash, TemporaryFile};
use crate::service::{Buffer, DType, Tensor, Tensors};

const MAGIC: [u8; 8] = *b"TKOPERND";

/// The format of the file; files of another are skipped.
const FORMAT: u32 = 1;

/// The length of the magic number, the format and the length of the table.
const HEAD: usize = 16;

/// Tensors start at multiples of this, the length of a cache line.
const ALIGNMENT: u64 = 64;

/// Bytes that are hashed while they are in the processor's cache.
const CHUNK: usize = 256 << 10;

/// What the tensors of a file are.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    r#type: String,
    tensors: Vec<Section>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Section {
    name: String,
    dtype: String,
    shape: Vec<usize>,
}

/// A file that was written to the disk and has its temporary name.
pub(super) struct Written {
    pub(super) file: TemporaryFile,
    pub(super) hash: Sha256Hash,
    pub(super) bytes: u64,
}

/// Writes a value to a temporary file.
pub(super) fn write(directory: &Path, type_name: &str, tensors: &Tensors) -> Result<Written, WriteError> {
    let section = |(name, tensor): (&str, &Tensor)| {
        let (name, dtype, shape) = (name.to_owned(), tensor.dtype(), tensor.shape().to_vec());
        debug_assert_eq!(DType::from_name(dtype.as_str()), Some(dtype), "a type that cannot be read again");
        Section { name, dtype: dtype.as_str().to_owned(), shape }
    };
    let table = Table { r#type: type_name.to_owned(), tensors: tensors.iter().map(section).collect() };
    let table = serde_json::to_vec(&table).map_err(|error| WriteError { error: error.into(), need: 0 })?;
    let sizes = tensors.iter().map(|(_, tensor)| tensor.data().len() as u64);
    let end = (HEAD + table.len()) as u64;
    let need = sizes.fold(end, |end, size| end.next_multiple_of(ALIGNMENT) + size);
    write_file(directory, &table, tensors).map_err(|error| WriteError { error, need })
}

fn write_file(directory: &Path, table: &[u8], tensors: &Tensors) -> io::Result<Written> {
    let table_len = u32::try_from(table.len()).map_err(|_| io::ErrorKind::FileTooLarge)?;
    let mut writer = HashingWriter { file: TemporaryFile::create(directory)?, hasher: Sha256::new(), written: 0 };
    for part in [&MAGIC[..], &FORMAT.to_le_bytes(), &table_len.to_le_bytes(), table] {
        writer.write(part)?;
    }
    for (_, tensor) in tensors.iter() {
        writer.write(&[0; ALIGNMENT as usize][..padding(writer.written)])?;
        writer.write(tensor.data())?;
    }
    writer.file.sync()?;
    Ok(Written { file: writer.file, hash: writer.hasher.into(), bytes: writer.written })
}

/// The number of zeros between the end of a part and the next tensor.
fn padding(end: u64) -> usize {
    (end.next_multiple_of(ALIGNMENT) - end) as usize
}

struct HashingWriter {
    file: TemporaryFile,
    hasher: Sha256,
    written: u64,
}

impl HashingWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for chunk in bytes.chunks(CHUNK) {
            self.hasher.update(chunk);
            self.file.write_all(chunk)?;
        }
        self.written += bytes.len() as u64;
        Ok(())
    }
}

/// Reads the value of a file into memory of its own, aligned for any element, and checks it against its hash and size.
///
/// # Errors
/// Why it cannot be used.
pub(super) fn read(path: &Path, hash: Sha256Hash, bytes: u64, type_name: &str) -> Result<Tensors, String> {
    let failed = |error: io::Error| format!("the file of the value cannot be read: {error}");
    let file = File::open(path).map_err(failed)?;
    let size = file.metadata().map_err(failed)?.len();
    if size != bytes {
        return Err(format!("the file of the value has {size} bytes where {bytes} were written"));
    }
    let mut reader = HashingReader { file, hasher: Sha256::new(), read: 0 };
    let table = reader.table(size)?;
    if table.r#type != type_name {
        return Err(format!("the value is of type {} where {type_name} is expected", table.r#type));
    }
    let sections = layout(&table, reader.read, size)?;
    let mut tensors = Tensors::new();
    for (section, (dtype, len)) in table.tensors.into_iter().zip(sections) {
        reader.read(&mut [0; ALIGNMENT as usize][..padding(reader.read)]).map_err(failed)?;
        let mut words = Buffer::<u64>::zeroed(len.div_ceil(size_of::<u64>()));
        reader.read(&mut bytemuck::cast_slice_mut(&mut words)[..len]).map_err(failed)?;
        let tensor = Tensor::new(dtype, section.shape, words.into_bytes().slice(..len));
        let inserted = tensor.and_then(|tensor| tensors.insert(section.name, tensor));
        inserted.map_err(|error| format!("the table of tensors is invalid: {error}"))?;
    }
    if Sha256Hash::from(reader.hasher) != hash {
        return Err("the checksum of the value does not match: its file is damaged".to_owned());
    }
    Ok(tensors)
}

/// Returns the type and the size of each tensor, after checking that together they fill the file: nothing is allocated for
/// a table that claims more.
fn layout(table: &Table, end: u64, size: u64) -> Result<Vec<(DType, usize)>, String> {
    let mut end = end;
    let sections: Option<Vec<_>> = table
        .tensors
        .iter()
        .map(|Section { dtype, shape, .. }| {
            let dtype = DType::from_name(dtype)?;
            let len = shape.iter().try_fold(dtype.size(), |len, &side| len.checked_mul(side))?;
            end = end.checked_next_multiple_of(ALIGNMENT)?.checked_add(len as u64)?;
            Some((dtype, len))
        })
        .collect();
    sections.filter(|_| end == size).ok_or_else(|| "the table of tensors does not fit the file".to_owned())
}

struct HashingReader {
    file: File,
    hasher: Sha256,
    read: u64,
}

impl HashingReader {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        for chunk in bytes.chunks_mut(CHUNK) {
            self.file.read_exact(chunk)?;
            self.hasher.update(chunk);
        }
        self.read += bytes.len() as u64;
        Ok(())
    }

    /// Reads the head and the table of a file of this size.
    fn table(&mut self, size: u64) -> Result<Table, String> {
        let not_a_value = || "the file of the value is not one of format 1".to_owned();
        let mut head = [0; HEAD];
        self.read(&mut head).map_err(|_| not_a_value())?;
        let [format, table_len] =
            [8, 12].map(|at| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
        if head[..8] != MAGIC || format != FORMAT || u64::from(table_len) > size {
            return Err(not_a_value());
        }
        let mut table = vec![0; table_len as usize];
        self.read(&mut table).map_err(|_| not_a_value())?;
        serde_json::from_slice(&table).map_err(|error| format!("the table of tensors is invalid: {error}"))
    }
}
