//! What the messages of a call hold of the memory of this process, from their first byte to their last.

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
use crate::servers::slow_body::SlowBody;
use crate::service::{HostMemory, HostMemoryError, HostReservation, KernelError, KernelResponse};

/// The bytes before a message: whether it is compressed, and its length.
const PREFIX: usize = 5;

/// Pieces of a message below this size are copied together: a piece holds the memory of the whole read that it came
/// with.
const SMALL_PIECE: usize = 4 << 10;

/// What gzip makes of a byte at most.
const GZIP_RATIO: u64 = 1032;

/// The memory of one call: of its requests that are read, and of its responses that are not sent. Clones are of the
/// same call.
#[derive(Clone, Debug)]
pub(super) struct CallMemory {
    memory: HostMemory,
    max_response_size: u64,
    queues: Arc<Queues>,
}

#[derive(Debug, Default)]
struct Queues {
    /// Of the messages that have come whole and are not yet requests.
    received: Mutex<VecDeque<HostReservation>>,
    /// Of the messages that have been given to the encoder.
    sent: Mutex<Vec<Sending>>,
}

/// What a response holds until it has been sent.
#[derive(Debug)]
pub(super) struct Sending {
    /// The output, until the message is encoded. Other responses can share it.
    output: Option<HostReservation>,
    /// The encoded message.
    encoded: HostReservation,
}

impl CallMemory {
    pub(super) fn new(memory: HostMemory, max_response_size: usize) -> Self {
        Self { memory, max_response_size: max_response_size as u64, queues: Arc::default() }
    }

    /// The reservation of the next message that becomes a request. Messages are decoded in the order in which they
    /// come.
    pub(super) fn of_next_request(&self) -> HostReservation {
        let received = self.queues.received.lock().pop_front();
        received.unwrap_or_else(|| self.memory.reservation(self.max_response_size))
    }

    /// What a response holds until it has been sent. A small one holds nothing.
    ///
    /// # Errors
    /// Where there is not the memory for the encoded message.
    pub(super) fn of_response(&self, response: &mut KernelResponse) -> Result<Option<Sending>, HostMemoryError> {
        let bytes = response.payload.byte_len().unwrap_or(0);
        if bytes <= KernelResponse::SMALL || self.memory.max() == u64::MAX {
            return Ok(None);
        }
        let output = response.extensions.remove::<HostReservation>();
        let encoded = self.memory.reservation(0);
        // Twice, as the buffer that the message is written to doubles as it grows. An output that was not made for this
        // request, as the cache's are, can be forgotten by its owner at any time, and counts as this response's own.
        encoded.grow(bytes as u64 * if output.is_some() { 2 } else { 3 })?;
        Ok(Some(Sending { output, encoded }))
    }

    /// Takes note of what the next message to be encoded holds.
    pub(super) fn sending(&self, response: Option<Sending>) {
        if let Some(response) = response {
            self.queues.sent.lock().push(response);
        }
    }
}

/// The body of a call's request. Each message is charged as it comes, and passed on when it is whole: what a client
/// says of its length allocates nothing.
#[pin_project]
pub(super) struct RequestBody<B> {
    #[pin]
    body: B,
    call: CallMemory,
    max_message_size: usize,
    /// What has come of the next message's prefix.
    prefix: BytesMut,
    message: Option<Message>,
    /// Whole messages with their prefixes, to be passed on.
    whole: VecDeque<Bytes>,
    /// Once the decoder is going to end the call.
    pass_on: bool,
    /// What the call ends with after the whole messages.
    failure: Option<HostMemoryError>,
}

/// A message of which a part is there.
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

/// What of a body's state does not depend on its type.
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

    /// Reads a prefix, and with it the message where it has come in one piece.
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
            // The decoder says so as soon as it has this.
            self.whole.push_back(self.prefix.split().freeze());
            *self.pass_on = true;
            return Ok(());
        }
        let held = self.reserve(flag, length)?;
        let (pieces, small, slow) = (Vec::new(), BytesMut::new(), SlowBody::default());
        *self.message = Some(Message { missing: length, pieces, small, held, slow });
        self.end_if_whole()
    }

    /// A reservation for a message that is about to come, with what it may take once it is decompressed.
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

    /// The decoder copies the text of a message; what it copies first is gone as it goes on.
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
                ready!(message.slow.poll_given_up(&message.held, cx));
                *this.message = None;
                let text = "the message came slowly while there was not enough memory for other requests";
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

/// The body of a call's response. Its data holds the memory of the messages in it until it has been sent.
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
                        // The message has gone; what is left of it is in these bytes.
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
