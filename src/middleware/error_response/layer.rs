use tower_layer::Layer;

use super::{Answer, ByContentType, Grpc, Http};

/// Turns refusals into answers. See the [module](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorResponseLayer<P = ByContentType> {
    protocol: P,
}

impl ErrorResponseLayer {
    /// Answers as the content type of each request asks.
    pub const fn new() -> Self {
        Self::with(ByContentType)
    }
}

impl ErrorResponseLayer<Http> {
    /// Answers with problem documents.
    pub const fn http() -> Self {
        Self::with(Http)
    }
}

impl ErrorResponseLayer<Grpc> {
    /// Answers with gRPC statuses.
    pub const fn grpc() -> Self {
        Self::with(Grpc)
    }
}

impl<P> ErrorResponseLayer<P> {
    /// Answers as `protocol` writes it: a [`Protocol`](super::Protocol).
    pub const fn with(protocol: P) -> Self {
        Self { protocol }
    }
}

impl<S, P: Clone> Layer<S> for ErrorResponseLayer<P> {
    type Service = Answer<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Answer::new(inner, self.protocol.clone())
    }
}
