//! The bytes of a request's body, as far as both of its forms read them alike.

use std::error::Error;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use http_body::Body;
use http_body_util::LengthLimitError;

use super::Problem;
use crate::error::{ErrorKind, find};
use crate::servers::slow_body::SlowBody;
use crate::service::{HostMemoryError, HostReservation, KernelError};

/// The whole body in one piece, which `memory` is charged for.
pub(super) async fn whole<B>(body: B, max: usize, deadline: Instant, memory: &HostReservation) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    announced(&body, max, memory)?;
    let mut body = std::pin::pin!(body);
    within(deadline, collect(Frames::new(body.as_mut(), max, memory))).await
}

async fn collect<B>(mut frames: Frames<'_, B>) -> Result<Bytes, Problem>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    let Some(first) = frames.next().await? else { return Ok(Bytes::new()) };
    // Most small bodies come in one piece, and are not copied.
    if frames.body.is_end_stream() {
        return Ok(first);
    }
    let Some(second) = frames.next().await? else { return Ok(first) };
    // The pieces are copied as they come: each small one would hold far more memory than it has bytes.
    let mut whole = BytesMut::new();
    frames.append(&mut whole, first)?;
    frames.append(&mut whole, second)?;
    while let Some(frame) = frames.next().await? {
        frames.append(&mut whole, frame)?;
    }
    Ok(whole.freeze())
}

/// The data of a body as it comes, charged to the memory of its request.
pub(super) struct Frames<'a, B> {
    body: Pin<&'a mut B>,
    max: usize,
    length: usize,
    memory: &'a HostReservation,
    slow: SlowBody,
}

impl<'a, B> Frames<'a, B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn Error + Send + Sync>>,
{
    pub(super) fn new(body: Pin<&'a mut B>, max: usize, memory: &'a HostReservation) -> Self {
        Self { body, max, length: 0, memory, slow: SlowBody::default() }
    }

    /// The next piece. It has been charged.
    ///
    /// # Errors
    /// 413 past the most bytes, 503 where there is not the memory for it or it comes too slowly while others lack some,
    /// and 400 where the body breaks off.
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
                // Trailers say nothing here.
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
        charge(self.memory, data.len() as u64)?;
        Ok(Some(data))
    }

    /// Copies a piece, for which the room that it takes is charged from then on.
    fn append(&self, whole: &mut BytesMut, piece: Bytes) -> Result<(), Problem> {
        let needed = whole.len() + piece.len();
        if needed > whole.capacity() {
            // No more than is known to come, where it is known.
            let known = self.body.size_hint().exact().map(|rest| rest.saturating_add(self.length as u64));
            let most = known.map_or(self.max, |known| usize::try_from(known).unwrap_or(usize::MAX));
            let capacity = (2 * whole.capacity()).min(most).max(needed);
            charge(self.memory, (capacity - whole.capacity()) as u64)?;
            whole.reserve(capacity - whole.len());
        }
        whole.extend_from_slice(&piece);
        self.memory.shrink(piece.len() as u64);
        Ok(())
    }
}

/// Refuses a body that is too large by its own account, before the client is told to go on and send it.
pub(super) fn announced(body: &impl Body, max: usize, memory: &HostReservation) -> Result<(), Problem> {
    let length = body.size_hint().lower();
    if length > max as u64 {
        return Err(too_large(max));
    }
    memory.check_possible(length).map_err(rejected)?;
    // What has come is charged, and not what is said to come; but where there is nothing left, nothing is read.
    let first = length.min(FIRST);
    charge(memory, first)?;
    memory.shrink(first);
    Ok(())
}

/// What has to be left of the memory for requests before more of a body is read. More than small requests can have, so
/// that a large one is rejected before it has sent that much.
const FIRST: u64 = (64 << 10) + 1;

/// Charges a request for so many bytes more.
pub(super) fn charge(memory: &HostReservation, bytes: u64) -> Result<(), Problem> {
    memory.grow(bytes).map_err(rejected)
}

fn rejected(error: HostMemoryError) -> Problem {
    Problem::of(&KernelError::from(error)).closing()
}

pub(super) fn too_large(max: usize) -> Problem {
    Problem::new(ErrorKind::TooLarge, format!("the body is of more than {max} bytes")).closing()
}

/// Why there is no more of a body: this limit, one that a layer in front has set, or the client.
pub(super) fn broken(error: &(dyn Error + 'static), max: usize) -> Problem {
    if find::<LengthLimitError>(error).is_some() {
        return too_large(max);
    }
    Problem::new(ErrorKind::InvalidArgument, format!("the body broke off: {error}")).closing()
}

/// Ends work on a request that has come whole, by its deadline.
pub(super) async fn in_time<T>(deadline: Instant, work: impl Future<Output = T>) -> Result<T, Problem> {
    let timed = tokio::time::timeout_at(deadline.into(), work).await;
    timed.map_err(|_| Problem::of(&KernelError::DeadlineExceeded { started: false }))
}

pub(super) async fn within<T>(
    deadline: Instant,
    reading: impl Future<Output = Result<T, Problem>>,
) -> Result<T, Problem> {
    match tokio::time::timeout_at(deadline.into(), reading).await {
        Ok(result) => result,
        Err(_) => Err(Problem::request_timeout("the body did not come within the deadline")),
    }
}
