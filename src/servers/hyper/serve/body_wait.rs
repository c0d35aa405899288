//! Tells a connection which of its requests wait for the rest of their bodies, and which have them in full.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::request_tracker::Activity;

/// Counts a request among those of its connection whose body is waited for, while it is.
///
/// A server that stops need not wait long for a client that has stopped sending: nothing works on such a request yet. A
/// body that nobody asks for is not waited for.
#[derive(Debug)]
pub(super) struct BodyWait {
    activity: Activity,
    is_waiting: bool,
    /// Bodies that come with their heads, as most do, are not counted at all.
    has_waited: bool,
}

impl BodyWait {
    /// `has_ended` says whether there is no body, or none that is left to read.
    pub(super) fn new(activity: Activity, has_ended: bool) -> Self {
        activity.set_body_ended(has_ended);
        Self { activity, is_waiting: false, has_waited: false }
    }

    /// To be told of each time that the body was polled, and whether it has ended with that.
    pub(super) fn polled<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>, has_ended: bool) {
        let Poll::Ready(frame) = polled else {
            if !self.is_waiting {
                (self.is_waiting, self.has_waited) = (true, true);
                self.activity.begin_awaiting_body();
            }
            return;
        };
        self.end();
        match frame {
            Some(Ok(frame)) if self.has_waited => {
                self.activity.count_body_bytes(frame.data_ref().map_or(0, Bytes::len));
            }
            _ => {}
        }
        if has_ended || frame.is_none() {
            self.activity.set_body_ended(true);
        }
    }

    fn end(&mut self) {
        if std::mem::take(&mut self.is_waiting) {
            self.activity.end_awaiting_body();
        }
    }
}

impl Drop for BodyWait {
    fn drop(&mut self) {
        self.end();
    }
}
