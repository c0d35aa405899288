//! Carries the typed inputs and outputs of kernels to another process of the same program, and back.
//!
//! A [`Transfer`] is a head and sections. The head is the value in MessagePack, structs as maps and in the human-readable mode
//! of serde, so that every type takes the way that it takes for JSON; other than JSON, it keeps NaN, its payload included, and
//! the infinities. Arrays are left out of the head: each is a section, which shares the array's memory where it can, and the
//! value that is read shares the memory of the section if that is aligned. A section that starts at a multiple of 64 bytes is.
//!
//! [Operands](super::operands) do not cross: the head has the ids of their versions, which the reader looks up.
//!
//! The reader trusts neither head nor sections. Whatever they are, it returns a value or an error, and allocates in proportion
//! to their size. Inputs are not validated again.

mod error;
mod job;
#[cfg(test)]
mod tests;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::codec::{collecting_sections, with_sections};
use super::operands::with_versions;
use super::{KernelError, RegisteredKernel, Typed, VersionLookup};
use crate::error::{Classify, ErrorKind, provide};

pub(crate) use error::{read_error, write_error};

/// A value that crosses to another process.
#[derive(Clone, Debug)]
pub(crate) struct Transfer {
    /// The value without its arrays.
    pub(crate) head: Vec<u8>,
    /// The arrays, to which the head refers by their indices.
    pub(crate) sections: Vec<Bytes>,
}

/// As in `serde_json`. Types read a level by recursion.
const MAX_DEPTH: usize = 128;

impl Transfer {
    /// Writes a value.
    ///
    /// # Errors
    /// An error of the value's `Serialize`.
    pub(super) fn write<T: Serialize + ?Sized>(value: &T) -> Result<Self, KernelError> {
        let (head, sections) = collecting_sections(|| write_head(value));
        Ok(Self { head: head?, sections })
    }

    /// Reads a value, whose operands `versions` finds.
    ///
    /// # Errors
    /// The head is not that of a `T`, the sections are not those of the head, or there is no version with an id.
    pub(super) fn read<T: DeserializeOwned>(self, versions: &VersionLookup) -> Result<T, TransferError> {
        let (value, unknown) = with_versions(versions, || with_sections(self.sections, || read_head(&self.head)));
        match unknown {
            Some(id) => Err(TransferError::UnknownOperand { id }),
            None => value,
        }
    }
}

fn write_head<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, TransferError> {
    let mut serializer = rmp_serde::Serializer::new(Vec::new()).with_struct_map().with_human_readable();
    match value.serialize(&mut serializer) {
        Ok(()) => Ok(serializer.into_inner()),
        Err(error) => Err(TransferError::Write(error.to_string())),
    }
}

fn read_head<T: DeserializeOwned>(head: &[u8]) -> Result<T, TransferError> {
    let mut deserializer = rmp_serde::Deserializer::new(head).with_human_readable();
    deserializer.set_max_depth(MAX_DEPTH);
    let value = T::deserialize(&mut deserializer).map_err(|error| TransferError::Read(error.to_string()))?;
    match deserializer.into_inner() {
        [] => Ok(value),
        rest => Err(TransferError::Read(format!("{} bytes after the value", rest.len()))),
    }
}

/// The error of a transfer. In a [`KernelError`] it is that of a [backend](KernelError::backend).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TransferError {
    /// The value cannot be written.
    Write(String),
    /// What was received is not the value that is expected.
    Read(String),
    /// The value refers to a version of an operand that is not there.
    UnknownOperand {
        /// The id of the version in the process that has sent it.
        id: u64,
    },
}

impl fmt::Display for TransferError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(reason) => write!(f, "the value cannot be sent to another process: {reason}"),
            Self::Read(reason) => write!(f, "what another process has sent cannot be read: {reason}"),
            Self::UnknownOperand { id } => write!(f, "no version of an operand has the id {id}"),
        }
    }
}

impl std::error::Error for TransferError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        provide(self);
        None
    }
}

impl Classify for TransferError {
    fn kind(&self) -> ErrorKind {
        ErrorKind::Internal
    }
}

impl From<TransferError> for KernelError {
    fn from(error: TransferError) -> Self {
        Self::backend(error)
    }
}

impl RegisteredKernel {
    /// Writes an output of the kernel.
    ///
    /// # Errors
    /// An error of the output's `Serialize`, or it is of another type.
    pub(crate) fn transfer_output(&self, output: &Typed) -> Result<Transfer, KernelError> {
        self.guarded(|kernel| kernel.transfer_output(output))?
    }

    /// Reads an output of the kernel.
    ///
    /// # Errors
    /// [`TransferError`], if it is no output of the kernel.
    pub(crate) fn receive_output(&self, transfer: Transfer) -> Result<Typed, KernelError> {
        self.guarded(|kernel| kernel.receive_output(transfer))?
    }
}
