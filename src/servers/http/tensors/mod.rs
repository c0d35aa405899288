//! Tensors in the bodies of requests and responses: the
//! [binary tensor data extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol. A JSON head describes the tensors, whose bytes follow it.
//!
//! Input tensors are copied once, from the connection's frames into memory that is aligned for every element type and
//! that the kernel's input shares. Output tensors are the memory of the kernel's output.
//!
//! `multipart/form-data` is not used: clients of model servers support this format, and because it contains the length
//! of each tensor, it needs no search for a boundary.

mod background_copy;
mod head;
mod response;

use std::error::Error;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use http_body::Body;

use self::background_copy::BackgroundCopy;
use super::form::HEAD_LENGTH;
use super::read::{Frames, announced_length, check_available, in_time, rejected, within};
use super::{Problem, Target};
use crate::error::ErrorKind;
use crate::servers::body_memory::BodyMemory;
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::servers::sections::{SectionError, Sections};
use crate::service::{InvalidInput, KernelRequest};

#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use self::head::Document as TensorHead;
pub(super) use self::head::{Head, RequestedOutputs, elements};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use self::response::Document as TensorResponseHead;
pub(super) use self::response::write;

/// Maximum length of a head, in bytes: twice what [`MAX_TENSORS`](crate::request::MAX_TENSORS) need.
const MAX_HEAD: usize = 64 << 10;

/// Reads a request: its head of `head_length` bytes and its tensors.
pub(super) async fn read<B>(
    body: B,
    head_length: usize,
    target: Target,
    max: usize,
    deadline: Instant,
    memory: &BodyMemory,
) -> Result<(KernelRequest, RequestedOutputs), Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let lengths = Lengths { head: head_length, max_head: MAX_HEAD, max };
    read_with(body, lengths, |head| Head::parse(&head, target), deadline, memory).await
}

/// The length of a head, its maximum, and the maximum length of the body.
pub(super) struct Lengths {
    pub(super) head: usize,
    pub(super) max_head: usize,
    pub(super) max: usize,
}

/// Reads a request whose head `parse` parses.
pub(super) async fn read_with<B, R>(
    body: B,
    Lengths { head: head_length, max_head, max }: Lengths,
    parse: impl FnOnce(Bytes) -> Result<Head<R>, Problem> + Send + 'static,
    deadline: Instant,
    memory: &BodyMemory,
) -> Result<(KernelRequest, R), Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
    R: Send + 'static,
{
    let announced = announced_length(&body, max)?;
    memory.check_tensors(announced.saturating_sub(head_length as u64))?;
    check_available(announced, memory.request())?;
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length < head_length as u64) {
        return Err(short_head(head_length, length.unwrap_or_default()));
    }
    let max_head = max_head.min(max);
    if head_length > max_head {
        let detail = format!("the head has {head_length} bytes, the maximum is {max_head}");
        return Err(Problem::new(ErrorKind::TooLarge, detail).field(HEAD_LENGTH.as_str()).closing());
    }
    let mut body = pin!(body);
    let mut frames = Frames::new(body.as_mut(), max, memory);
    let (head, first) = within(deadline, read_head(&mut frames, head_length)).await?;
    let parsing = offload(head.len() > TYPED_JSON_BYTES, move || parse(head));
    let Head { mut request, requested, inputs } = in_time(deadline, parsing).await??;
    let sections = Sections::new(inputs, max - head_length, length.map(|length| length - head_length as u64))?;
    memory.check_tensors(sections.total_bytes())?;
    // From here on the request's own deadline applies too.
    let deadline = request.deadline.map_or(deadline, |earlier| earlier.min(deadline));
    let rest = async {
        let mut copy = BackgroundCopy::new(sections, memory);
        copy.push(first).await?;
        while let Some(frame) = frames.next().await? {
            copy.push(frame).await?;
        }
        Ok(copy.finish().await?)
    };
    let sections = within(deadline, rest).await?;
    request.payload = sections.finish()?.into();
    Ok((request, requested))
}

/// Reads the head, and returns it with the tensor bytes that arrived with it.
async fn read_head<B>(frames: &mut Frames<'_, B>, length: usize) -> Result<(Bytes, Bytes), Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let mut head = Vec::new();
    loop {
        let Some(mut frame) = frames.next().await? else {
            return Err(short_head(length, head.len() as u64));
        };
        let missing = length - head.len();
        if frame.len() < missing {
            head.extend_from_slice(&frame);
            continue;
        }
        let last = frame.split_to(missing);
        // Usually the head arrives in one piece.
        if head.is_empty() {
            return Ok((last, frame));
        }
        head.extend_from_slice(&last);
        return Ok((head.into(), frame));
    }
}

fn short_head(length: usize, body: u64) -> Problem {
    let detail = format!("the header gives a head of {length} bytes, but the body has {body}");
    Problem::new(ErrorKind::InvalidArgument, detail).field(HEAD_LENGTH.as_str())
}

impl From<SectionError> for Problem {
    fn from(error: SectionError) -> Self {
        let size_of_input = |index: usize| format!("inputs[{index}].parameters.binary_data_size");
        match error {
            SectionError::TooLarge { index, end, max } => {
                let detail = format!("the tensors up to this one have {end} bytes, the maximum is {max}");
                Self::new(ErrorKind::TooLarge, detail).field(size_of_input(index)).closing()
            }
            SectionError::Short { index, bytes } => {
                let reason = format!("the tensor has {bytes} bytes, and the body ends before its end");
                InvalidInput::new(size_of_input(index), reason).into()
            }
            SectionError::TrailingBytes => {
                InvalidInput::new("inputs", "the body continues after the last tensor").into()
            }
            SectionError::Memory(error) => rejected(error),
            SectionError::Operand(error) => Self::of(&error).closing(),
            SectionError::Invalid(invalid) => invalid.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{HostMemory, Tensors};
    use proptest::prelude::*;
    use serde_json::json;

    const MAX: usize = 1 << 20;

    /// Reads a head and what comes after it in pieces of these lengths, in turn.
    fn read(head: &[u8], data: &[u8], pieces: &[usize], announced: bool) -> Result<Tensors, Problem> {
        let head = Head::parse(head, Target::Input("a".to_owned()))?;
        let mut sections = Sections::new(head.inputs, MAX, announced.then_some(data.len() as u64))?;
        let memory = HostMemory::unlimited().reservation(0);
        let memory = BodyMemory::of_request(&memory);
        let mut rest = data;
        for &piece in pieces.iter().cycle() {
            if rest.is_empty() {
                break;
            }
            let (piece, after) = rest.split_at(piece.clamp(1, rest.len()));
            sections.push(piece, &memory)?;
            rest = after;
        }
        Ok(sections.finish()?)
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
