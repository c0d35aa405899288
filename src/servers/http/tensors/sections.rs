//! Receives the bytes of the tensors after the head.

use std::iter::Enumerate;
use std::vec;

use bytes::Bytes;

use super::head::{Data, Input};
use crate::error::ErrorKind;
use crate::servers::http::Problem;
use crate::servers::http::read::charge;
use crate::service::{Buffer, DType, HostReservation, InvalidInput, Tensor, TensorError, Tensors};

/// Copies the bytes of tensors, which arrive in frames of any length, to their final memory.
#[derive(Debug)]
pub(super) struct Sections {
    rest: Enumerate<vec::IntoIter<Input>>,
    current: Option<Filling>,
    tensors: Tensors,
}

/// Memory allocated at a tensor's first byte: a head must not cause large allocations by announcing lengths only.
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
    /// Checks that the tensors fit into `max` bytes, and have the total length of the body. Allocates nothing for them.
    pub(super) fn new(inputs: Vec<Input>, max: usize, length: Option<u64>) -> Result<Self, Problem> {
        let mut end = 0_u64;
        for (index, input) in inputs.iter().enumerate() {
            let Data::Follows(bytes) = input.data else { continue };
            end = end.saturating_add(bytes as u64);
            if end > max as u64 {
                let detail = format!("the tensors up to this one have {end} bytes, the maximum is {max}");
                return Err(Problem::new(ErrorKind::TooLarge, detail).field(size_of_input(index)).closing());
            }
            if length.is_some_and(|length| length < end) {
                return Err(short(index, bytes));
            }
        }
        if length.is_some_and(|length| length > end) {
            return Err(trailing_bytes());
        }
        Ok(Self { rest: inputs.into_iter().enumerate(), current: None, tensors: Tensors::new() })
    }

    /// Copies received bytes, and reserves the memory of the tensors.
    pub(super) fn push(&mut self, mut frame: &[u8], memory: &HostReservation) -> Result<(), Problem> {
        while !frame.is_empty() {
            if self.current.is_none() {
                self.current = self.begin()?;
            }
            let Some(current) = &mut self.current else { return Err(trailing_bytes()) };
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

    /// Returns the tensors once the body has ended.
    pub(super) fn finish(mut self) -> Result<Tensors, Problem> {
        let unfilled = match self.current.take() {
            None => self.begin()?,
            current => current,
        };
        match unfilled {
            None => Ok(self.tensors),
            Some(Filling { index, bytes, .. }) => Err(short(index, bytes)),
        }
    }

    /// Returns the next tensor that has bytes after the head. Tensors before it are complete.
    fn begin(&mut self) -> Result<Option<Filling>, Problem> {
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

    /// Adds a complete tensor. Errors are not expected, because the head has been validated.
    fn add(&mut self, name: String, tensor: Result<Tensor, TensorError>) -> Result<(), Problem> {
        let added = tensor.and_then(|tensor| self.tensors.insert(name, tensor));
        added.map_err(|error| InvalidInput::new("inputs", error.to_string()).into())
    }
}

impl Filling {
    /// Copies as much as the tensor still needs, and returns the rest.
    fn take<'a>(&mut self, frame: &'a [u8], held: &HostReservation) -> Result<&'a [u8], Problem> {
        if self.filled == self.capacity() {
            self.grow(held)?;
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
    fn grow(&mut self, held: &HostReservation) -> Result<(), Problem> {
        let bytes = if self.filled == 0 { self.bytes.min(FIRST_PART) } else { self.bytes };
        charge(held, (bytes - self.filled) as u64)?;
        let mut memory: Buffer<u64> = Buffer::zeroed(bytes.div_ceil(size_of::<u64>()));
        memory[..self.memory.len()].copy_from_slice(&self.memory);
        self.memory = memory;
        Ok(())
    }
}

fn size_of_input(index: usize) -> String {
    format!("inputs[{index}].parameters.binary_data_size")
}

fn short(index: usize, bytes: usize) -> Problem {
    InvalidInput::new(size_of_input(index), format!("the tensor has {bytes} bytes, and the body ends before its end"))
        .into()
}

fn trailing_bytes() -> Problem {
    InvalidInput::new("inputs", "the body continues after the last tensor").into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::http::Target;
    use crate::servers::http::tensors::head::Head;
    use crate::service::HostMemory;
    use proptest::prelude::*;
    use serde_json::json;

    const MAX: usize = 1 << 20;

    /// Reads a head and what comes after it in pieces of these lengths, in turn.
    fn read(head: &[u8], data: &[u8], pieces: &[usize], announced: bool) -> Result<Tensors, Problem> {
        let head = Head::parse(head, Target::Input("a".to_owned()))?;
        let mut sections = Sections::new(head.inputs, MAX, announced.then_some(data.len() as u64))?;
        let memory = HostMemory::unlimited().reservation(0);
        let mut rest = data;
        for &piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(piece.clamp(1, rest.len()));
            sections.push(piece, &memory)?;
            rest = after;
        }
        sections.finish()
    }

    fn describe(tensors: &[(usize, Vec<u8>)]) -> (serde_json::Value, Vec<u8>) {
        let describe = |(index, (kind, data)): (usize, &(usize, Vec<u8>))| {
            let (datatype, size) = [("UINT8", 1), ("FP32", 4), ("INT64", 8)][*kind];
            let data = &data[..data.len() / size * size];
            let parameters = json!({"binary_data_size": data.len()});
            let input = json!({"name": index.to_string(), "datatype": datatype, "shape": [data.len() / size],
                "parameters": parameters});
            (input, data.to_vec())
        };
        let (inputs, data): (Vec<_>, Vec<_>) = tensors.iter().enumerate().map(describe).unzip();
        (json!({ "inputs": inputs }), data.concat())
    }

    proptest! {
        #[test]
        fn tensors_come_back_whole_whatever_the_frames(
            tensors in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 0..64)), 0..6),
            pieces in prop::collection::vec(1_usize..32, 1..8),
            announced: bool,
        ) {
            let (head, data) = describe(&tensors);
            let read = read(head.to_string().as_bytes(), &data, &pieces, announced).unwrap();
            let all: Vec<u8> = read.iter().flat_map(|(_, tensor)| tensor.data().to_vec()).collect();
            prop_assert_eq!(all, data);
            prop_assert_eq!(read.iter().len(), tensors.len());
            for (_, tensor) in read.iter().filter(|(_, tensor)| !tensor.data().is_empty()) {
                prop_assert!(tensor.data().as_ptr().addr().is_multiple_of(8), "aligned for every type");
            }
        }

        #[test]
        fn truncated_and_overlong_bodies_are_rejected(
            tensors in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 8..64)), 1..6),
            pieces in prop::collection::vec(1_usize..32, 1..8),
            cut in any::<prop::sample::Index>(),
            announced: bool,
        ) {
            let (head, mut data) = describe(&tensors);
            let head = head.to_string();
            prop_assert!(read(head.as_bytes(), &data[..cut.index(data.len())], &pieces, announced).is_err());
            data.push(0);
            prop_assert!(read(head.as_bytes(), &data, &pieces, announced).is_err());
        }

        /// No input makes it panic, or hold more memory than was received.
        #[test]
        fn any_bytes_are_parsed_or_rejected(
            tensors in prop::collection::vec((0_usize..3, prop::collection::vec(any::<u8>(), 0..16)), 0..4),
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            pieces in prop::collection::vec(1_usize..32, 1..4),
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let (head, data) = describe(&tensors);
            let mut head = head.to_string().into_bytes();
            for (at, byte) in changes {
                let at = at.index(head.len());
                head[at] = byte;
            }
            if let Ok(tensors) = read(&head, &data, &pieces, false) {
                prop_assert!(tensors.byte_len() <= MAX);
            }
            prop_assert!(read(&noise, &data, &pieces, true).is_err());
        }
    }
}
