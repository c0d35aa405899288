//! Ends open streams when the server stops.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::Status;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tower_service::Service;

use super::status::Rejection;
use crate::error::ErrorKind;

/// Ends the open streams of gRPC services, so that a stopping server does not wait for their clients to end them.
///
/// A request stream ends when its client ends it, which may be never. After [`end_streams`](Self::end_streams) the
/// services that share a handle read no more requests, complete those that they have read, and end each stream with
/// `UNAVAILABLE`. Pass a clone to [`KernelGrpcServer::stream_shutdown`](super::KernelGrpcServer::stream_shutdown), and
/// wrap other services that have streams, such as reflection:
///
/// ```
/// use tower_kernels::grpc::{KernelGrpcServer, StreamShutdown, reflection};
/// use tower_kernels::service::KernelRegistry;
///
/// let shutdown = StreamShutdown::new();
/// let kernels = KernelGrpcServer::new(KernelRegistry::new()).stream_shutdown(shutdown.clone());
/// let router = tonic::transport::Server::builder()
///     .add_service(kernels.into_service())
///     .add_service(shutdown.wrap(reflection()));
/// // When the server stops, after clients have had time to reconnect elsewhere:
/// shutdown.end_streams();
/// # drop(router);
/// ```
#[derive(Clone, Debug, Default)]
pub struct StreamShutdown {
    token: CancellationToken,
}

impl StreamShutdown {
    /// Creates a handle whose streams continue.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the open streams and all streams that begin later. This cannot be undone.
    pub fn end_streams(&self) {
        self.token.cancel();
    }

    /// Wraps any gRPC service to end its streams: its request stream ends as if the client had ended it, and the
    /// resulting `OK` or error status is replaced by `UNAVAILABLE`.
    pub fn wrap<S>(&self, service: S) -> EndStreams<S> {
        EndStreams { service, shutdown: self.clone() }
    }

    /// Completes when streams are to end.
    pub(super) fn ended(&self) -> Pin<Box<WaitForCancellationFutureOwned>> {
        Box::pin(self.token.clone().cancelled_owned())
    }
}

/// Status of a stream that the server has ended.
pub(super) fn unavailable(request_id: Option<&str>) -> Status {
    Rejection::new(ErrorKind::Unavailable, "the server is shutting down").into_status(request_id)
}

/// A gRPC service whose streams end when the server stops. See [`StreamShutdown::wrap`].
#[derive(Clone, Debug)]
pub struct EndStreams<S> {
    service: S,
    shutdown: StreamShutdown,
}

impl<S: NamedService> NamedService for EndStreams<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<http::Request<B>> for EndStreams<S>
where
    S: Service<http::Request<tonic::body::Body>, Response = http::Response<tonic::body::Body>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<StdError>,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = S::Error;
    type Future = EndStreamsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.service.poll_ready(cx)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let was_ended = Arc::new(AtomicBool::new(false));
        let ended = self.shutdown.ended();
        let requests = |body| Requests { body, ended, was_ended: Arc::clone(&was_ended) };
        let inner = self.service.call(request.map(|body| tonic::body::Body::new(requests(body))));
        EndStreamsFuture { inner, was_ended }
    }
}

/// Response future of an [`EndStreams`].
#[pin_project]
#[derive(Debug)]
pub struct EndStreamsFuture<F> {
    #[pin]
    inner: F,
    was_ended: Arc<AtomicBool>,
}

impl<F, E> Future for EndStreamsFuture<F>
where
    F: Future<Output = Result<http::Response<tonic::body::Body>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        // A response without messages has its status in the headers.
        replace_status(this.was_ended, response.headers_mut());
        let was_ended = Arc::clone(this.was_ended);
        Poll::Ready(Ok(response.map(|body| tonic::body::Body::new(Responses { body, was_ended }))))
    }
}

/// The request body of a call, which ends at shutdown.
#[pin_project]
struct Requests<B> {
    #[pin]
    body: B,
    ended: Pin<Box<WaitForCancellationFutureOwned>>,
    was_ended: Arc<AtomicBool>,
}

impl<B: Body> Body for Requests<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        if this.was_ended.load(Ordering::Relaxed) {
            return Poll::Ready(None);
        }
        if let Poll::Ready(frame) = this.body.poll_frame(cx) {
            return Poll::Ready(frame);
        }
        ready!(this.ended.as_mut().poll(cx));
        this.was_ended.store(true, Ordering::Relaxed);
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The response body of a call, whose status is replaced if its requests were ended.
#[pin_project]
struct Responses {
    #[pin]
    body: tonic::body::Body,
    was_ended: Arc<AtomicBool>,
}

impl Body for Responses {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.project();
        let mut frame = ready!(this.body.poll_frame(cx));
        if let Some(trailers) = frame.as_mut().and_then(|frame| frame.as_mut().ok()?.trailers_mut()) {
            replace_status(this.was_ended, trailers);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Replaces a status by `UNAVAILABLE` if the server ended the requests.
fn replace_status(was_ended: &AtomicBool, headers: &mut HeaderMap) {
    if !headers.contains_key(Status::GRPC_STATUS) || !was_ended.load(Ordering::Relaxed) {
        return;
    }
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        headers.remove(name);
    }
    unavailable(None).add_header(headers).expect("its text and details fit into headers");
}
