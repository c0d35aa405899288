//! Handles the part of a request's body that was not read before the response.
//!
//! A server that drops such a body must close an HTTP/1.1 connection, as the next request follows the body. hyper does
//! so without `connection: close`, and a client that reuses the connection loses its next request. So a small body is
//! read to its end first, and otherwise the response has `connection: close`.
//!
//! Over HTTP/2 hyper resets the stream (`NO_ERROR`) as soon as the response has ended, which curl and others report as
//! a failed request. There the body is read after the response.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use http::header::{CONNECTION, EXPECT};
use http::{HeaderMap, HeaderValue, Response, Version};
use http_body::Body;
use tokio::time::{Instant, sleep_until};

/// Maximum size of a body that is read before its response is sent: 64 KiB.
const MAX_HELD_BYTES: u64 = 64 << 10;
/// Maximum size of a body that is read after its response: 16 MiB.
#[cfg(feature = "hyper")]
const MAX_LATE_BYTES: u64 = 16 << 20;
/// Timeout of the next bytes. They follow the head, unless the client is stuck.
const MAX_PAUSE: Duration = Duration::from_secs(2);
/// Timeout of the whole body.
const MAX_TIME: Duration = Duration::from_secs(5);

/// Properties of a request that decide what happens to its unread body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnreadBody {
    is_http1: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    expects_continue: bool,
}

impl UnreadBody {
    pub(crate) fn of(version: Version, headers: &HeaderMap) -> Self {
        let is_continue = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
        Self { is_http1: version <= Version::HTTP_11, expects_continue: headers.get(EXPECT).is_some_and(is_continue) }
    }

    /// Whether the connection is HTTP/1.1, which an unread body makes unusable.
    #[cfg(feature = "hyper")]
    pub(crate) fn is_http1(self) -> bool {
        self.is_http1
    }

    /// Whether to read the rest of the body before the response is sent. `was_polled` is whether the body was polled,
    /// which sends `100 Continue`.
    pub(crate) fn is_worth_reading<B: Body, T>(self, body: &B, was_polled: bool, response: &Response<T>) -> bool {
        let is_last = self.is_http1 && says_close(response);
        let never_comes = self.expects_continue && !was_polled;
        !is_last && !never_comes && body.size_hint().lower() <= MAX_HELD_BYTES
    }

    /// Reads the rest of the body. Sets `connection: close` for HTTP/1.1 if it does not end soon.
    pub(crate) async fn read<B: Body, T>(self, body: B, mut response: Response<T>) -> Response<T> {
        if !ends_soon(body, MAX_HELD_BYTES).await {
            self.say_close(&mut response);
        }
        response
    }

    /// Handles the rest of the body of a request that has a response, in servers that do not do so themselves.
    pub(crate) async fn finish<B: Body, T>(self, body: B, mut response: Response<T>) -> Response<T> {
        if body.is_end_stream() {
            return response;
        }
        if self.is_worth_reading(&body, false, &response) {
            // Boxed, as few requests need its timers.
            return Box::pin(self.read(body, response)).await;
        }
        self.say_close(&mut response);
        response
    }

    /// Sets `connection: close`, unless it is HTTP/2, where only the stream ends.
    pub(crate) fn say_close<T>(self, response: &mut Response<T>) {
        if self.is_http1 {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
    }
}

/// Reads the rest of an HTTP/2 body while the response is sent, and drops it if that takes too long.
#[cfg(feature = "hyper")]
pub(crate) async fn read_late<B: Body>(body: B) {
    ends_soon(body, MAX_LATE_BYTES).await;
}

fn says_close<T>(response: &Response<T>) -> bool {
    let values = response.headers().get_all(CONNECTION);
    let mut options = values.iter().flat_map(|value| value.as_bytes().split(|&byte| byte == b','));
    options.any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"))
}

/// Reads and discards a body; false if it is too long, too slow or ends early.
async fn ends_soon<B: Body>(body: B, max_bytes: u64) -> bool {
    let mut body = std::pin::pin!(body);
    let last = Instant::now() + MAX_TIME;
    let mut timer = std::pin::pin!(sleep_until(last.min(Instant::now() + MAX_PAUSE)));
    let mut read = 0;
    loop {
        let frame = poll_fn(|cx| match body.as_mut().poll_frame(cx) {
            Poll::Ready(frame) => Poll::Ready(Some(frame)),
            Poll::Pending => timer.as_mut().poll(cx).map(|()| None),
        });
        match frame.await {
            Some(None) => return true,
            Some(Some(Ok(frame))) => read += frame.data_ref().map_or(0, |data| bytes::Buf::remaining(data) as u64),
            Some(Some(Err(_))) | None => return false,
        }
        if body.is_end_stream() {
            return true;
        }
        let now = Instant::now();
        if read > max_bytes || now >= last {
            return false;
        }
        timer.as_mut().reset(last.min(now + MAX_PAUSE));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use futures::stream::{self, Stream, StreamExt};
    use http_body::Frame;
    use http_body_util::StreamBody;

    type Frames = Result<Frame<Bytes>, std::io::Error>;

    /// Frames of so many bytes, each after this time.
    fn frames(count: usize, bytes: usize, after: Duration) -> impl Stream<Item = Frames> {
        stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(after).await;
            Ok(Frame::data(Bytes::from(vec![b' '; bytes])))
        })
    }

    async fn read(frames: impl Stream<Item = Frames>) -> (bool, Duration) {
        let unread = UnreadBody::of(Version::HTTP_11, &HeaderMap::new());
        let begun = Instant::now();
        let response = unread.finish(StreamBody::new(frames), Response::new(())).await;
        (!says_close(&response), begun.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_small_body_that_ends_soon_is_read() {
        for after in [Duration::ZERO, MAX_PAUSE / 2] {
            let (was_read, took) = read(frames(4, 16 << 10, after)).await;
            assert!(was_read && took < MAX_TIME, "{after:?}: {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_long_slow_or_stuck_ends_the_connection_in_bounded_time() {
        let (was_read, took) = read(frames(5, 16 << 10, Duration::ZERO)).await;
        assert!(!was_read && took < Duration::from_millis(10), "{took:?}");
        let (was_read, took) = read(frames(1000, 1, MAX_PAUSE / 2)).await;
        assert!(!was_read && took <= MAX_TIME + MAX_PAUSE, "{took:?}");
        let (was_read, took) = read(stream::pending()).await;
        assert!(!was_read && took <= MAX_PAUSE * 2, "{took:?}");
        let broken = stream::iter([Err(std::io::ErrorKind::ConnectionReset.into())]);
        assert!(!read(broken).await.0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_is_known_to_be_long_or_not_to_come_is_not_waited_for() {
        let long = http_body_util::Full::new(Bytes::from(vec![0; MAX_HELD_BYTES as usize + 1]));
        let plain = UnreadBody::of(Version::HTTP_11, &HeaderMap::new());
        assert!(!plain.is_worth_reading(&long, false, &Response::new(())));
        let short = http_body_util::Full::new(Bytes::from_static(b"{}"));
        assert!(plain.is_worth_reading(&short, false, &Response::new(())));
        let headers = HeaderMap::from_iter([(EXPECT, HeaderValue::from_static("100-Continue"))]);
        let expects = UnreadBody::of(Version::HTTP_11, &headers);
        assert!(!expects.is_worth_reading(&short, false, &Response::new(())));
        assert!(expects.is_worth_reading(&short, true, &Response::new(())), "the client was told to go on");
        let mut last = Response::new(());
        last.headers_mut().insert(CONNECTION, HeaderValue::from_static("keep-alive, Close"));
        assert!(!plain.is_worth_reading(&short, false, &last));
    }

    #[tokio::test(start_paused = true)]
    async fn a_response_over_http2_names_no_connection() {
        let unread = UnreadBody::of(Version::HTTP_2, &HeaderMap::new());
        let body = StreamBody::new(frames(9, 16 << 10, Duration::ZERO));
        let response = unread.finish(body, Response::new(())).await;
        assert!(response.headers().is_empty());
    }
}
