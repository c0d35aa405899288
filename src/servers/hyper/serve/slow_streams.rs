//! Resets HTTP/2 streams whose client does not read them.
//!
//! hyper runs each HTTP/2 stream as a task of the executor that it is given. The task polls the response body and then
//! waits until the client's flow-control window has capacity. While it waits it does not poll the body, so the body
//! cannot apply a timeout. Therefore this executor wraps the task. The body records, through a thread-local that is set
//! while the task is polled, how much data it returned and whether it was polled for more. A stream whose body returned
//! data and is not polled for more is blocked by its client. When that takes too long the task is dropped, and with it
//! h2's handle of the stream, which resets the stream (`CANCEL`) and frees its memory.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::read_timer::ReadTimer;
use super::request_tracker::Counts;

thread_local! {
    /// Progress of the body of the stream that is being polled.
    static PROGRESS: Cell<Progress> =
        const { Cell::new(Progress { polled: false, is_pending: false, returned: 0, last: 0 }) };
}

#[derive(Clone, Copy, Default)]
struct Progress {
    /// The body was polled.
    polled: bool,
    /// The body was pending at some point: the client has read everything before.
    is_pending: bool,
    /// Bytes that it returned.
    returned: usize,
    /// Bytes of its last frame, which the client may not have read yet.
    last: usize,
}

/// Records that the body of the stream that is being polled returned data.
pub(super) fn record_data(bytes: usize) {
    let progress = PROGRESS.get();
    PROGRESS.set(Progress { polled: true, returned: progress.returned + bytes, last: bytes, ..progress });
}

/// Records that the body of the stream that is being polled is pending.
pub(super) fn record_pending() {
    PROGRESS.set(Progress { polled: true, is_pending: true, returned: 0, last: 0 });
}

/// Spawns the tasks of a connection's streams, each with a timeout for clients that do not read.
#[derive(Clone, Debug)]
pub(super) struct StreamExecutor {
    limit: Duration,
    counts: Arc<Counts>,
}

impl StreamExecutor {
    pub(super) fn new(limit: Duration, counts: Arc<Counts>) -> Self {
        Self { limit, counts }
    }
}

impl<F> ::hyper::rt::Executor<F> for StreamExecutor
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, future: F) {
        let timer = ReadTimer::new(self.limit);
        tokio::spawn(StreamTask { future, timer, unread: 0, counts: Arc::clone(&self.counts) });
    }
}

#[pin_project]
struct StreamTask<F> {
    #[pin]
    future: F,
    timer: ReadTimer,
    /// Bytes of the body's last frame, for which hyper waits for flow-control capacity.
    unread: usize,
    counts: Arc<Counts>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        PROGRESS.set(Progress::default());
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let progress = PROGRESS.take();
        if progress.polled {
            this.timer.record_read(*this.unread + progress.returned - progress.last);
            *this.unread = progress.last;
        }
        if progress.is_pending {
            this.timer.record_drained();
        }
        if *this.unread == 0 || this.timer.poll_blocked(cx).is_pending() {
            return Poll::Pending;
        }
        this.counts.count_slow_stream();
        tracing::debug!("an HTTP/2 stream was reset because the client does not read it");
        Poll::Ready(())
    }
}
