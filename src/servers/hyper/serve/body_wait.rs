//! Tells a connection which of its requests wait for the rest of their bodies.

use std::task::Poll;

use bytes::Bytes;
use http_body::Frame;

use super::activity::Activity;

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
    pub(super) fn new(activity: Activity) -> Self {
        Self { activity, is_waiting: false, has_waited: false }
    }

    /// To be told of each time that the body was polled.
    pub(super) fn polled<E>(&mut self, polled: &Poll<Option<Result<Frame<Bytes>, E>>>) {
        let Poll::Ready(frame) = polled else {
            if !self.is_waiting {
                (self.is_waiting, self.has_waited) = (true, true);
                self.activity.begin_awaiting_body();
            }
            return;
        };
        self.end();
        if self.has_waited
            && let Some(Ok(frame)) = frame
        {
            self.activity.count_body_bytes(frame.data_ref().map_or(0, Bytes::len));
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
