use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Method, Request, Response};
use http_body::Body;
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::body::CountedBody;
use super::counts::{Call, RequestMetrics, Transport};
use super::outcome;

/// Counts the requests of a service. See the [module](super).
#[derive(Clone, Debug)]
pub struct CountRequestsLayer {
    metrics: RequestMetrics,
    transport: Transport,
}

impl CountRequestsLayer {
    pub(super) fn new(metrics: RequestMetrics, transport: Transport) -> Self {
        Self { metrics, transport }
    }
}

impl<S> Layer<S> for CountRequestsLayer {
    type Service = CountRequests<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CountRequests { inner, metrics: self.metrics.clone(), transport: self.transport }
    }
}

/// Counts requests. See the [module](super).
#[derive(Clone, Debug)]
pub struct CountRequests<S> {
    inner: S,
    metrics: RequestMetrics,
    transport: Transport,
}

impl<S, R, B> Service<Request<R>> for CountRequests<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: Body,
{
    type Response = Response<CountedBody<B>>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        // Before the inner call, so that one that panics there is counted as well.
        let call = self.metrics.begin(self.transport);
        if request.uri().path().ends_with("/ExecuteStream") {
            // Whose single requests are counted where they are read.
            request.extensions_mut().insert(self.metrics.clone());
        }
        // The server sends no body in answer to it, and does not ask for one.
        let is_read = request.method() != Method::HEAD;
        ResponseFuture { inner: self.inner.call(request), call: Some(call), is_read }
    }
}

/// The response of a [`CountRequests`].
#[pin_project]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    #[pin]
    inner: F,
    /// `None` once the body has it.
    call: Option<Call>,
    is_read: bool,
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body,
{
    type Output = Result<Response<CountedBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let result = ready!(this.inner.poll(cx));
        let mut call = this.call.take().expect("polled after it had completed");
        match result {
            Ok(response) => {
                let told = outcome::of_head(response.status(), response.headers(), response.extensions());
                let is_read = *this.is_read;
                Poll::Ready(Ok(response.map(|body| CountedBody::new(body, call, told, is_read))))
            }
            Err(error) => {
                // The server closes the connection.
                call.end(crate::error::ErrorKind::Internal.code());
                Poll::Ready(Err(error))
            }
        }
    }
}
