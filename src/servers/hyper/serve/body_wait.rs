//! Tracks which requests of a connection wait for the rest of their bodies.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::request_tracker::RequestTracker;

/// Counts a request as waiting for its body while the service waits for more of it.
///
/// A stopping server does not wait long for a client that has stopped sending, because the service has not started work
/// on the request. A body that the service does not poll is not waited for.
#[derive(Debug)]
pub(super) struct BodyWait {
    tracker: RequestTracker,
    is_waiting: bool,
    /// Whether the service ever had to wait. Bodies that arrive with their heads, as most do, are not counted.
    has_waited: bool,
}

impl BodyWait {
    /// `has_ended`: whether the body is empty or at its end.
    pub(super) fn new(tracker: RequestTracker, has_ended: bool) -> Self {
        tracker.set_body_ended(has_ended);
        Self { tracker, is_waiting: false, has_waited: false }
    }

    /// Records a poll of the body, and whether the body has ended with it.
    pub(super) fn polled<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>, has_ended: bool) {
        let Poll::Ready(frame) = polled else {
            if !self.is_waiting {
                (self.is_waiting, self.has_waited) = (true, true);
                self.tracker.begin_awaiting_body();
            }
            return;
        };
        self.end();
        match frame {
            Some(Ok(frame)) if self.has_waited => {
                self.tracker.count_body_bytes(frame.data_ref().map_or(0, Bytes::len));
            }
            _ => {}
        }
        if has_ended || frame.is_none() {
            self.tracker.set_body_ended(true);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.tracker.end_awaiting_body();
        }
    }
}

impl Drop for BodyWait {
    fn drop(&mut self) {
        self.end();
    }
}
