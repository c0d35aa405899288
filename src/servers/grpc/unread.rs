//! Queue of a stream's responses that its client has not read.

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

/// No further request of a stream is read while its unread responses have at least this many bytes: 1 MiB. Running
/// requests still finish, so there can be more.
const MAX_BYTES: usize = 1 << 20;

/// Creates a queue from the task that runs a stream's calls to the response body.
///
/// Unlike in a bounded channel, [`Sender::push`] never waits, so a call that has finished holds no permit and no timer,
/// whether or not the client reads. The bound is checked before a request is read, with [`Sender::poll_capacity`].
pub(super) fn unread(max: usize) -> (Sender, Receiver) {
    let queue = Arc::new(Mutex::new(Queue::default()));
    (Sender { queue: Arc::clone(&queue), max }, Receiver { queue })
}

/// A response that the client has not read.
#[derive(Debug)]
pub(super) struct Finished {
    pub(super) response: ExecuteStreamResponse,
    /// Memory that it holds.
    pub(super) held: Option<Sending>,
    /// Ended with this code once the response is read.
    pub(super) counted: Option<Counted>,
    pub(super) code: &'static str,
}

#[derive(Debug, Default)]
struct Queue {
    /// Responses with their sizes.
    responses: VecDeque<(Finished, usize)>,
    bytes: usize,
    /// How the stream ends after the responses; `None` while it continues.
    end: Option<Result<(), Status>>,
    /// Waker of the task that waits for capacity.
    sender: Option<Waker>,
    /// Waker of the response body that waits for a response.
    receiver: Option<Waker>,
}

/// Sending half of the queue.
#[derive(Debug)]
pub(super) struct Sender {
    queue: Arc<Mutex<Queue>>,
    max: usize,
}

impl Sender {
    /// Adds a response.
    pub(super) fn push(&self, finished: Finished) {
        let bytes = finished.response.encoded_len();
        let mut queue = self.queue.lock();
        queue.bytes += bytes;
        queue.responses.push_back((finished, bytes));
        wake(queue.receiver.take(), queue);
    }

    /// Ready if another response is within the bounds, besides `running` ones that have not finished.
    pub(super) fn poll_capacity(&self, running: usize, cx: &Context<'_>) -> Poll<()> {
        let mut queue = self.queue.lock();
        if queue.responses.len() + running < self.max && queue.bytes < MAX_BYTES {
            return Poll::Ready(());
        }
        queue.sender = Some(cx.waker().clone());
        Poll::Pending
    }

    /// Ends the stream after the unread responses.
    pub(super) fn end(&self, end: Result<(), Status>) {
        let mut queue = self.queue.lock();
        queue.end.get_or_insert(end);
        wake(queue.receiver.take(), queue);
    }

    /// Ends the stream with this status and drops the unread responses, as the deadline is exceeded.
    pub(super) fn abandon(&self, status: Status) {
        let mut queue = self.queue.lock();
        let unread = std::mem::take(&mut queue.responses);
        queue.bytes = 0;
        queue.end.get_or_insert(Err(status));
        wake(queue.receiver.take(), queue);
        // Which is also their outcome.
        unread.into_iter().for_each(|(mut unread, _)| end(&mut unread.counted, ErrorKind::DeadlineExceeded.code()));
    }
}

/// Receiving half of the queue.
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
            // The stream ends after its status.
            Some(end) => Poll::Ready(std::mem::replace(end, Ok(())).err().map(Err)),
            None => {
                queue.receiver = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// Wakes after the lock is released, as a waker can run any code.
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
    async fn unread_and_running_calls_share_one_bound_and_reading_frees_capacity() {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let (sender, mut receiver) = unread(2);
        assert!(sender.poll_capacity(1, &cx).is_ready());
        sender.push(response(1, 1));
        assert!(sender.poll_capacity(0, &cx).is_ready());
        assert!(sender.poll_capacity(1, &cx).is_pending());
        assert_eq!(receiver.next().await.unwrap().unwrap().response.tag, 1);
        assert!(sender.poll_capacity(1, &cx).is_ready());
    }

    #[tokio::test]
    async fn large_responses_are_bounded_by_their_bytes() {
        let waker = noop_waker();
        let cx = Context::from_waker(&waker);
        let (sender, mut receiver) = unread(100);
        sender.push(response(1, MAX_BYTES));
        assert!(sender.poll_capacity(0, &cx).is_pending());
        sender.push(response(2, 1));
        assert_eq!(receiver.next().await.unwrap().unwrap().response.tag, 1);
        assert!(sender.poll_capacity(0, &cx).is_ready());
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
