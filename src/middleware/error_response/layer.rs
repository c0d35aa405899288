use tower_layer::Layer;

use super::{ByContentType, ErrorResponse, Grpc, Http};

/// Converts errors into HTTP or gRPC responses. See the [module](super).
#[derive(Clone, Copy, Debug, Default)]
pub struct ErrorResponseLayer<P = ByContentType> {
    protocol: P,
}

impl ErrorResponseLayer {
    /// Writes problem documents, and gRPC statuses to requests with a gRPC content type.
    pub const fn new() -> Self {
        Self::with(ByContentType)
    }
}

impl ErrorResponseLayer<Http> {
    /// Writes problem documents.
    pub const fn http() -> Self {
        Self::with(Http)
    }
}

impl ErrorResponseLayer<Grpc> {
    /// Writes gRPC statuses.
    pub const fn grpc() -> Self {
        Self::with(Grpc)
    }
}

impl<P> ErrorResponseLayer<P> {
    /// Writes responses by `protocol`, a [`Protocol`](super::Protocol).
    pub const fn with(protocol: P) -> Self {
        Self { protocol }
    }
}

impl<S, P: Clone> Layer<S> for ErrorResponseLayer<P> {
    type Service = ErrorResponse<S, P>;

    fn layer(&self, inner: S) -> Self::Service {
        ErrorResponse::new(inner, self.protocol.clone())
    }
}
