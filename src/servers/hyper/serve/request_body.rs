//! The body of a request, as a server hands it to its service.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};

use ::hyper::body::Incoming;
use ::hyper::service::Service;
use bytes::Bytes;
use http::Request;
use http_body::{Body, Frame, SizeHint};

use super::activity::Activity;
use super::body_wait::BodyWait;

/// The body of a request of a [`Server`](super::Server): hyper's [`Incoming`], which the server watches to know whether it
/// waits for the client or for the service.
pub struct RequestBody {
    incoming: Incoming,
    wait: BodyWait,
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = ::hyper::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, ::hyper::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.incoming).poll_frame(cx);
        this.wait.polled(&polled, this.incoming.is_end_stream());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestBody").field("incoming", &self.incoming).finish_non_exhaustive()
    }
}

/// Wraps the bodies of one connection's requests.
#[derive(Clone, Debug)]
pub(super) struct WatchBodies<S> {
    service: S,
    activity: Activity,
}

impl<S> WatchBodies<S> {
    pub(super) fn new(service: S, activity: Activity) -> Self {
        Self { service, activity }
    }
}

impl<S> Service<Request<Incoming>> for WatchBodies<S>
where
    S: Service<Request<RequestBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn call(&self, request: Request<Incoming>) -> S::Future {
        let wait = BodyWait::new(self.activity.clone(), request.body().is_end_stream());
        self.service.call(request.map(|incoming| RequestBody { incoming, wait }))
    }
}
