//! What is going on: for a server, how many connections and requests; for a connection, whether a request is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header};
use pin_project::pin_project;

use super::body::CountedBody;
use super::reserve::{Reserve, reject_while_stopping};
use crate::panics::catch_panic;

/// How many connections a [`Server`](super::Server) has and has had. Clones tell of the same server.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    open: AtomicUsize,
    requests: AtomicUsize,
    accepted: AtomicU64,
    failed: AtomicU64,
    over_max: AtomicU64,
    over_max_per_address: AtomicU64,
    slow_connections: AtomicU64,
    slow_streams: AtomicU64,
    idle: AtomicU64,
    old: AtomicU64,
    cancelled: Cancelled,
}

/// What was cut off because the server could not wait any longer.
#[derive(Debug, Default)]
struct Cancelled {
    requests: AtomicUsize,
    connections: AtomicUsize,
    incomplete: AtomicUsize,
}

/// The requests of one connection, or of all connections that were closed, that have no response yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Those that the service works on, or whose response is being sent.
    pub(super) running: usize,
    /// Connections with any of those.
    pub(super) connections: usize,
    /// Those for whose body the service still waits: nothing of its work is lost with them.
    pub(super) incomplete: usize,
}

impl Connections {
    /// Connections that are open.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Requests that have come in whole heads and are not answered to their last byte.
    pub fn requests_in_flight(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Connections that were accepted since the beginning.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// How often none could be accepted since the beginning, for want of file descriptors in most cases.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Connections since the beginning that came when there were as many as there may be, and were let in for health
    /// probes alone or, where an address had its share of those too, closed.
    pub fn over_max(&self) -> u64 {
        self.counts.over_max.load(Ordering::Relaxed)
    }

    /// Connections since the beginning that were closed at once because their address had as many as it may.
    pub fn over_max_per_address(&self) -> u64 {
        self.counts.over_max_per_address.load(Ordering::Relaxed)
    }

    /// Connections since the beginning that were closed because the client did not read.
    pub fn slow_connections(&self) -> u64 {
        self.counts.slow_connections.load(Ordering::Relaxed)
    }

    /// HTTP/2 streams since the beginning that were reset because the client did not read them.
    pub fn slow_streams(&self) -> u64 {
        self.counts.slow_streams.load(Ordering::Relaxed)
    }

    /// HTTP/2 connections since the beginning that were closed because nothing was asked on them.
    pub fn idle(&self) -> u64 {
        self.counts.idle.load(Ordering::Relaxed)
    }

    /// Connections since the beginning that were told to end because they had reached their age.
    pub fn old(&self) -> u64 {
        self.counts.old.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// One more, until it is dropped.
    pub(super) fn begin(&self) -> Open {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.counts))
    }
}

impl Counts {
    pub(super) fn count_failed(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_over_max(&self) {
        self.over_max.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_over_max_per_address(&self) {
        self.over_max_per_address.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_slow_stream(&self) {
        self.slow_streams.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_idle(&self) {
        self.idle.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn count_old(&self) {
        self.old.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts what is lost with a connection that is closed to stop the server.
    pub(super) fn count_cancelled(&self, unfinished: Unfinished) {
        self.cancelled.requests.fetch_add(unfinished.running, Ordering::Relaxed);
        self.cancelled.connections.fetch_add(unfinished.connections, Ordering::Relaxed);
        self.cancelled.incomplete.fetch_add(unfinished.incomplete, Ordering::Relaxed);
    }

    /// The sum of what [`count_cancelled`](Self::count_cancelled) was given.
    pub(super) fn cancelled(&self) -> Unfinished {
        Unfinished {
            running: self.cancelled.requests.load(Ordering::Relaxed),
            connections: self.cancelled.connections.load(Ordering::Relaxed),
            incomplete: self.cancelled.incomplete.load(Ordering::Relaxed),
        }
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<Counts>);

impl Open {
    /// Its own, and none that another has had: make it once.
    pub(super) fn activity(&self) -> Activity {
        Activity { counts: Arc::clone(&self.0), connection: Arc::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the parts of one connection know of each other: its socket, its requests, and what supervises it.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    counts: Arc<Counts>,
    connection: Arc<OneConnection>,
}

#[derive(Debug, Default)]
struct OneConnection {
    /// How often requests have begun and ended: where it is odd, one of HTTP/1.1 is being answered.
    turns: AtomicUsize,
    in_flight: AtomicUsize,
    /// Of those in flight, the requests whose response has begun.
    responding: AtomicUsize,
    /// Of those in flight, the requests whose service waits for more of the body.
    awaiting_body: AtomicUsize,
    /// The bytes of bodies that were waited for.
    body_bytes: AtomicUsize,
    /// Whether the body of the request of HTTP/1.1 has been read to its end.
    body_ended: AtomicBool,
    /// Whether a part of a response waits for the client to read.
    is_sending: AtomicBool,
    is_http2: AtomicBool,
    /// Whether the next response of HTTP/1.1 is to be the last.
    closes: AtomicBool,
    /// Whether a connection of HTTP/1.1 is to end as soon as no request is on its way.
    closes_when_idle: AtomicBool,
    rejects: AtomicBool,
}

impl Activity {
    pub(super) fn turns(&self) -> usize {
        self.connection.turns.load(Ordering::Relaxed)
    }

    /// Requests of this connection that are not answered to their last byte.
    pub(super) fn in_flight(&self) -> usize {
        self.connection.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.connection.is_http2.load(Ordering::Relaxed)
    }

    pub(super) fn set_http2(&self) {
        self.connection.is_http2.store(true, Ordering::Relaxed);
    }

    /// From now on responses of HTTP/1.1 say `connection: close`.
    pub(super) fn close_after_response(&self) {
        self.connection.closes.store(true, Ordering::Relaxed);
    }

    /// From now on a connection of HTTP/1.1 ends where nothing more of a request comes; so do those that respond.
    pub(super) fn close_when_idle(&self) {
        self.close_after_response();
        self.connection.closes_when_idle.store(true, Ordering::Relaxed);
    }

    pub(super) fn closes_when_idle(&self) -> bool {
        self.connection.closes_when_idle.load(Ordering::Relaxed)
    }

    /// From now on new requests are rejected: the client was told to send none.
    pub(super) fn reject_requests(&self) {
        self.connection.rejects.store(true, Ordering::Relaxed);
    }

    /// Says whether a part of a response waits for the client to read.
    pub(super) fn set_sending(&self, sending: bool) {
        self.connection.is_sending.store(sending, Ordering::Relaxed);
    }

    pub(super) fn set_body_ended(&self, ended: bool) {
        self.connection.body_ended.store(ended, Ordering::Relaxed);
    }

    /// Whether a request of HTTP/1.1 has come in full, and its response has not begun.
    pub(super) fn is_only_working(&self) -> bool {
        let connection = &self.connection;
        connection.body_ended.load(Ordering::Relaxed) && connection.responding.load(Ordering::Relaxed) == 0
    }

    pub(super) fn begin_awaiting_body(&self) {
        self.connection.awaiting_body.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn end_awaiting_body(&self) {
        self.connection.awaiting_body.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn count_body_bytes(&self, bytes: usize) {
        self.connection.body_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn body_bytes(&self) -> usize {
        self.connection.body_bytes.load(Ordering::Relaxed)
    }

    /// The requests of this connection that are not answered, by whether their client or the service is waited for.
    ///
    /// A request whose response has begun counts as running even where its body goes on: what runs of a stream of
    /// requests, the server does not know.
    pub(super) fn unfinished(&self) -> Unfinished {
        let in_flight = self.in_flight();
        let unanswered = in_flight.saturating_sub(self.connection.responding.load(Ordering::Relaxed));
        let incomplete = self.connection.awaiting_body.load(Ordering::Relaxed).min(unanswered);
        let is_sending = self.connection.is_sending.load(Ordering::Relaxed);
        let running = (in_flight - incomplete).max(usize::from(is_sending));
        Unfinished { running, connections: usize::from(running > 0), incomplete }
    }

    pub(super) fn count_slow_connection(&self) {
        self.counts.slow_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) -> InFlight {
        self.connection.turns.fetch_add(1, Ordering::Relaxed);
        self.connection.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { activity: self.clone(), is_responding: false }
    }
}

/// A request that is being answered.
#[derive(Debug)]
pub(super) struct InFlight {
    activity: Activity,
    is_responding: bool,
}

impl InFlight {
    /// Its response has begun.
    fn respond(&mut self) {
        self.is_responding = true;
        self.activity.connection.responding.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let Activity { counts, connection } = &self.activity;
        connection.turns.fetch_add(1, Ordering::Relaxed);
        if self.is_responding {
            connection.responding.fetch_sub(1, Ordering::Relaxed);
        }
        connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        counts.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the requests of one connection around its service, and rejects those that it was not let in for.
#[derive(Clone, Debug)]
pub(super) struct Counted<S> {
    service: S,
    activity: Activity,
    /// Of a connection past the most that there may be.
    reserve: Option<Reserve>,
}

impl<S> Counted<S> {
    pub(super) fn new(service: S, activity: Activity, reserve: Option<Reserve>) -> Self {
        Self { service, activity, reserve }
    }
}

impl<S, R, B> ::hyper::service::Service<Request<R>> for Counted<S>
where
    S: ::hyper::service::Service<Request<R>, Response = Response<B>>,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = CountedFuture<S::Future>;

    fn call(&self, request: Request<R>) -> Self::Future {
        let version = request.version();
        if self.activity.connection.rejects.load(Ordering::Relaxed) {
            let rejection = Some(Box::new(reject_while_stopping(&request)));
            return CountedFuture { state: State::Rejected { rejection }, in_flight: None, version };
        }
        let in_flight = Some(self.activity.begin());
        let state = match self.reserve.and_then(|reserve| reserve.reject(&request)) {
            Some(rejection) => State::Rejected { rejection: Some(Box::new(rejection)) },
            None => State::Called { future: self.service.call(request) },
        };
        CountedFuture { state, in_flight, version }
    }
}

#[pin_project]
pub(super) struct CountedFuture<F> {
    #[pin]
    state: State<F>,
    in_flight: Option<InFlight>,
    version: Version,
}

#[pin_project(project = StateProj)]
enum State<F> {
    Called {
        #[pin]
        future: F,
    },
    Rejected {
        rejection: Option<Box<Response<Bytes>>>,
    },
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let is_http2 = *this.version == Version::HTTP_2;
        let in_flight = this.in_flight;
        let mut closes = false;
        let mut respond = || {
            let mut in_flight = in_flight.take()?;
            in_flight.respond();
            closes = !is_http2 && in_flight.activity.connection.closes.load(Ordering::Relaxed);
            Some(in_flight)
        };
        let mut response = match this.state.project() {
            StateProj::Called { future } => {
                // The panic goes on, since it is what closes the connection, and what it carries does not: over HTTP/2 it
                // would be dropped on a thread of the runtime.
                let polled = catch_panic(|| future.poll(cx)).unwrap_or_else(|panicked| panicked.resume());
                ready!(polled)?.map(|body| CountedBody::new(body, is_http2, respond()))
            }
            StateProj::Rejected { rejection } => {
                let rejection = *rejection.take().expect("polled after it had completed");
                rejection.map(|body| CountedBody::rejection(body, respond()))
            }
        };
        if closes {
            close_after(&mut response, *this.version);
        }
        Poll::Ready(Ok(response))
    }
}

/// Tells the client that there are no further responses on the connection.
fn close_after<B>(response: &mut Response<B>, version: Version) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // Else hyper adds `keep-alive` for a client of HTTP/1.0 that has asked for it.
        *response.version_mut() = Version::HTTP_10;
    }
}
