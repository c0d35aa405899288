//! Tracks connections and requests in flight, of a server and of each connection.

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

/// Connection counters of a [`Server`](super::Server). Clones share the counters.
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

/// What was cancelled when the server stopped.
#[derive(Debug, Default)]
struct Cancelled {
    requests: AtomicUsize,
    connections: AtomicUsize,
    incomplete: AtomicUsize,
}

/// Requests without a complete response, of one connection or of all connections that were closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Unfinished {
    /// Requests that the service is working on, or whose response is being sent.
    pub(super) running: usize,
    /// Connections with a running request.
    pub(super) connections: usize,
    /// Requests whose body has not arrived in full: the service has not started work on them.
    pub(super) incomplete: usize,
}

impl Connections {
    /// Number of open connections.
    pub fn open(&self) -> usize {
        self.counts.open.load(Ordering::Relaxed)
    }

    /// Number of requests whose head has arrived and whose response is not complete.
    pub fn requests_in_flight(&self) -> usize {
        self.counts.requests.load(Ordering::Relaxed)
    }

    /// Total number of accepted connections.
    pub fn accepted(&self) -> u64 {
        self.counts.accepted.load(Ordering::Relaxed)
    }

    /// Total number of failed accepts, in most cases because no file descriptors were left.
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Total number of connections above the maximum. They were accepted for health probes only, or closed if their
    /// address had its maximum of those.
    pub fn over_max(&self) -> u64 {
        self.counts.over_max.load(Ordering::Relaxed)
    }

    /// Total number of connections that were closed because their address was at its limit.
    pub fn over_max_per_address(&self) -> u64 {
        self.counts.over_max_per_address.load(Ordering::Relaxed)
    }

    /// Total number of connections that were closed because the client did not read.
    pub fn slow_connections(&self) -> u64 {
        self.counts.slow_connections.load(Ordering::Relaxed)
    }

    /// Total number of HTTP/2 streams that were reset because the client did not read them.
    pub fn slow_streams(&self) -> u64 {
        self.counts.slow_streams.load(Ordering::Relaxed)
    }

    /// Total number of HTTP/2 connections that were closed because they were idle.
    pub fn idle(&self) -> u64 {
        self.counts.idle.load(Ordering::Relaxed)
    }

    /// Total number of connections that reached their maximum age.
    pub fn old(&self) -> u64 {
        self.counts.old.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> &Arc<Counts> {
        &self.counts
    }

    /// Counts a connection as open until the returned value is dropped.
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

    /// Counts the unfinished requests of a connection that is closed to stop the server.
    pub(super) fn count_cancelled(&self, unfinished: Unfinished) {
        self.cancelled.requests.fetch_add(unfinished.running, Ordering::Relaxed);
        self.cancelled.connections.fetch_add(unfinished.connections, Ordering::Relaxed);
        self.cancelled.incomplete.fetch_add(unfinished.incomplete, Ordering::Relaxed);
    }

    /// The sum of the calls of [`count_cancelled`](Self::count_cancelled).
    pub(super) fn cancelled(&self) -> Unfinished {
        Unfinished {
            running: self.cancelled.requests.load(Ordering::Relaxed),
            connections: self.cancelled.connections.load(Ordering::Relaxed),
            incomplete: self.cancelled.incomplete.load(Ordering::Relaxed),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(super) struct Open(Arc<Counts>);

impl Open {
    /// Creates the tracker of this connection. Call it once.
    pub(super) fn tracker(&self) -> RequestTracker {
        RequestTracker { counts: Arc::clone(&self.0), connection: Arc::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// State that is shared by the parts of one connection: its socket, its requests and its supervisor.
#[derive(Clone, Debug)]
pub(super) struct RequestTracker {
    counts: Arc<Counts>,
    connection: Arc<ConnectionState>,
}

#[derive(Debug, Default)]
struct ConnectionState {
    /// How often requests have begun or ended. Odd while an HTTP/1.1 request is in flight.
    state_changes: AtomicUsize,
    in_flight: AtomicUsize,
    /// Requests in flight whose response has begun.
    responding: AtomicUsize,
    /// Requests in flight whose service waits for more of the body.
    awaiting_body: AtomicUsize,
    /// Bytes received of bodies that a service waited for.
    body_bytes: AtomicUsize,
    /// Whether the body of the HTTP/1.1 request has been read to its end.
    body_ended: AtomicBool,
    /// Whether a part of a response waits for the client to read.
    is_sending: AtomicBool,
    is_http2: AtomicBool,
    /// Whether the next HTTP/1.1 response says `connection: close`.
    closes: AtomicBool,
    /// Whether an HTTP/1.1 connection is closed once it is idle.
    closes_when_idle: AtomicBool,
    /// Whether new requests are rejected.
    rejects: AtomicBool,
}

impl RequestTracker {
    /// Returns how often requests of this connection have begun or ended.
    pub(super) fn state_changes(&self) -> usize {
        self.connection.state_changes.load(Ordering::Relaxed)
    }

    /// Requests of this connection whose response is not complete.
    pub(super) fn in_flight(&self) -> usize {
        self.connection.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn is_http2(&self) -> bool {
        self.connection.is_http2.load(Ordering::Relaxed)
    }

    pub(super) fn set_http2(&self) {
        self.connection.is_http2.store(true, Ordering::Relaxed);
    }

    /// Makes all further HTTP/1.1 responses say `connection: close`.
    pub(super) fn close_after_response(&self) {
        self.connection.closes.store(true, Ordering::Relaxed);
    }

    /// Closes an HTTP/1.1 connection once it is idle, or after its response.
    pub(super) fn close_when_idle(&self) {
        self.close_after_response();
        self.connection.closes_when_idle.store(true, Ordering::Relaxed);
    }

    pub(super) fn closes_when_idle(&self) -> bool {
        self.connection.closes_when_idle.load(Ordering::Relaxed)
    }

    /// Rejects new requests: the client has received a GOAWAY.
    pub(super) fn reject_requests(&self) {
        self.connection.rejects.store(true, Ordering::Relaxed);
    }

    /// Sets whether a part of a response is waiting for the client to read.
    pub(super) fn set_sending(&self, sending: bool) {
        self.connection.is_sending.store(sending, Ordering::Relaxed);
    }

    pub(super) fn set_body_ended(&self, ended: bool) {
        self.connection.body_ended.store(ended, Ordering::Relaxed);
    }

    /// Whether an HTTP/1.1 request has arrived in full and its response has not begun.
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

    /// Counts the unfinished requests of this connection: those that wait for the rest of their body, and the others.
    ///
    /// A request whose response has begun counts as running even if its body continues, because the server cannot tell
    /// which requests of a gRPC stream are running.
    pub(super) fn unfinished(&self) -> Unfinished {
        let in_flight = self.in_flight();
        let without_response = in_flight.saturating_sub(self.connection.responding.load(Ordering::Relaxed));
        let incomplete = self.connection.awaiting_body.load(Ordering::Relaxed).min(without_response);
        let is_sending = self.connection.is_sending.load(Ordering::Relaxed);
        let running = (in_flight - incomplete).max(usize::from(is_sending));
        Unfinished { running, connections: usize::from(running > 0), incomplete }
    }

    pub(super) fn count_slow_connection(&self) {
        self.counts.slow_connections.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn begin(&self) -> InFlight {
        self.connection.state_changes.fetch_add(1, Ordering::Relaxed);
        self.connection.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        InFlight { tracker: self.clone(), is_responding: false }
    }
}

/// A request in flight.
#[derive(Debug)]
pub(super) struct InFlight {
    tracker: RequestTracker,
    is_responding: bool,
}

impl InFlight {
    /// Records that the response has begun.
    fn respond(&mut self) {
        self.is_responding = true;
        self.tracker.connection.responding.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let RequestTracker { counts, connection } = &self.tracker;
        connection.state_changes.fetch_add(1, Ordering::Relaxed);
        if self.is_responding {
            connection.responding.fetch_sub(1, Ordering::Relaxed);
        }
        connection.in_flight.fetch_sub(1, Ordering::Relaxed);
        counts.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Tracks the requests of one connection, and rejects requests other than probes on a reserved connection.
#[derive(Clone, Debug)]
pub(super) struct Counted<S> {
    service: S,
    tracker: RequestTracker,
    /// Set for a reserved connection.
    reserve: Option<Reserve>,
}

impl<S> Counted<S> {
    pub(super) fn new(service: S, tracker: RequestTracker, reserve: Option<Reserve>) -> Self {
        Self { service, tracker, reserve }
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
        if self.tracker.connection.rejects.load(Ordering::Relaxed) {
            let rejection = Some(Box::new(reject_while_stopping(&request)));
            return CountedFuture { state: State::Rejected { rejection }, in_flight: None, version };
        }
        let in_flight = Some(self.tracker.begin());
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
            closes = !is_http2 && in_flight.tracker.connection.closes.load(Ordering::Relaxed);
            Some(in_flight)
        };
        let mut response = match this.state.project() {
            StateProj::Called { future } => {
                // The panic is resumed, because it closes the connection. Its payload is not: over HTTP/2 it would be
                // dropped on a thread of the runtime.
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

/// Tells the client that this is the last response on the connection.
fn close_after<B>(response: &mut Response<B>, version: Version) {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    if version == Version::HTTP_10 {
        // Otherwise hyper adds `keep-alive` for an HTTP/1.0 client that has asked for it.
        *response.version_mut() = Version::HTTP_10;
    }
}
