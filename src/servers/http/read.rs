//! Reads the bodies of requests, JSON and tensors alike.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::LengthLimitError;

use super::Problem;
use crate::error::{ErrorKind, find};
use crate::middleware::lazy_timer::LazyTimer;
use crate::servers::body_memory::BodyMemory;
use crate::servers::charged_buffer::append_charged;
use crate::servers::slow_body::SlowBody;
use crate::service::{HostMemoryError, HostReservation, KernelError};

/// Reads the whole body, which is charged to `memory`.
pub(super) async fn whole<B>(body: B, max: usize, deadline: Instant, memory: &HostReservation) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let length = announced_length(&body, max)?;
    memory.check_possible(length).map_err(rejected)?;
    check_available(length, memory)?;
    let memory = BodyMemory::of_request(memory);
    let mut body = pin!(body);
    within(deadline, collect(Frames::new(body.as_mut(), max, &memory))).await
}

async fn collect<B>(mut frames: Frames<'_, B>) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Some(first) = frames.next().await? else { return Ok(Bytes::new()) };
    // Most small bodies are one frame, and are not copied.
    if frames.body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = frames.next().await? else { return Ok(first) };
    // Frames are copied as they arrive, as each small one holds far more memory than its length.
    let mut whole = BytesMut::new();
    frames.append(&mut whole, first)?;
    frames.append(&mut whole, second)?;
    while let Some(frame) = frames.next().await? {
        frames.append(&mut whole, frame)?;
    }
    Ok(whole.freeze())
}

/// The data frames of a body, charged to the memory of the request.
pub(super) struct Frames<'a, B> {
    body: Pin<&'a mut B>,
    max: usize,
    length: usize,
    memory: &'a BodyMemory,
    slow: SlowBody,
}

impl<'a, B> Frames<'a, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) fn new(body: Pin<&'a mut B>, max: usize, memory: &'a BodyMemory) -> Self {
        Self { body, max, length: 0, memory, slow: SlowBody::default() }
    }

    /// Reads the next frame, and charges its memory.
    ///
    /// # Errors
    /// 413 if the body is too large, 503 if there is not enough memory or the body arrives slowly while others lack
    /// memory, and 400 if the body ends early.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        let Self { body, max, slow, memory, .. } = self;
        let data = poll_fn(|cx| {
            loop {
                let Poll::Ready(frame) = body.as_mut().poll_frame(cx) else {
                    ready!(slow.poll_given_up(memory, cx));
                    let detail = "the body came slowly while there was not enough memory for other requests";
                    return Poll::Ready(Err(Problem::new(ErrorKind::MemoryExhausted, detail).closing()));
                };
                let Some(frame) = frame else { return Poll::Ready(Ok(None)) };
                let frame = frame.map_err(|error| broken(&*error.into(), *max))?;
                // Trailers are ignored.
                if let Ok(data) = frame.into_data() {
                    return Poll::Ready(Ok(Some(data)));
                }
            }
        });
        let Some(data) = data.await? else { return Ok(None) };
        self.length += data.len();
        if self.length > self.max {
            return Err(too_large(self.max));
        }
        self.slow.received(data.len());
        charge(self.memory.request(), data.len() as u64)?;
        Ok(Some(data))
    }

    /// Appends a frame, and charges the memory of its copy.
    fn append(&self, whole: &mut BytesMut, piece: Bytes) -> Result<(), Problem> {
        // Not more than the length of the body, if it is known.
        let known = self.body.size_hint().exact().map(|rest| rest.saturating_add(self.length as u64));
        let most = known.map_or(self.max, |known| usize::try_from(known).unwrap_or(usize::MAX));
        append_charged(whole, &piece, most, self.memory.request()).map_err(rejected)?;
        self.memory.request().shrink(piece.len() as u64);
        Ok(())
    }
}

/// Returns the `content-length`, 0 without one. Rejects a body that is too large before the client is asked to send it.
pub(super) fn announced_length(body: &impl Body, max: usize) -> Result<u64, Problem> {
    let length = body.size_hint().lower();
    if length > max as u64 { Err(too_large(max)) } else { Ok(length) }
}

/// Rejects a body of this length while no memory is available.
pub(super) fn check_available(length: u64, memory: &HostReservation) -> Result<(), Problem> {
    // Only received data is charged; but nothing is read if no memory is available.
    let first = length.min(FIRST);
    charge(memory, first)?;
    memory.shrink(first);
    Ok(())
}

/// Memory that must be available to read a body. It is more than small requests use, so that large requests are
/// rejected before they have sent that much.
const FIRST: u64 = (64 << 10) + 1;

/// Charges `bytes` to the memory of a request.
pub(super) fn charge(memory: &HostReservation, bytes: u64) -> Result<(), Problem> {
    memory.grow(bytes).map_err(rejected)
}

pub(super) fn rejected(error: HostMemoryError) -> Problem {
    Problem::of(&KernelError::from(error)).closing()
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(ErrorKind::TooLarge, format!("the body is of more than {max} bytes")).closing()
}

/// The error of a body that ended early: its size limit, one of a layer in front, or the client.
pub(super) fn broken(error: &(dyn Error + 'static), max: usize) -> Problem {
    if find::<LengthLimitError>(error).is_some() {
        return too_large(max);
    }
    Problem::new(ErrorKind::InvalidArgument, format!("the body broke off: {error}")).closing()
}

/// Limits work on a request that has been received to its deadline.
pub(super) async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Problem> {
    let done = until(deadline, work).await;
    done.ok_or_else(|| Problem::of(&KernelError::DeadlineExceeded { started: false }))
}

pub(super) async fn within<T>(
    deadline: Instant,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    let read = until(deadline, reading).await;
    read.unwrap_or_else(|| Err(Problem::request_timeout("the body did not come within the deadline")))
}

/// Returns the output of `work`, or `None` once the deadline has passed. What is ready at once needs no timer.
async fn until<T>(deadline: Instant, work: impl Future<Output = T>) -> Option<T> {
    let (mut work, mut timer) = (pin!(work), pin!(LazyTimer::new(Some(deadline))));
    poll_fn(|cx| match work.as_mut().poll(cx) {
        Poll::Ready(output) => Poll::Ready(Some(output)),
        Poll::Pending => timer.as_mut().poll_elapsed(cx).map(|()| None),
    })
    .await
}
