//! Responses that are sent before the request body was read.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ::hyper::body::Incoming;
use ::hyper::service::Service;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS};
use http::{HeaderValue, Request, Response};
use http_body::Body;
use pin_project::{pin_project, pinned_drop};

use super::request_body::{BodyState, RequestBody, SharedBody};
use super::request_tracker::RequestTracker;
use super::reserve::MadeByServer;
use crate::servers::unread_body::{UnreadBody, read_late};

/// Reads the rest of request bodies that the service did not read: over HTTP/1.1 before the response, which says
/// `connection: close` if the rest is too long, and over HTTP/2 after it. See
/// [`unread_body`](crate::servers::unread_body).
///
/// It wraps everything that responds: a 404, a 401, or a rejection by the server itself.
#[derive(Clone, Debug)]
pub(super) struct ReadBodies<S> {
    service: S,
    tracker: RequestTracker,
    /// Reused for one request at a time (as in HTTP/1.1), so that a request does not allocate one.
    shared: Arc<SharedBody>,
    /// Whether scripts of other origins may read responses made by the server itself.
    cors: bool,
}

impl<S> ReadBodies<S> {
    pub(super) fn new(service: S, tracker: RequestTracker, cors: bool) -> Self {
        Self { service, tracker, shared: Arc::default(), cors }
    }

    /// Returns one that no other request uses.
    fn unused_shared_body(&self) -> Arc<SharedBody> {
        if Arc::strong_count(&self.shared) > 1 {
            return Arc::default();
        }
        self.shared.reset();
        Arc::clone(&self.shared)
    }
}

impl<S, B> Service<Request<Incoming>> for ReadBodies<S>
where
    S: Service<Request<RequestBody>, Response = Response<B>>,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ReadBodyFuture<S::Future, B>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        let has_body = !request.body().is_end_stream();
        let body = has_body.then(|| (self.unused_shared_body(), UnreadBody::of(request.version(), request.headers())));
        let shared = body.as_ref().map(|(shared, _)| Arc::clone(shared));
        let request = request.map(|incoming| RequestBody::new(incoming, shared, self.tracker.clone()));
        ReadBodyFuture { state: State::Called { future: self.service.call(request) }, body, cors: self.cors }
    }
}

#[pin_project(PinnedDrop)]
pub(super) struct ReadBodyFuture<F, B> {
    #[pin]
    state: State<F, B>,
    /// `None` if there was no body, or the service has responded.
    body: Option<(Arc<SharedBody>, UnreadBody)>,
    cors: bool,
}

#[pin_project(project = StateProj)]
enum State<F, B> {
    Called {
        #[pin]
        future: F,
    },
    /// The service has responded, and the rest of the body is read before the response is sent.
    Reading(Pin<Box<dyn Future<Output = Response<B>> + Send>>),
    /// The response has been returned.
    Done,
}

impl<F, B, E> Future for ReadBodyFuture<F, B>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Send + 'static,
{
    type Output = Result<Response<B>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let mut response = match this.state.as_mut().project() {
            StateProj::Called { future } => ready!(future.poll(cx))?,
            StateProj::Reading(reading) => return reading.as_mut().poll(cx).map(Ok),
            StateProj::Done => panic!("polled after it had completed"),
        };
        if *this.cors && response.extensions().get::<MadeByServer>().is_some() {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id,retry-after"));
        }
        let Some((shared, unread)) = this.body.take() else { return Poll::Ready(Ok(response)) };
        // Dropped first, because the service's future may still own the request body.
        this.state.set(State::Done);
        match shared.close() {
            BodyState::Unread { incoming, .. } if !unread.is_http1() => {
                tokio::spawn(read_late(incoming));
            }
            BodyState::Unread { incoming, was_polled } if unread.is_worth_reading(&incoming, was_polled, &response) => {
                let mut reading: Pin<Box<dyn Future<Output = _> + Send>> = Box::pin(unread.read(incoming, response));
                let polled = reading.as_mut().poll(cx);
                this.state.set(State::Reading(reading));
                return polled.map(Ok);
            }
            BodyState::Unread { .. } | BodyState::Broken => unread.say_close(&mut response),
            // The service continues to read a body that it still holds.
            BodyState::Read | BodyState::Held | BodyState::Closed => {}
        }
        Poll::Ready(Ok(response))
    }
}

/// Drops a body that the service dropped without a response.
#[pinned_drop]
impl<F, B> PinnedDrop for ReadBodyFuture<F, B> {
    fn drop(self: Pin<&mut Self>) {
        if let Some((shared, _)) = self.project().body.take() {
            drop(shared.close());
        }
    }
}
