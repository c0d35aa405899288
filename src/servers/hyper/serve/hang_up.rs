//! Detects clients that disconnect while their request runs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::request_tracker::RequestTracker;
use super::transport::Transport;

/// Interval of the checks.
const CHECK_INTERVAL: Duration = Duration::from_millis(100);
/// Maximum number of bytes that are buffered after the request: 16 KiB.
const MAX_BUFFERED: usize = 16 << 10;
/// Maximum number of reads in one check.
const MAX_READS: usize = 64;

/// Detects a disconnect on an HTTP/1.1 connection while a request runs and hyper does not read.
///
/// hyper detects a disconnect by reading to the end of the input. It does not read while it holds bytes of the next
/// request, or of a body that the service does not read. In that state this asks tokio whether the client has closed
/// the connection. If the request has arrived in full, it also reads ahead, because the end of the input is only seen
/// after all input that exceeds the socket's receive buffer has been read.
///
/// If a client sends more than can be buffered, further requests are not served: the response says `connection: close`
/// and the input is dropped. HTTP lets the client send requests without a response again on another connection.
#[derive(Default)]
pub(super) struct HangUp {
    /// Timer of the next check, and the request that it belongs to. Created on demand: most clients send nothing before
    /// they have the response.
    timer: Option<(Pin<Box<Sleep>>, usize)>,
    buffered: BytesMut,
    is_dropping: bool,
}

impl HangUp {
    /// Copies what was read ahead into `buf`. Returns false if there is nothing, so that the connection is to be read.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.buffered.is_empty() {
            // After input was dropped no further request can be parsed.
            return self.is_dropping;
        }
        let bytes = self.buffered.len().min(buf.remaining());
        buf.put_slice(&self.buffered[..bytes]);
        self.buffered.advance(bytes);
        true
    }

    /// Ready once the client has disconnected. To be polled while a request runs and hyper does not read. `request`
    /// distinguishes one request from the next.
    pub(super) fn poll(
        &mut self,
        transport: &mut Transport,
        tracker: &RequestTracker,
        request: usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let (timer, of_request) =
            self.timer.get_or_insert_with(|| (Box::pin(sleep_until(Instant::now() + CHECK_INTERVAL)), request));
        if *of_request != request {
            *of_request = request;
            timer.as_mut().reset(Instant::now() + CHECK_INTERVAL);
        }
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + CHECK_INTERVAL);
            let has_ended = tracker.is_only_working()
                && read_ahead(transport, &mut self.buffered, &mut self.is_dropping, tracker, cx).is_ready();
            if has_ended || transport.is_read_closed() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Reads ahead. Ready at the end of the input.
fn read_ahead(
    transport: &mut Transport,
    buffered: &mut BytesMut,
    is_dropping: &mut bool,
    tracker: &RequestTracker,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut piece = [0; 16 << 10];
    for _ in 0..MAX_READS {
        let mut piece = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(&mut *transport).poll_read(cx, &mut piece));
        let bytes = piece.filled();
        if read.is_err() || bytes.is_empty() {
            return Poll::Ready(());
        }
        if !*is_dropping && buffered.len() + bytes.len() <= MAX_BUFFERED {
            buffered.extend_from_slice(bytes);
        } else if !*is_dropping {
            *is_dropping = true;
            *buffered = BytesMut::new();
            tracker.close_after_response();
        }
    }
    Poll::Pending
}
