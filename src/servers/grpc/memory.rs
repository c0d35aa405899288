//! Accounts for the memory of a call's messages, from the first byte received to the last byte sent.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use pin_project::pin_project;
use tonic::Status;
use tonic::codegen::StdError;

use super::status::Rejection;
use crate::error::ErrorKind;
use crate::servers::body_memory::BodyMemory;
use crate::servers::slow_body::SlowBody;
use crate::service::{HostMemory, HostMemoryError, HostReservation, KernelError, KernelResponse};

/// Length of the prefix of a message: the compression flag and the message length.
const PREFIX: usize = 5;

/// Pieces of a message below this size are copied together, because a piece keeps the memory of its whole read buffer
/// alive.
const SMALL_PIECE: usize = 4 << 10;

/// Maximum expansion ratio of gzip.
const GZIP_RATIO: u64 = 1032;

/// The memory of one call: requests that have been read, and responses that have not been sent. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct CallMemory {
    memory: HostMemory,
    max_response_size: u64,
    queues: Arc<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Reservations of complete messages that have not been decoded.
    received: Mutex<VecDeque<HostReservation>>,
    /// Memory of the messages that were passed to the encoder.
    sent: Mutex<Vec<Sending>>,
}

/// The memory that a response holds until it has been sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// The kernel's output, until the message is encoded. It can be shared with other responses.
    output: Option<HostReservation>,
    /// The encoded message.
    encoded: HostReservation,
}

impl CallMemory {
    pub(super) fn new(memory: HostMemory, max_response_size: usize) -> Self {
        Self { memory, max_response_size: max_response_size as u64, queues: Arc::default() }
    }

    /// Takes the reservation of the next message to be decoded. Messages are decoded in the order of arrival.
    pub(super) fn of_next_request(&self) -> HostReservation {
        let received = self.queues.received.lock().pop_front();
        received.unwrap_or_else(|| self.memory.reservation(self.max_response_size))
    }

    /// Creates the reservation of a value that arrives in many messages.
    pub(super) fn of_upload(&self) -> HostReservation {
        self.memory.reservation(self.max_response_size)
    }

    /// Reserves memory for the encoded response. A small response needs no reservation.
    ///
    /// # Errors
    /// There is not enough memory for the encoded message.
    pub(super) fn of_response(&self, response: &mut KernelResponse) -> Result<Option<Sending>, HostMemoryError> {
        let bytes = response.payload.byte_len().unwrap_or(0);
        if bytes <= KernelResponse::SMALL || self.memory.max() == u64::MAX {
            return Ok(None);
        }
        let output = response.extensions.remove::<HostReservation>();
        let encoded = self.memory.reservation(0);
        // Twice the size, because the encoder's buffer doubles as it grows. An output without a reservation of this
        // request, such as one from a cache, may be evicted by its owner at any time, and counts as this response's
        // own.
        encoded.grow(bytes as u64 * if output.is_some() { 2 } else { 3 })?;
        Ok(Some(Sending { output, encoded }))
    }

    /// Records the memory of the next message to be encoded.
    pub(super) fn sending(&self, response: Option<Sending>) {
        if let Some(response) = response {
            self.queues.sent.lock().push(response);
        }
    }
}

/// The request body of a call. Memory is reserved for a message as it arrives, and the message is passed on when it is
/// complete, so a client cannot cause an allocation by announcing a length.
#[pin_project]
pub(super) struct RequestBody<B> {
    #[pin]
    body: B,
    call: CallMemory,
    max_message_size: usize,
    /// The part of the next message's prefix that has arrived.
    prefix: BytesMut,
    message: Option<Message>,
    /// Complete messages with their prefixes, to be passed on.
    whole: VecDeque<Bytes>,
    /// Set once the decoder is going to reject the call: the rest is passed on unread.
    pass_on: bool,
    /// Error that the call ends with after the complete messages.
    failure: Option<HostMemoryError>,
}

/// A message that has arrived in part.
struct Message {
    missing: usize,
    pieces: Vec<Bytes>,
    small: BytesMut,
    held: HostReservation,
    slow: SlowBody,
}

impl Message {
    fn add(&mut self, piece: Bytes) {
        if piece.len() < SMALL_PIECE {
            self.small.extend_from_slice(&piece);
            if self.small.len() >= SMALL_PIECE {
                self.pieces.push(self.small.split().freeze());
            }
            return;
        }
        if !self.small.is_empty() {
            self.pieces.push(self.small.split().freeze());
        }
        self.pieces.push(piece);
    }
}

impl<B> RequestBody<B> {
    pub(super) fn new(body: B, call: CallMemory, max_message_size: usize) -> Self {
        let (prefix, message, whole) = (BytesMut::new(), None, VecDeque::new());
        Self { body, call, max_message_size, prefix, message, whole, pass_on: false, failure: None }
    }
}

/// The state of a body that does not depend on its type.
struct Reader<'a> {
    call: &'a CallMemory,
    max_message_size: usize,
    prefix: &'a mut BytesMut,
    message: &'a mut Option<Message>,
    whole: &'a mut VecDeque<Bytes>,
    pass_on: &'a mut bool,
}

impl Reader<'_> {
    fn push(&mut self, mut data: Bytes) -> Result<(), HostMemoryError> {
        while !data.is_empty() {
            if *self.pass_on {
                self.whole.push_back(data);
                return Ok(());
            }
            let Some(message) = self.message else {
                self.begin(&mut data)?;
                continue;
            };
            let piece = data.split_to(data.len().min(message.missing));
            message.held.grow(piece.len() as u64)?;
            message.slow.received(piece.len());
            message.missing -= piece.len();
            message.add(piece);
            self.end_if_whole()?;
        }
        Ok(())
    }

    /// Reads a prefix, and also the message if it has arrived in the same piece.
    fn begin(&mut self, data: &mut Bytes) -> Result<(), HostMemoryError> {
        if self.prefix.is_empty()
            && let Some((&[flag, a, b, c, d], _)) = data.split_first_chunk::<PREFIX>()
        {
            let length = u32::from_be_bytes([a, b, c, d]) as usize;
            if length <= self.max_message_size && data.len() - PREFIX >= length {
                let held = self.reserve(flag, length)?;
                held.grow(length as u64)?;
                self.whole.push_back(data.split_to(PREFIX + length));
                return self.received(held, length);
            }
        }
        let missing = PREFIX - self.prefix.len();
        self.prefix.extend_from_slice(&data.split_to(missing.min(data.len())));
        let Some(&[flag, a, b, c, d]) = self.prefix.first_chunk::<PREFIX>() else { return Ok(()) };
        let length = u32::from_be_bytes([a, b, c, d]) as usize;
        if length > self.max_message_size {
            // The decoder rejects the message when it reads this prefix.
            self.whole.push_back(self.prefix.split().freeze());
            *self.pass_on = true;
            return Ok(());
        }
        let held = self.reserve(flag, length)?;
        let (pieces, small, slow) = (Vec::new(), BytesMut::new(), SlowBody::default());
        *self.message = Some(Message { missing: length, pieces, small, held, slow });
        self.end_if_whole()
    }

    /// Reserves memory for an announced message, including that of decompressing it.
    fn reserve(&self, flag: u8, length: usize) -> Result<HostReservation, HostMemoryError> {
        let held = self.call.memory.reservation(self.call.max_response_size);
        held.check_possible(2 * length as u64)?;
        if flag == 1 {
            held.grow((length as u64).saturating_mul(GZIP_RATIO).min(self.max_message_size as u64))?;
        }
        Ok(held)
    }

    fn end_if_whole(&mut self) -> Result<(), HostMemoryError> {
        let Some(mut message) = self.message.take_if(|message| message.missing == 0) else { return Ok(()) };
        let pieces = message.pieces.drain(..).chain([message.small.freeze()]);
        let before = self.whole.len();
        self.whole.push_back(self.prefix.split().freeze());
        self.whole.extend(pieces.filter(|piece| !piece.is_empty()));
        let length = self.whole.iter().skip(before + 1).map(Bytes::len).sum();
        self.received(message.held, length)
    }

    /// Adds the memory of the decoded message. The decoder copies texts, and frees the received bytes as it proceeds.
    fn received(&self, held: HostReservation, length: usize) -> Result<(), HostMemoryError> {
        held.grow(length as u64)?;
        self.call.queues.received.lock().push_back(held);
        Ok(())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body,
    B::Error: Into<StdError>,
{
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let mut this = self.project();
        loop {
            if let Some(data) = this.whole.pop_front() {
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(error) = this.failure.take() {
                return Poll::Ready(Some(Err(rejected(error).into_status(None))));
            }
            let Poll::Ready(frame) = this.body.as_mut().poll_frame(cx) else {
                let Some(message) = this.message else { return Poll::Pending };
                ready!(message.slow.poll_given_up(&BodyMemory::of_request(&message.held), cx));
                *this.message = None;
                let text = "the message arrived too slowly while other requests needed the memory";
                return Poll::Ready(Some(Err(Rejection::new(ErrorKind::MemoryExhausted, text).into_status(None))));
            };
            let data = match frame {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(mut data) => data.copy_to_bytes(data.remaining()),
                    Err(frame) => {
                        return Poll::Ready(frame.into_trailers().ok().map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                },
                Some(Err(error)) => return Poll::Ready(Some(Err(Status::from_error(error.into())))),
                None if this.message.take().is_some() || !std::mem::take(this.prefix).is_empty() => {
                    return Poll::Ready(Some(Err(Status::internal("the request ended within a message"))));
                }
                None => return Poll::Ready(None),
            };
            let mut reader = Reader {
                call: this.call,
                max_message_size: *this.max_message_size,
                prefix: this.prefix,
                message: this.message,
                whole: this.whole,
                pass_on: this.pass_on,
            };
            if let Err(error) = reader.push(data) {
                *this.message = None;
                *this.failure = Some(error);
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.whole.is_empty()
            && self.message.is_none()
            && self.prefix.is_empty()
            && self.failure.is_none()
            && self.body.is_end_stream()
    }
}

pub(super) fn rejected(error: HostMemoryError) -> Rejection {
    Rejection::of(&KernelError::from(error))
}

/// The response body of a call. Its data holds the memory of the messages in it until it has been sent.
#[pin_project]
pub(super) struct ResponseBody {
    #[pin]
    body: tonic::body::Body,
    call: CallMemory,
}

impl ResponseBody {
    pub(super) fn new(body: tonic::body::Body, call: CallMemory) -> Self {
        Self { body, call }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let frame = ready!(this.body.poll_frame(cx));
        let sent = std::mem::take(&mut *this.call.queues.sent.lock());
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| {
                frame.map_data(|data| {
                    sent.into_iter().fold(data, |data, Sending { output, encoded }| {
                        // The message has been encoded into these bytes.
                        drop(output);
                        encoded.shrink(encoded.bytes().saturating_sub(data.len() as u64));
                        encoded.attach(data)
                    })
                })
            })
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
