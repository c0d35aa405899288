//! The body of a request, which is handed back to the server when the service drops it unread.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::hyper::body::Incoming;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body_wait::BodyWait;
use super::request_tracker::RequestTracker;
use crate::sync::Mutex;

/// The body of a request of a [`Server`](super::Server). Wraps hyper's [`Incoming`], to track whether the server waits
/// for the client or for the service. The server reads a short rest that the service leaves unread, so that the
/// connection can continue.
pub struct RequestBody {
    /// `None` only in `drop`.
    incoming: Option<Incoming>,
    wait: BodyWait,
    /// `None` if there was nothing to read from the start.
    tracked: Option<Tracked>,
}

struct Tracked {
    shared: Arc<SharedBody>,
    /// Whether the service has polled the body.
    was_polled: bool,
    /// How the body ended, once it has.
    end: Option<BodyState>,
}

/// State of the body of one request.
#[derive(Debug, Default)]
pub(super) enum BodyState {
    /// Held by the service, or by whatever the service passed it to.
    #[default]
    Held,
    /// Dropped by the service before its end.
    Unread { incoming: Incoming, was_polled: bool },
    /// Read to its end.
    Read,
    /// Failed: the connection ends.
    Broken,
    /// The response has been returned: a body that is dropped from now on is not handed back.
    Closed,
}

/// Shares the body of one request between the service and the server.
#[derive(Debug, Default)]
pub(super) struct SharedBody {
    state: Mutex<BodyState>,
}

impl SharedBody {
    /// Resets the state for the next request. Call it only if there is no other reference.
    pub(super) fn reset(&self) {
        *self.state.lock() = BodyState::Held;
    }

    /// Takes the state of the body once the service has responded.
    pub(super) fn close(&self) -> BodyState {
        std::mem::replace(&mut self.state.lock(), BodyState::Closed)
    }

    /// Sets the state, unless the response has been returned.
    fn put(&self, ended: BodyState) {
        let mut state = self.state.lock();
        if matches!(*state, BodyState::Held) {
            *state = ended;
            return;
        }
        // Dropped outside the lock, because dropping a body runs code of hyper.
        drop(state);
        drop(ended);
    }
}

impl RequestBody {
    /// Creates a body. Without `shared` it is not handed back.
    pub(super) fn new(incoming: Incoming, shared: Option<Arc<SharedBody>>, tracker: RequestTracker) -> Self {
        let wait = BodyWait::new(tracker, incoming.is_end_stream());
        let tracked = shared.map(|shared| Tracked { shared, was_polled: false, end: None });
        Self { incoming: Some(incoming), wait, tracked }
    }

    fn incoming(&self) -> &Incoming {
        self.incoming.as_ref().expect("only `drop` takes the body")
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ::hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ::hyper::Error>>> {
        let this = self.get_mut();
        let incoming = this.incoming.as_mut().expect("only `drop` takes the body");
        let polled = Pin::new(&mut *incoming).poll_frame(cx);
        this.wait.polled(&polled, incoming.is_end_stream());
        if let Some(tracked) = &mut this.tracked {
            tracked.was_polled = true;
            match &polled {
                Poll::Ready(None) => tracked.end = Some(BodyState::Read),
                Poll::Ready(Some(Err(_))) => tracked.end = Some(BodyState::Broken),
                _ => {}
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming().is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming().size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        let Some((Tracked { shared, was_polled, end }, incoming)) = self.tracked.take().zip(self.incoming.take())
        else {
            return;
        };
        let ended = match end {
            Some(end) => end,
            None if incoming.is_end_stream() => BodyState::Read,
            None => return shared.put(BodyState::Unread { incoming, was_polled }),
        };
        // Dropped first, so that hyper notices before the response is sent.
        drop(incoming);
        shared.put(ended);
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("incoming", self.incoming()).finish_non_exhaustive()
    }
}
