//! What is going on: for a server, how many connections and requests; for a connection, whether a request is.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::{Context, Poll};

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;

use crate::panics::catch_panic;

/// How many connections a [`Server`](super::Server) has and has had. Clones tell of the same server.
#[derive(Clone, Debug, Default)]
pub struct Connections {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    open: AtomicUsize,
    requests: AtomicUsize,
    accepted: AtomicU64,
    failed: AtomicU64,
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

    pub(super) fn fail(&self) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }

    /// One more, until it is dropped.
    pub(super) fn begin(&self) -> Open {
        self.counts.accepted.fetch_add(1, Ordering::Relaxed);
        self.counts.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(&self.counts))
    }
}

/// A connection that is open.
#[derive(Debug)]
pub(super) struct Open(Arc<Counts>);

impl Open {
    /// Its own, and none that another has had: make it once.
    pub(super) fn activity(&self) -> Activity {
        Activity { counts: Arc::clone(&self.0), turns: Arc::default() }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// How often requests have begun and ended on one connection: where it is odd, one of HTTP/1.1 is being answered.
#[derive(Clone, Debug)]
pub(super) struct Activity {
    counts: Arc<Counts>,
    turns: Arc<AtomicUsize>,
}

impl Activity {
    pub(super) fn turns(&self) -> usize {
        self.turns.load(Ordering::Relaxed)
    }

    fn begin(&self) -> InFlight {
        self.turns.fetch_add(1, Ordering::Relaxed);
        self.counts.requests.fetch_add(1, Ordering::Relaxed);
        InFlight(self.clone())
    }
}

/// A request that is being answered.
#[derive(Debug)]
struct InFlight(Activity);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.turns.fetch_add(1, Ordering::Relaxed);
        self.0.counts.requests.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the requests of one connection around its service.
#[derive(Clone, Debug)]
pub(super) struct Counted<S> {
    service: S,
    activity: Activity,
}

impl<S> Counted<S> {
    pub(super) fn new(service: S, activity: Activity) -> Self {
        Self { service, activity }
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
        let request_in_flight = Some(self.activity.begin());
        CountedFuture { future: self.service.call(request), request_in_flight }
    }
}

#[pin_project]
pub(super) struct CountedFuture<F> {
    #[pin]
    future: F,
    request_in_flight: Option<InFlight>,
}

impl<F, B, E> Future for CountedFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let in_flight = this.request_in_flight;
        // The panic goes on, since it is what closes the connection, and what it carries does not: over HTTP/2 it would be
        // dropped on a thread of the runtime.
        let polled = catch_panic(|| this.future.poll(cx)).unwrap_or_else(|panicked| panicked.resume());
        polled.map_ok(|response| response.map(|body| CountedBody { body, _in_flight: in_flight.take() }))
    }
}

/// The body of an answer. The request is in flight until it is gone.
#[pin_project]
pub(super) struct CountedBody<B> {
    #[pin]
    body: B,
    _in_flight: Option<InFlight>,
}

impl<B: Body> Body for CountedBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
