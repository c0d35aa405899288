//! The body of a request, which comes back when the service drops it before its end.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ::hyper::body::Incoming;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::body_wait::BodyWait;
use super::request_tracker::Activity;
use crate::sync::Mutex;

/// The body of a request of a [`Server`](super::Server): hyper's [`Incoming`], which the server watches to know whether it
/// waits for the client or for the service, and of which it reads what the service leaves where that is short, so that the
/// connection can go on.
pub struct RequestBody {
    /// `None` only in `drop`.
    incoming: Option<Incoming>,
    wait: BodyWait,
    /// `None` where there is nothing to read from the beginning.
    tracked: Option<Tracked>,
}

struct Tracked {
    slot: Arc<BodySlot>,
    /// Whether the service has asked for the body.
    was_polled: bool,
    /// How it ended, where it has.
    end: Option<BodyState>,
}

/// Where the body of one request is.
#[derive(Debug, Default)]
pub(super) enum BodyState {
    /// With the service, or with whomever the service gave it to.
    #[default]
    Held,
    /// Dropped by the service before its end.
    Unread { incoming: Incoming, was_polled: bool },
    /// Read to its end.
    Read,
    /// It broke off: the connection ends.
    Broken,
    /// The response is on its way, and what comes back now is dropped.
    Closed,
}

/// Where the server finds the body of one request.
#[derive(Debug, Default)]
pub(super) struct BodySlot {
    state: Mutex<BodyState>,
}

impl BodySlot {
    /// Makes it that of the next request. Only for one that nobody else has.
    pub(super) fn reset(&self) {
        *self.state.lock() = BodyState::Held;
    }

    /// Where the body is, now that the service has answered.
    pub(super) fn close(&self) -> BodyState {
        std::mem::replace(&mut self.state.lock(), BodyState::Closed)
    }

    fn put(&self, left: BodyState) {
        let mut state = self.state.lock();
        if matches!(*state, BodyState::Held) {
            *state = left;
            return;
        }
        // hyper does more than a little when a body is dropped.
        drop(state);
        drop(left);
    }
}

impl RequestBody {
    /// One without a slot is dropped where it is.
    pub(super) fn new(incoming: Incoming, slot: Option<Arc<BodySlot>>, activity: Activity) -> Self {
        let wait = BodyWait::new(activity, incoming.is_end_stream());
        let tracked = slot.map(|slot| Tracked { slot, was_polled: false, end: None });
        Self { incoming: Some(incoming), wait, tracked }
    }

    fn incoming(&self) -> &Incoming {
        self.incoming.as_ref().expect("there until it is dropped")
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ::hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ::hyper::Error>>> {
        let this = self.get_mut();
        let incoming = this.incoming.as_mut().expect("there until it is dropped");
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
        let Some((Tracked { slot, was_polled, end }, incoming)) = self.tracked.take().zip(self.incoming.take()) else {
            return;
        };
        let left = match end {
            Some(end) => end,
            None if incoming.is_end_stream() => BodyState::Read,
            None => return slot.put(BodyState::Unread { incoming, was_polled }),
        };
        // First, so that hyper knows of it before the response is sent.
        drop(incoming);
        slot.put(left);
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("incoming", self.incoming()).finish_non_exhaustive()
    }
}
