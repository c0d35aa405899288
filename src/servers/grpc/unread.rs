//! The responses of one stream that are finished and that its client has not read.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use futures_util::stream::Stream;
use prost::Message;
use tonic::Status;

use super::memory::Sending;
use super::proto::ExecuteStreamResponse;
use super::stream::end;
use crate::error::ErrorKind;
use crate::servers::requests::Call as Counted;
use crate::sync::Mutex;

/// No further request of a stream is read while its unread responses take this many bytes or more: 1 MiB. What runs at
/// that time still finishes, so there can be more.
const MAX_BYTES: usize = 1 << 20;

/// A queue from the task that runs a stream's calls to the response body that its client reads.
///
/// It differs from a bounded channel in that [`Sender::push`] never waits: a call that has finished holds no permit and
/// no timer, whether or not the client reads. The bound is asked for before a request is read, by
/// [`Sender::poll_room`].
pub(super) fn unread(max: usize) -> (Sender, Receiver) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (Sender { queue: Arc::clone(&queue), max }, Receiver { queue })
}

/// A response that its client has not read.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) response: ExecuteStreamResponse,
    /// What it holds of the memory of this process.
    pub(super) held: Option<Sending>,
    /// Ends, with this code, once the response is read.
    pub(super) counted: Option<Counted>,
    pub(super) code: &'static str,
}

#[derive(Debug, Default)]
struct Queue {
    /// With the size of each.
    responses: VecDeque<(Finished, usize)>,
    bytes: usize,
    /// How the stream ends once all responses are read; `None` while there may be more.
    end: Option<Result<(), Status>>,
    /// Of the task, where it waits for room.
    sender: Option<Waker>,
    /// Of the response body, where it waits for a response.
    receiver: Option<Waker>,
}

/// The end of the queue that the calls finish into.
#[derive(Debug)]
pub(super) struct Sender {
    queue: Arc<Mutex<Queue>>,
    max: usize,
}

impl Sender {
    /// Adds a finished response.
    pub(super) fn push(&self, finished: Finished) {
        let bytes = finished.response.encoded_len();
        let mut queue = self.queue.lock();
        queue.bytes += bytes;
        queue.responses.push_back((finished, bytes));
        wake(queue.receiver.take(), queue);
    }

    /// Ready while another response, beside `running` that are to come, is within the bounds.
    pub(super) fn poll_room(&self, running: usize, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.responses.len() + running < self.max && queue.bytes < MAX_BYTES {
            return Poll::Ready(());
        }
        queue.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the stream after the responses that are unread.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let mut queue = self.queue.lock();
        queue.end.get_or_insert(end);
        wake(queue.receiver.take(), queue);
    }

    /// Ends the stream with this status, of a deadline that has passed, and drops the responses that are unread.
    pub(super) fn abandon(&self, status: Status) {
        let mut queue = self.queue.lock();
        let unread = std::mem::take(&mut queue.responses);
        queue.bytes = 0;
        queue.end.get_or_insert(Err(status));
        wake(queue.receiver.take(), queue);
        // What their client is told of them as well.
        unread.into_iter().for_each(|(mut unread, _)| end(&mut unread.counted, ErrorKind::DeadlineExceeded.code()));
    }
}

/// The end of the queue that the client reads from.
#[derive(Debug)]
pub(super) struct Receiver {
    queue: Arc<Mutex<Queue>>,
}

impl Stream for Receiver {
    type Item = Result<Finished, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut queue = self.queue.lock();
        if let Some((finished, bytes)) = queue.responses.pop_front() {
            queue.bytes -= bytes;
            wake(queue.sender.take(), queue);
            return Poll::Ready(Some(Ok(finished)));
        }
        match &mut queue.end {
            // A status is told once, and the stream is over after it.
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                queue.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Wakes with the lock released, as a waker may do anything.
fn wake<G>(waker: Option<Waker>, lock: G) {
    drop(lock);
    if let Some(waker) = waker {
        waker.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::servers::grpc::ExecuteResponse;
    use crate::servers::grpc::proto::execute_stream_response::Outcome;
    use futures_util::StreamExt;
    use futures_util::task::noop_waker;

    fn response(tag: u64, bytes: usize) -> Finished {
        let output = "x".repeat(bytes);
        let outcome = Some(Outcome::Json(ExecuteResponse { output, ..ExecuteResponse::default() }));
        Finished { response: ExecuteStreamResponse { tag, outcome }, held: None, counted: None, code: "ok" }
    }

    #[tokio::test]
    async fn unread_and_running_calls_share_one_bound_and_reading_makes_room() {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let (sender, mut receiver) = unread(2);
        assert!(sender.poll_room(1, &cx).is_ready());
        sender.push(response(1, 1));
        assert!(sender.poll_room(0, &cx).is_ready());
        assert!(sender.poll_room(1, &cx).is_pending());
        assert_eq!(receiver.next().await.unwrap().unwrap().response.tag, 1);
        assert!(sender.poll_room(1, &cx).is_ready());
    }

    #[tokio::test]
    async fn large_responses_are_bounded_by_their_bytes() {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let (sender, mut receiver) = unread(100);
        sender.push(response(1, MAX_BYTES));
        assert!(sender.poll_room(0, &cx).is_pending());
        sender.push(response(2, 1));
        assert_eq!(receiver.next().await.unwrap().unwrap().response.tag, 1);
        assert!(sender.poll_room(0, &cx).is_ready());
    }

    #[tokio::test]
    async fn the_end_comes_after_what_is_unread_or_in_its_place() {
        let (sender, mut receiver) = unread(100);
        sender.push(response(1, 1));
        sender.end(Err(Status::aborted("no more")));
        assert_eq!(receiver.next().await.unwrap().unwrap().response.tag, 1);
        assert_eq!(receiver.next().await.unwrap().unwrap_err().message(), "no more");
        assert!(receiver.next().await.is_none());

        let (sender, mut receiver) = unread(100);
        sender.push(response(1, 1));
        sender.abandon(Status::deadline_exceeded("late"));
        assert_eq!(receiver.next().await.unwrap().unwrap_err().message(), "late");
        assert!(receiver.next().await.is_none());
    }
}
