//! Tensors in the bodies of requests and responses: the
//! [binary tensor data extension](https://kserve.github.io/website/docs/concepts/architecture/data-plane/v2-protocol/binary-tensor-data-extension)
//! of the Open Inference Protocol. A JSON head describes the tensors, whose bytes follow it.
//!
//! Input tensors are copied once, from the connection's frames into memory that is aligned for every element type and
//! that the kernel's input shares. Output tensors are the memory of the kernel's output.
//!
//! `multipart/form-data` is not used: clients of model servers support this format, and because it contains the length
//! of each tensor, it needs no search for a boundary.

mod head;
mod response;
mod sections;

use std::error::Error;
use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use http_body::Body;

use self::head::Head;
use self::sections::Sections;
use super::form::HEAD_LENGTH;
use super::read::{Frames, announced, in_time, within};
use super::{Problem, Target};
use crate::error::ErrorKind;
use crate::servers::offload::{TYPED_JSON_BYTES, offload};
use crate::service::{HostReservation, KernelRequest};

#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use self::head::Document as TensorHead;
pub(super) use self::head::RequestedOutputs;
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
    memory: &HostReservation,
) -> Result<(KernelRequest, RequestedOutputs), Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    announced(&body, max, memory)?;
    let length = body.size_hint().exact();
    if length.is_some_and(|length| length < head_length as u64) {
        return Err(short_head(head_length, length.unwrap_or_default()));
    }
    if head_length > MAX_HEAD.min(max) {
        let detail = format!("the head has {head_length} bytes, the maximum is {}", MAX_HEAD.min(max));
        return Err(Problem::new(ErrorKind::TooLarge, detail).field(HEAD_LENGTH.as_str()).closing());
    }
    let mut body = pin!(body);
    let mut frames = Frames::new(body.as_mut(), max, memory);
    let (head, first) = within(deadline, read_head(&mut frames, head_length)).await?;
    let parsing = offload(head.len() > TYPED_JSON_BYTES, move || Head::parse(&head, target));
    let Head { mut request, requested, inputs } = in_time(deadline, parsing).await??;
    let mut sections = Sections::new(inputs, max - head_length, length.map(|length| length - head_length as u64))?;
    // From here on the request's own deadline applies too.
    let deadline = request.deadline.map_or(deadline, |earlier| earlier.min(deadline));
    let rest = async {
        sections.push(&first, memory)?;
        drop(first);
        while let Some(frame) = frames.next().await? {
            sections.push(&frame, memory)?;
            // The frame has been copied to the tensor.
            memory.shrink(frame.len() as u64);
        }
        Ok(())
    };
    within(deadline, rest).await?;
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
