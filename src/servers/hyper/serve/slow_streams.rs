//! Resets HTTP/2 streams whose client does not read them.
//!
//! hyper runs each stream of HTTP/2 as a task of the executor that it is given. In it, it polls the response's body and
//! then waits until the client gives the stream room for what came; while it waits it does not poll the body, which
//! therefore cannot end it. So the executor here wraps the task: the body tells it, through a thread-local that is set
//! while the task is polled, what it gave and whether it was asked for more. A stream that has been given something and
//! asks for no more is held up by its client. When that takes too long the task is dropped, and with it h2's handle of
//! the stream, which resets the stream (`CANCEL`) and lets go of what it holds of it.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project::pin_project;

use super::read_clock::ReadClock;
use super::request_tracker::Counts;

thread_local! {
    /// What the body of the stream that is being polled has done meanwhile.
    static SEEN: Cell<Seen> = const { Cell::new(Seen { polled: false, waits: false, given: 0, last: 0 }) };
}

#[derive(Clone, Copy, Default)]
struct Seen {
    /// The body was asked for more.
    polled: bool,
    /// It had no more at some time: the client has all that there was.
    waits: bool,
    /// The bytes that it gave.
    given: usize,
    /// Those of them that it gave last, and which the client need not have taken.
    last: usize,
}

/// The body of the stream that is being polled has given so many bytes.
pub(super) fn gave(bytes: usize) {
    let seen = SEEN.get();
    SEEN.set(Seen { polled: true, given: seen.given + bytes, last: bytes, ..seen });
}

/// The body of the stream that is being polled has nothing to give.
pub(super) fn waits() {
    SEEN.set(Seen { polled: true, waits: true, given: 0, last: 0 });
}

/// Spawns the tasks of a connection's streams, each with a clock.
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
        let clock = ReadClock::new(self.limit);
        tokio::spawn(StreamTask { future, clock, unread: 0, counts: Arc::clone(&self.counts) });
    }
}

#[pin_project]
struct StreamTask<F> {
    #[pin]
    future: F,
    clock: ReadClock,
    /// What the body gave last, and for which hyper waits until the client gives it room.
    unread: usize,
    counts: Arc<Counts>,
}

impl<F: Future<Output = ()>> Future for StreamTask<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        SEEN.set(Seen::default());
        if this.future.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let seen = SEEN.take();
        if seen.polled {
            this.clock.took(*this.unread + seen.given - seen.last);
            *this.unread = seen.last;
        }
        if seen.waits {
            this.clock.took_all();
        }
        if *this.unread == 0 || this.clock.poll_blocked(cx).is_pending() {
            return Poll::Pending;
        }
        this.counts.count_slow_stream();
        tracing::debug!("an HTTP/2 stream is reset: its client does not read it");
        Poll::Ready(())
    }
}
