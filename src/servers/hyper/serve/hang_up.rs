//! Finds clients that hang up while their request runs.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::request_tracker::Activity;
use super::transport::Transport;

/// How often to look whether the client has hung up.
const LOOK: Duration = Duration::from_millis(100);
/// The most bytes that are kept of what comes after the request: 16 KiB.
const MAX_KEPT: usize = 16 << 10;
/// The most pieces of those bytes that are read at a time.
const MAX_PIECES: usize = 64;

/// What comes on a connection of HTTP/1.1 while a request runs and hyper does not read.
///
/// hyper finds a client that has hung up by reading to the end of what it sent. It does not read while it holds bytes of the
/// next request, or of a body that the service does not read. Then the system is asked whether the client has closed the
/// connection, and where the request has come in full what follows is read ahead: the end of a client that has sent more
/// than the system takes for it comes only when it is read.
///
/// Of a client that sends more than is kept nothing further is answered. Its response says `connection: close`, and what
/// it sends is dropped: it can send it again on another connection, as HTTP has it for requests that get no response.
#[derive(Default)]
pub(super) struct HangUp {
    /// When to look next, and of which turn that is. Made when it is first needed: most clients send nothing before they
    /// have the response.
    timer: Option<(Pin<Box<Sleep>>, usize)>,
    kept: BytesMut,
    drops: bool,
}

impl HangUp {
    /// Gives what was read ahead; false where there is nothing, and the connection is to be read.
    pub(super) fn read(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        if self.kept.is_empty() {
            // Where something was dropped there is no further request.
            return self.drops;
        }
        let bytes = self.kept.len().min(buf.remaining());
        buf.put_slice(&self.kept[..bytes]);
        self.kept.advance(bytes);
        true
    }

    /// Ready once the client has hung up. To be polled while a request runs and nobody reads; `turn` tells one request
    /// from the next.
    pub(super) fn poll(
        &mut self,
        transport: &mut Transport,
        activity: &Activity,
        turn: usize,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let (timer, of_turn) = self.timer.get_or_insert_with(|| (Box::pin(sleep_until(Instant::now() + LOOK)), turn));
        if *of_turn != turn {
            *of_turn = turn;
            timer.as_mut().reset(Instant::now() + LOOK);
        }
        while timer.as_mut().poll(cx).is_ready() {
            timer.as_mut().reset(Instant::now() + LOOK);
            let has_ended = activity.is_only_working()
                && read_ahead(transport, &mut self.kept, &mut self.drops, activity, cx).is_ready();
            if has_ended || transport.is_read_closed() {
                return Poll::Ready(());
            }
        }
        Poll::Pending
    }
}

/// Ready where there is nothing more to come.
fn read_ahead(
    transport: &mut Transport,
    kept: &mut BytesMut,
    drops: &mut bool,
    activity: &Activity,
    cx: &mut Context<'_>,
) -> Poll<()> {
    let mut piece = [0; 16 << 10];
    for _ in 0..MAX_PIECES {
        let mut piece = ReadBuf::new(&mut piece);
        let read = ready!(Pin::new(&mut *transport).poll_read(cx, &mut piece));
        let bytes = piece.filled();
        if read.is_err() || bytes.is_empty() {
            return Poll::Ready(());
        }
        if !*drops && kept.len() + bytes.len() <= MAX_KEPT {
            kept.extend_from_slice(bytes);
        } else if !*drops {
            *drops = true;
            *kept = BytesMut::new();
            activity.close_after_response();
        }
    }
    Poll::Pending
}
