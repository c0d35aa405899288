//! Adds the request id to every response, including those of layers, whose errors get the form of the path.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use pin_project::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use crate::request::request_id::RequestId;
use crate::servers::http::{ErrorForm, RestState};

/// Wraps layers that respond instead of the routes.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestIdLayer {
    /// Whether the Open Inference Protocol is served.
    inference_enabled: bool,
}

impl RequestIdLayer {
    pub(super) fn new(state: &RestState) -> Self {
        Self { inference_enabled: state.inference_enabled }
    }
}

impl<S> Layer<S> for RequestIdLayer {
    type Service = RequestIds<S>;

    fn layer(&self, inner: S) -> RequestIds<S> {
        RequestIds { inner, inference_enabled: self.inference_enabled }
    }
}

#[derive(Clone, Debug)]
pub(super) struct RequestIds<S> {
    inner: S,
    inference_enabled: bool,
}

impl<S, R, B> Service<Request<R>> for RequestIds<S>
where
    S: Service<Request<R>, Response = Response<B>>,
    B: From<Bytes>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<R>) -> Self::Future {
        let request_id = RequestId::ensure(request.headers_mut());
        let error_form = ErrorForm::of_path(request.uri().path(), self.inference_enabled);
        ResponseFuture { inner: self.inner.call(request), request_id, error_form }
    }
}

#[pin_project]
pub(super) struct ResponseFuture<F> {
    #[pin]
    inner: F,
    request_id: RequestId,
    error_form: ErrorForm,
}

impl<F, B, E> Future for ResponseFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: From<Bytes>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        this.error_form.complete(&mut response, this.request_id);
        Poll::Ready(Ok(response))
    }
}
