//! Responses to requests whose body the service has not read.

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

use super::request_body::{BodySlot, BodyState, RequestBody};
use super::request_tracker::Activity;
use super::reserve::OfServer;
use crate::servers::unread_body::{UnreadBody, read_late};

/// Reads what the service leaves of the bodies of one connection's requests: over HTTP/1.1 before the response, which
/// says `connection: close` where the body is too long for that, and over HTTP/2 after it. See
/// [`unread_body`](crate::servers::unread_body).
///
/// It wraps whatever else answers: a 404, a 401 or a rejection of the server's own.
#[derive(Clone, Debug)]
pub(super) struct ReadBodies<S> {
    service: S,
    activity: Activity,
    /// For one request at a time, as all are over HTTP/1.1: so that a request allocates none.
    slot: Arc<BodySlot>,
    /// Whether scripts of other origins may read the responses that the server makes itself.
    cors: bool,
}

impl<S> ReadBodies<S> {
    pub(super) fn new(service: S, activity: Activity, cors: bool) -> Self {
        Self { service, activity, slot: Arc::default(), cors }
    }

    /// One that no other request has.
    fn free_slot(&self) -> Arc<BodySlot> {
        if Arc::strong_count(&self.slot) > 1 {
            return Arc::default();
        }
        self.slot.reset();
        Arc::clone(&self.slot)
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
        let body = has_body.then(|| (self.free_slot(), UnreadBody::of(request.version(), request.headers())));
        let slot = body.as_ref().map(|(slot, _)| Arc::clone(slot));
        let request = request.map(|incoming| RequestBody::new(incoming, slot, self.activity.clone()));
        ReadBodyFuture { state: State::Called { future: self.service.call(request) }, body, cors: self.cors }
    }
}

#[pin_project(PinnedDrop)]
pub(super) struct ReadBodyFuture<F, B> {
    #[pin]
    state: State<F, B>,
    /// `None` where there was no body, or the service has answered.
    body: Option<(Arc<BodySlot>, UnreadBody)>,
    cors: bool,
}

#[pin_project(project = StateProj)]
enum State<F, B> {
    Called {
        #[pin]
        future: F,
    },
    /// The service has answered, and the rest of the body is read before the response is sent.
    Reading(Pin<Box<dyn Future<Output = Response<B>> + Send>>),
    Answered,
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
            StateProj::Answered => panic!("polled after it had completed"),
        };
        if *this.cors && response.extensions().get::<OfServer>().is_some() {
            let headers = response.headers_mut();
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
            headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id,retry-after"));
        }
        let Some((slot, unread)) = this.body.take() else { return Poll::Ready(Ok(response)) };
        // The future may still have the request.
        this.state.set(State::Answered);
        match slot.close() {
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
            // Where it is held still, the service goes on reading while it responds.
            BodyState::Read | BodyState::Held | BodyState::Closed => {}
        }
        Poll::Ready(Ok(response))
    }
}

/// A body that the service dropped without an answer is not to stay here.
#[pinned_drop]
impl<F, B> PinnedDrop for ReadBodyFuture<F, B> {
    fn drop(self: Pin<&mut Self>) {
        if let Some((slot, _)) = self.project().body.take() {
            drop(slot.close());
        }
    }
}
