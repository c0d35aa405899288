//! A stream with clocks: nobody holds a connection by being slow.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::hang_up::HangUp;
use super::read_clock::ReadClock;
use super::request_tracker::Activity;
use super::transport::Transport;
use super::{STOP_GRACE, ServerConfig, later};

/// What an HTTP/2 connection begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// How long, after the last byte has been written, to read on from a client that is still sending...
const LINGER: Duration = Duration::from_secs(3);
/// ... and how long from one that is not.
const LINGER_QUIET: Duration = Duration::from_secs(1);
/// How long a connection is kept at least, by a server that stops, for its first byte: it is on its way.
const FIRST_BYTE: Duration = Duration::from_millis(250);

/// The socket of one connection.
///
/// hyper has one clock for the head of a request, which also runs while nothing is asked; and none before it knows the
/// version of HTTP, nor for a client that does not read. So the clocks are here:
///
/// * While a request is answered, none but that of writing: how long it may take is the service's own business.
/// * Else the client is to send something. `since` is when it last did its part: when the connection began, the last
///   answer was written, or the head of the next request began to come in.
/// * When all is written and the client goes on sending (the body of a request that was refused), closing the socket
///   would reset the connection, and with that take the answer from it. So what it sends is read for a while.
///
/// It also finds clients that hang up while hyper does not read: see [`HangUp`]. To close the sending half alone is to hang
/// up as well, as it is to hyper.
pub(super) struct Stream {
    tcp: Transport,
    activity: Activity,
    /// As [`Activity::turns`] when last looked at.
    turns: usize,
    since: Instant,
    /// Whether a head has begun to come in. A connection begins with one, or it would not have been opened.
    in_head: bool,
    /// How much of the preface has come, and nothing else: all of it, and this is HTTP/2; `None` where it is not.
    preface: Option<usize>,
    reading: Pin<Box<Sleep>>,
    writing: ReadClock,
    /// Where the client does not read, and what is left to be sent is in the buffer of TLS: then it is flushing that waits.
    flushing: Option<Pin<Box<Sleep>>>,
    /// When to read no more, once all is written.
    lingers_until: Option<Instant>,
    /// Whether hyper waits for something to read, and so for the end of it.
    waits_to_read: bool,
    hang_up: HangUp,
    /// Whether a part of a response waits for the client to read.
    is_sending: bool,
    /// Since when a connection of HTTP/1.1 is to end as soon as nothing more of a request comes.
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
    pub(super) fn new(tcp: Transport, activity: Activity, config: &ServerConfig) -> Self {
        let limits = Limits { head: config.head_timeout, idle: config.idle_timeout, write: config.write_timeout };
        let since = Instant::now();
        Self {
            tcp,
            turns: activity.turns(),
            activity,
            since,
            in_head: true,
            preface: Some(0),
            reading: Box::pin(sleep_until(later(since, limits.head))),
            writing: ReadClock::new(config.write_timeout),
            flushing: None,
            lingers_until: None,
            waits_to_read: false,
            hang_up: HangUp::default(),
            is_sending: false,
            closes_since: None,
            limits,
        }
    }

    /// Whether a request is being answered. Where one was since the last look, the client's turn begins now.
    fn is_busy(&mut self) -> bool {
        let turns = self.activity.turns();
        if turns != self.turns {
            self.turns = turns;
            self.since = Instant::now();
            self.in_head = false;
        }
        turns % 2 == 1
    }

    fn is_http2(&self) -> bool {
        self.preface == Some(PREFACE.len())
    }

    fn heard(&mut self, bytes: &[u8]) {
        if let Some(seen) = self.preface.filter(|&seen| seen < PREFACE.len()) {
            let compared = bytes.len().min(PREFACE.len() - seen);
            self.preface = (bytes[..compared] == PREFACE[seen..seen + compared]).then_some(seen + compared);
            if self.is_http2() {
                self.activity.set_http2();
            }
        }
        if !self.is_busy() && !self.in_head {
            self.in_head = true;
            self.since = Instant::now();
        }
    }

    /// Ready where the client has not done its part in time: with an error within a head, with the end of what there is
    /// to read where nothing was asked.
    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.is_busy() || self.is_http2() || self.lingers_until.is_some() {
            return Poll::Pending;
        }
        loop {
            let (deadline, is_late) = self.deadline();
            // It may be set to an earlier moment, and is set anew once that has come: not with each request.
            if deadline < self.reading.deadline() || self.reading.is_elapsed() {
                self.reading.as_mut().reset(deadline);
            }
            ready!(self.reading.as_mut().poll(cx));
            if Instant::now() < deadline {
                continue;
            }
            if is_late {
                return Poll::Ready(Err(late("the head of a request did not come in time")));
            }
            // A request may have come in this moment.
            if !self.tcp.has_unread() {
                return Poll::Ready(Ok(()));
            }
            (self.in_head, self.since) = (true, Instant::now());
        }
    }

    /// Until when the client has to do its part, and whether it is an error if it does not.
    fn deadline(&mut self) -> (Instant, bool) {
        let limit = if self.in_head { self.limits.head } else { self.limits.idle };
        let deadline = later(self.since, limit);
        if !self.activity.closes_when_idle() {
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
            self.activity.set_sending(sending);
        }
    }

    /// What a write has come to, unless the client has not read for too long.
    fn watch_write(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(written) = written {
            self.writing.took(*written.as_ref().unwrap_or(&0));
            self.since = Instant::now();
            return Poll::Ready(written);
        }
        self.set_sending(true);
        ready!(self.writing.poll_blocked(cx));
        self.activity.count_slow_connection();
        Poll::Ready(Err(late("the client does not read what it is sent")))
    }

    /// The same of flushing and of closing. These happen between requests as well, so they say nothing of whose turn it is.
    fn watch_flush(&mut self, flushed: Poll<io::Result<()>>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.set_sending(flushed.is_pending());
        if flushed.is_ready() {
            self.flushing = None;
            return flushed;
        }
        let deadline = || Box::pin(sleep_until(later(Instant::now(), self.limits.write)));
        ready!(self.flushing.get_or_insert_with(deadline).as_mut().poll(cx));
        Poll::Ready(Err(late("the client does not read what it is sent")))
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
                self.heard(&buf.filled()[before..]);
                Poll::Ready(read)
            }
            Poll::Pending => self.poll_patience(cx),
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
        if self.activity.in_flight() == 0 {
            self.writing.took_all();
        }
        // Once an answer is written hyper waits for the socket and does not read: the clock is to wake it as well.
        if self.poll_patience(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
        // hyper flushes each time that it is polled.
        let this = &mut *self;
        let is_unread = !this.waits_to_read && !this.is_http2() && this.is_busy();
        if is_unread && this.hang_up.poll(&mut this.tcp, &this.activity, this.turns, cx).is_ready() {
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::ConnectionReset, "the client has hung up")));
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingers_until.is_none() {
            let closed = Pin::new(&mut this.tcp).poll_shutdown(cx);
            ready!(this.watch_flush(closed, cx))?;
            let now = Instant::now();
            this.lingers_until = Some(now + LINGER);
            this.reading.as_mut().reset(now + LINGER_QUIET);
        }
        let mut scrap = [0; 16 << 10];
        loop {
            let mut scrap = ReadBuf::new(&mut scrap);
            match Pin::new(&mut this.tcp).poll_read(cx, &mut scrap) {
                Poll::Ready(Ok(())) if !scrap.filled().is_empty() => {
                    let now = Instant::now();
                    if this.lingers_until.is_some_and(|until| now >= until) {
                        return Poll::Ready(Ok(()));
                    }
                    this.reading.as_mut().reset(now + LINGER_QUIET);
                }
                // It has closed its side, or the connection: nobody is left to wait for.
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return this.reading.as_mut().poll(cx).map(Ok),
            }
        }
    }
}
