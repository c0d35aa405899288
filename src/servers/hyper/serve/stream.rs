//! Socket of a connection, with timeouts for reading, writing and idling.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::hang_up::HangUp;
use super::read_timer::ReadTimer;
use super::request_tracker::RequestTracker;
use super::transport::Transport;
use super::{STOP_GRACE, ServerConfig, later};

/// The HTTP/2 connection preface.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long to read from a client that keeps sending after the last byte was written.
const SHUTDOWN_READ_LIMIT: Duration = Duration::from_secs(3);
/// How long to wait for a client that sends nothing after the last byte was written.
const SHUTDOWN_READ_IDLE: Duration = Duration::from_secs(1);
/// Minimum time that a stopping server waits for the first byte of a connection, which may be in transit.
const FIRST_BYTE: Duration = Duration::from_millis(250);

/// The socket of one connection.
///
/// hyper has one timeout for request heads, which also runs while a connection is idle. It has none before it knows the
/// HTTP version, and none for clients that do not read. So the timeouts are here:
///
/// * While a request is in flight only the write timeout runs: how long the request may take is up to the service.
/// * Otherwise the server waits for the client to send. `since` is when the client last made progress: when the
///   connection began, the last response was written, or the next request head began to arrive.
/// * When everything is written and the client keeps sending (such as the body of a rejected request), closing the
///   socket would reset the connection and discard the response. So input is read and dropped for a while.
///
/// It also detects disconnects while hyper does not read: see [`HangUp`]. As in hyper, closing only the sending half of
/// the connection counts as a disconnect.
pub(super) struct Stream {
    tcp: Transport,
    tracker: RequestTracker,
    /// [`RequestTracker::state_changes`] at the last check.
    state_changes: usize,
    since: Instant,
    /// Whether a head has begun to arrive. True for a new connection, whose client is expected to send one.
    in_head: bool,
    /// How many bytes of the HTTP/2 preface have arrived; the full length for HTTP/2, `None` for HTTP/1.1.
    preface: Option<usize>,
    reading: Pin<Box<Sleep>>,
    writing: ReadTimer,
    /// Write timeout of a pending flush: the rest of a response may be in the TLS buffer, so that only flushing waits.
    flushing: Option<Pin<Box<Sleep>>>,
    /// Until when input is dropped after everything was written.
    shutdown_read_until: Option<Instant>,
    /// Whether hyper waits for input, and so notices a disconnect itself.
    waits_to_read: bool,
    hang_up: HangUp,
    /// Whether a part of a response is waiting for the client to read.
    is_sending: bool,
    /// Since when an HTTP/1.1 connection is to be closed once it is idle.
    closes_since: Option<Instant>,
    limits: Limits,
}

#[derive(Clone, Copy)]
struct Limits {
    head: Duration,
    idle: Duration,
    write: Duration,
}

impl Stream {
    pub(super) fn new(tcp: Transport, tracker: RequestTracker, config: &ServerConfig) -> Self {
        let limits = Limits { head: config.head_timeout, idle: config.idle_timeout, write: config.write_timeout };
        let since = Instant::now();
        Self {
            tcp,
            state_changes: tracker.state_changes(),
            tracker,
            since,
            in_head: true,
            preface: Some(0),
            reading: Box::pin(sleep_until(later(since, limits.head))),
            writing: ReadTimer::new(config.write_timeout),
            flushing: None,
            shutdown_read_until: None,
            waits_to_read: false,
            hang_up: HangUp::default(),
            is_sending: false,
            closes_since: None,
            limits,
        }
    }

    /// Whether a request is in flight. If one has ended since the last check, `since` is set to now.
    fn is_busy(&mut self) -> bool {
        let has_changed = self.note_state_changes();
        let is_busy = self.state_changes % 2 == 1;
        if has_changed && !is_busy {
            self.since = Instant::now();
        }
        is_busy
    }

    /// Whether a request has begun or ended since the last check.
    fn note_state_changes(&mut self) -> bool {
        let state_changes = self.tracker.state_changes();
        if state_changes == self.state_changes {
            return false;
        }
        self.state_changes = state_changes;
        self.in_head = false;
        true
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    fn received(&mut self, bytes: &[u8]) {
        if let Some(seen) = self.preface.filter(|&seen| seen < PREFACE.len()) {
            let compared = bytes.len().min(PREFACE.len() - seen);
            self.preface = (bytes[..compared] == PREFACE[seen..seen + compared]).then_some(seen + compared);
            if self.is_http2() {
                self.tracker.set_http2();
            }
        }
        if !self.is_busy() && !self.in_head {
            self.in_head = true;
            self.since = Instant::now();
        }
    }

    /// Ready if the client has not sent in time: with an error within a head, with an end of input on an idle
    /// connection.
    fn poll_timeout(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_busy() || self.is_http2() || self.shutdown_read_until.is_some() {
            return Poll::Pending;
        }
        loop {
            let (deadline, is_late) = self.deadline();
            // The timer is only reset to an earlier deadline or when it has elapsed, not with each request.
            if deadline < self.reading.deadline() || self.reading.is_elapsed() {
                self.reading.as_mut().reset(deadline);
            }
            ready!(self.reading.as_mut().poll(cx));
            if Instant::now() < deadline {
                continue;
            }
            if is_late {
                return Poll::Ready(Err(late("the request head did not arrive in time")));
            }
            // A request may have arrived at this moment.
            if !self.tcp.has_unread() {
                return Poll::Ready(Ok(()));
            }
            (self.in_head, self.since) = (true, Instant::now());
        }
    }

    /// Deadline of the client, and whether missing it is an error.
    fn deadline(&mut self) -> (Instant, bool) {
        let limit = if self.in_head { self.limits.head } else { self.limits.idle };
        let deadline = later(self.since, limit);
        if !self.tracker.closes_when_idle() {
            return (deadline, self.in_head);
        }
        let closes_since = *self.closes_since.get_or_insert_with(Instant::now);
        let has_begun = self.in_head && self.preface != Some(0);
        let earlier = match (self.in_head, has_begun) {
            (true, true) => closes_since + STOP_GRACE,
            (true, false) => self.since + FIRST_BYTE,
            (false, _) => closes_since,
        };
        (deadline.min(earlier), has_begun)
    }

    fn set_sending(&mut self, sending: bool) {
        if self.is_sending != sending {
            self.is_sending = sending;
            self.tracker.set_sending(sending);
        }
    }

    /// Passes on the result of a write, and fails if the client has not read for too long.
    fn watch_write(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.writing.record_read(*written.as_ref().unwrap_or(&0));
            // The request has ended if this is its last part, so that the clock is read once for both.
            self.note_state_changes();
            self.since = Instant::now();
            return Poll::Ready(written);
        }
        self.set_sending(true);
        ready!(self.writing.poll_blocked(cx));
        self.tracker.count_slow_connection();
        Poll::Ready(Err(late("the client does not read the response")))
    }

    /// Passes on the result of a flush or a shutdown, and fails if it takes too long. These also happen between
    /// requests, so they do not change `since`.
    fn watch_flush(&mut self, flushed: Poll<io::Result<()>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.set_sending(flushed.is_pending());
        if flushed.is_ready() {
            self.flushing = None;
            return flushed;
        }
        let deadline = || Box::pin(sleep_until(later(Instant::now(), self.limits.write)));
        ready!(self.flushing.get_or_insert_with(deadline).as_mut().poll(cx));
        Poll::Ready(Err(late("the client does not read the response")))
    }
}

fn late(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, what)
}

impl AsyncRead for Stream {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        let this = &mut *self;
        let polled =
            if this.hang_up.read(buf) { Poll::Ready(Ok(())) } else { Pin::new(&mut this.tcp).poll_read(cx, buf) };
        this.waits_to_read = polled.is_pending();
        match polled {
            Poll::Ready(read) => {
                self.received(&buf.filled()[before..]);
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_timeout(cx),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write(cx, buf);
        self.watch_write(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.tcp).poll_write_vectored(cx, bufs);
        self.watch_write(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.tcp).poll_flush(cx);
        ready!(self.watch_flush(flushed, cx))?;
        if self.tracker.in_flight() == 0 {
            self.writing.record_drained();
        }
        // After writing a response hyper waits for the socket and does not read: the timeout has to wake it too.
        if self.poll_timeout(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        // hyper flushes on every poll, so a disconnect is checked here.
        let this = &mut *self;
        let is_unread = !this.waits_to_read && !this.is_http2() && this.is_busy();
        if is_unread && this.hang_up.poll(&mut this.tcp, &this.tracker, this.state_changes, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client has disconnected")));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.shutdown_read_until.is_none() {
            let closed = Pin::new(&mut this.tcp).poll_shutdown(cx);
            ready!(this.watch_flush(closed, cx))?;
            let now = Instant::now();
            this.shutdown_read_until = Some(now + SHUTDOWN_READ_LIMIT);
            this.reading.as_mut().reset(now + SHUTDOWN_READ_IDLE);
        }
        let mut dropped = [0; 16 << 10];
        loop {
            let mut dropped = ReadBuf::new(&mut dropped);
            match Pin::new(&mut this.tcp).poll_read(cx, &mut dropped) {
                Poll::Ready(Ok(())) if !dropped.filled().is_empty() => {
                    let now = Instant::now();
                    if this.shutdown_read_until.is_some_and(|until| now >= until) {
                        return Poll::Ready(Ok(()));
                    }
                    this.reading.as_mut().reset(now + SHUTDOWN_READ_IDLE);
                }
                // The client has closed its side or the whole connection.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.reading.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
