//! Receives the bytes of tensors whose descriptions came before them.

use std::iter::Enumerate;
use std::vec;

use bytes::Bytes;

use super::body_memory::BodyMemory;
use crate::service::{Buffer, DType, HostMemoryError, InvalidInput, OperandError, Tensor, TensorError, Tensors};

/// Description of a tensor.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) dtype: DType,
    pub(super) shape: Vec<usize>,
    pub(super) data: Data,
}

#[derive(Debug)]
pub(super) enum Data {
    /// This many bytes after the descriptions.
    Follows(usize),
    /// Data that came with the description.
    Here(Bytes),
}

impl Data {
    /// Returns the length of data that came with the description.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(super) fn bytes_here(&self) -> usize {
        match self {
            Self::Follows(_) => 0,
            Self::Here(data) => data.len(),
        }
    }
}

/// Why the bytes of tensors are rejected. `index` is that of the tensor.
#[derive(Debug)]
pub(super) enum SectionError {
    /// The tensors up to this one have more than the maximum number of bytes.
    TooLarge { index: usize, end: u64, max: usize },
    /// The bytes end before the end of this tensor.
    Short { index: usize, bytes: usize },
    /// There are bytes after the last tensor.
    TrailingBytes,
    /// There is not enough memory for the tensors.
    Memory(HostMemoryError),
    /// The tensors exceed a budget of operands.
    Operand(OperandError),
    /// A description is invalid.
    Invalid(InvalidInput),
}

impl From<HostMemoryError> for SectionError {
    fn from(error: HostMemoryError) -> Self {
        Self::Memory(error)
    }
}

impl From<OperandError> for SectionError {
    fn from(error: OperandError) -> Self {
        Self::Operand(error)
    }
}

/// Copies the bytes of tensors, which arrive in frames of any length, to their final memory.
#[derive(Debug)]
pub(super) struct Sections {
    rest: Enumerate<vec::IntoIter<Input>>,
    current: Option<Filling>,
    tensors: Tensors,
    total_bytes: u64,
}

/// Memory allocated at a tensor's first byte: descriptions must not cause large allocations by announcing lengths only.
const FIRST_PART: usize = 1 << 20;

/// A tensor that has arrived in part.
#[derive(Debug)]
struct Filling {
    index: usize,
    name: String,
    dtype: DType,
    shape: Vec<usize>,
    /// Aligned for every type. Allocated at the first byte, and for a large tensor in two steps.
    memory: Buffer<u64>,
    filled: usize,
    bytes: usize,
}

impl Sections {
    /// Checks that the tensors fit into `max` bytes, and have the total length that was announced. Allocates nothing for them.
    pub(super) fn new(inputs: Vec<Input>, max: usize, length: Option<u64>) -> Result<Self, SectionError> {
        let mut end = 0_u64;
        for (index, input) in inputs.iter().enumerate() {
            let Data::Follows(bytes) = input.data else { continue };
            end = end.saturating_add(bytes as u64);
            if end > max as u64 {
                return Err(SectionError::TooLarge { index, end, max });
            }
            if length.is_some_and(|length| length < end) {
                return Err(SectionError::Short { index, bytes });
            }
        }
        if length.is_some_and(|length| length > end) {
            return Err(SectionError::TrailingBytes);
        }
        Ok(Self { rest: inputs.into_iter().enumerate(), current: None, tensors: Tensors::new(), total_bytes: end })
    }

    /// Returns the size of all tensors whose data follows the descriptions.
    pub(super) fn total_bytes(&self) -> u64 {
        self.total_bytes
    }

    /// Copies received bytes, and reserves the memory of the tensors.
    pub(super) fn push(&mut self, mut frame: &[u8], memory: &BodyMemory) -> Result<(), SectionError> {
        while !frame.is_empty() {
            if self.current.is_none() {
                self.current = self.begin()?;
            }
            let Some(current) = &mut self.current else { return Err(SectionError::TrailingBytes) };
            frame = current.take(frame, memory)?;
            if current.filled == current.bytes
                && let Some(Filling { name, dtype, shape, memory, bytes, .. }) = self.current.take()
            {
                let data = memory.into_bytes().slice(..bytes);
                self.add(name, Tensor::new(dtype, shape, data))?;
            }
        }
        Ok(())
    }

    /// Returns the tensors once the bytes have ended.
    pub(super) fn finish(mut self) -> Result<Tensors, SectionError> {
        let unfilled = match self.current.take() {
            None => self.begin()?,
            current => current,
        };
        match unfilled {
            None => Ok(self.tensors),
            Some(Filling { index, bytes, .. }) => Err(SectionError::Short { index, bytes }),
        }
    }

    /// Returns the next tensor that has bytes after the descriptions. Tensors before it are complete.
    fn begin(&mut self) -> Result<Option<Filling>, SectionError> {
        while let Some((index, Input { name, dtype, shape, data })) = self.rest.next() {
            match data {
                Data::Here(data) => self.add(name, Tensor::new(dtype, shape, data))?,
                Data::Follows(0) => self.add(name, Tensor::new(dtype, shape, Bytes::new()))?,
                Data::Follows(bytes) => {
                    let memory = Buffer::default();
                    return Ok(Some(Filling { index, name, dtype, shape, memory, filled: 0, bytes }));
                }
            }
        }
        Ok(None)
    }

    /// Adds a complete tensor. Errors are not expected, because the descriptions have been validated.
    fn add(&mut self, name: String, tensor: Result<Tensor, TensorError>) -> Result<(), SectionError> {
        let added = tensor.and_then(|tensor| self.tensors.insert(name, tensor));
        added.map_err(|error| SectionError::Invalid(InvalidInput::new("inputs", error.to_string())))
    }
}

impl Filling {
    /// Copies as much as the tensor still needs, and returns the rest.
    fn take<'a>(&mut self, frame: &'a [u8], reserved: &BodyMemory) -> Result<&'a [u8], SectionError> {
        if self.filled == self.capacity() {
            self.grow(reserved)?;
        }
        let (mine, rest) = frame.split_at(frame.len().min(self.capacity() - self.filled));
        let memory: &mut [u8] = bytemuck::cast_slice_mut(&mut self.memory);
        memory[self.filled..][..mine.len()].copy_from_slice(mine);
        self.filled += mine.len();
        Ok(rest)
    }

    fn capacity(&self) -> usize {
        size_of_val(&self.memory[..]).min(self.bytes)
    }

    /// Allocates the first part, and the whole tensor once that much has arrived.
    fn grow(&mut self, reserved: &BodyMemory) -> Result<(), SectionError> {
        let bytes = if self.filled == 0 { self.bytes.min(FIRST_PART) } else { self.bytes };
        reserved.grow_tensors((bytes - self.filled) as u64)?;
        let mut memory: Buffer<u64> = Buffer::zeroed(bytes.div_ceil(size_of::<u64>()));
        memory[..self.memory.len()].copy_from_slice(&self.memory);
        self.memory = memory;
        Ok(())
    }
}
