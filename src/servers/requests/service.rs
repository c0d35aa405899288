use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use http::{Method, Request, Response};
use http_body::Body;
use pin_project::{pin_project, pinned_drop};
use tower_layer::Layer;
use tower_service::Service;

use super::access::Entry;
use super::body::{CountedBody, RequestBody};
use super::counts::{Call, RequestMetrics, Transport};
use super::outcome;
#[cfg(feature = "grpc")]
use super::stream::StreamRequests;
use crate::middleware::tracing::RequestScope;
use crate::request::request_id::RequestId;

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
    S: Service<Request<RequestBody<R>>, Response = Response<B>>,
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
        let mut call = self.metrics.begin(self.transport);
        let request_id = RequestId::ensure(request.headers_mut());
        let source = self.metrics.source(&request);
        let scope = RequestScope::new(request_id.as_str(), source.is_some());
        #[cfg(feature = "grpc")]
        if ["/ExecuteStream", "/ModelStreamInfer"].iter().any(|stream| request.uri().path().ends_with(stream)) {
            // Whose single requests are counted where they are read.
            request.extensions_mut().insert(StreamRequests::new(self.metrics.clone(), source.clone()));
        }
        if let (Some(source), Some(scope)) = (source, &scope) {
            call.log_end(Entry::new(source, request_id, scope.clone()));
        }
        if let Some(scope) = &scope {
            request.extensions_mut().insert(scope.clone());
        }
        // The server sends no body in answer to it, and does not ask for one.
        let is_read = request.method() != Method::HEAD;
        let request = request.map(|body| RequestBody::new(body, scope.clone()));
        let inner = {
            let _entered = scope.as_ref().map(|scope| scope.span().enter());
            Some(self.inner.call(request))
        };
        ResponseFuture { inner, scope, call: Some(call), is_read }
    }
}

/// The response of a [`CountRequests`].
#[pin_project(PinnedDrop)]
#[derive(Debug)]
pub struct ResponseFuture<F> {
    /// Polled and dropped inside the span. `None` once it has completed.
    #[pin]
    inner: Option<F>,
    scope: Option<RequestScope>,
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
        let mut this = self.project();
        let entered = this.scope.as_ref().map(|scope| scope.span().enter());
        let inner = this.inner.as_mut().as_pin_mut().expect("polled after it had completed");
        let result = ready!(inner.poll(cx));
        this.inner.set(None);
        drop(entered);
        let mut call = this.call.take().expect("polled after it had completed");
        match result {
            Ok(response) => {
                let told = outcome::of_head(response.status(), response.headers(), response.extensions());
                let transport = call.transport();
                if let Some(entry) = call.entry() {
                    entry.head(transport, response.status(), response.headers());
                }
                let (scope, is_read) = (this.scope.take(), *this.is_read);
                Poll::Ready(Ok(response.map(|body| CountedBody::new(body, call, scope, told, is_read))))
            }
            Err(error) => {
                // The server closes the connection.
                call.fail();
                Poll::Ready(Err(error))
            }
        }
    }
}

#[pinned_drop]
impl<F> PinnedDrop for ResponseFuture<F> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        if this.inner.is_some() {
            let _entered = this.scope.as_ref().map(|scope| scope.span().enter());
            this.inner.set(None);
        }
    }
}
