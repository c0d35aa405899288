//! The value of an operand that arrives in chunks.

use bytes::{Bytes, BytesMut};

use super::memory::rejected;
use super::message::tensor_description;
use super::operands::rejection;
use super::proto::put_operand_start::Value;
use super::status::Rejection;
use crate::error::ErrorKind;
use crate::servers::body_memory::BodyMemory;
use crate::servers::charged_buffer::append_charged;
use crate::servers::sections::{Data, Input, SectionError, Sections};
use crate::service::{Buffer, InvalidInput, Payload};

/// A value of which a part has arrived. Tensors are copied to their final memory, aligned for every type.
pub(super) enum ReceivedValue {
    Json { document: BytesMut, max: usize },
    Tensors(Box<Sections>),
}

impl ReceivedValue {
    /// Begins with what the first message has of the value, and returns how many bytes that is. The value may have `max`
    /// bytes. Tensors are allocated when their bytes arrive.
    pub(super) fn begin(value: Value, max: usize, memory: &BodyMemory) -> Result<(Self, usize), Rejection> {
        match value {
            Value::Json(beginning) => {
                let mut received = Self::Json { document: BytesMut::new(), max };
                received.push(&beginning, memory)?;
                Ok((received, beginning.len()))
            }
            Value::Tensors(tensors) => {
                let mut here = 0;
                let mut inputs = Vec::with_capacity(tensors.tensors.len());
                for (index, tensor) in tensors.tensors.into_iter().enumerate() {
                    let Input { name, dtype, shape, data } = tensor_description(index, tensor)?;
                    let data = match data {
                        Data::Here(data) => {
                            here += data.len();
                            Data::Here(aligned(&data, memory)?)
                        }
                        follow => follow,
                    };
                    inputs.push(Input { name, dtype, shape, data });
                }
                let Some(max) = max.checked_sub(here) else { return Err(too_large(max)) };
                let sections = Sections::new(inputs, max, None).map_err(of_section)?;
                memory.check_tensors(sections.total_bytes()).map_err(of_section)?;
                Ok((Self::Tensors(Box::new(sections)), here))
            }
        }
    }

    /// Adds bytes that follow.
    pub(super) fn push(&mut self, piece: &[u8], memory: &BodyMemory) -> Result<(), Rejection> {
        match self {
            Self::Json { document, max } => {
                if piece.len() > *max - document.len() {
                    return Err(too_large(*max));
                }
                append_charged(document, piece, *max, memory.request()).map_err(rejected)
            }
            Self::Tensors(sections) => sections.push(piece, memory).map_err(of_section),
        }
    }

    /// Returns the whole value once no more bytes follow.
    pub(super) fn finish(self) -> Result<Payload, Rejection> {
        match self {
            Self::Json { document, .. } => Ok(Payload::Json(document.freeze())),
            Self::Tensors(sections) => Ok(sections.finish().map_err(of_section)?.into()),
        }
    }
}

/// Copies the data of a message, whose memory would be held by it and which is not aligned.
fn aligned(data: &Bytes, memory: &BodyMemory) -> Result<Bytes, Rejection> {
    memory.grow_tensors(data.len() as u64).map_err(of_section)?;
    let mut words = Buffer::<u64>::zeroed(data.len().div_ceil(size_of::<u64>()));
    bytemuck::cast_slice_mut(&mut words)[..data.len()].copy_from_slice(data);
    Ok(words.into_bytes().slice(..data.len()))
}

fn too_large(max: usize) -> Rejection {
    Rejection::new(ErrorKind::TooLarge, format!("the operand is of more than {max} bytes"))
}

fn of_section(error: SectionError) -> Rejection {
    match error {
        SectionError::TooLarge { max, .. } => too_large(max),
        SectionError::Short { index, bytes } => {
            let reason = format!("it has {bytes} bytes, and the request stream ends before its end");
            InvalidInput::new(format!("tensors[{index}]"), reason).into()
        }
        SectionError::TrailingBytes => {
            InvalidInput::new("chunk", "it has bytes after the end of the last tensor").into()
        }
        SectionError::Memory(error) => rejected(error),
        SectionError::Operand(error) => rejection(error),
        SectionError::Invalid(InvalidInput { reason, .. }) => InvalidInput::new("tensors", reason).into(),
    }
}
