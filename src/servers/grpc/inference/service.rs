use std::convert::Infallible;
use std::fmt;
use std::task::{Context, Poll};

use http_body::Body;
use tonic::codegen::StdError;
use tonic::server::NamedService;
use tower_service::Service;

use super::proto::SERVICE_NAME;
use crate::servers::grpc::future::ResponseFuture;
use crate::servers::grpc::server::{KernelGrpcService, Pipeline};

/// The gRPC service `inference.GRPCInferenceService` of the Open Inference Protocol, in which kernels are models.
pub struct InferenceGrpcService<S>(KernelGrpcService<S>);

impl<S> InferenceGrpcService<S> {
    /// `service` has the methods of both services.
    pub(in crate::servers::grpc) fn new(service: KernelGrpcService<S>) -> Self {
        Self(service)
    }
}

impl<S, B> Service<http::Request<B>> for InferenceGrpcService<S>
where
    S: Pipeline,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        <KernelGrpcService<S> as Service<http::Request<B>>>::poll_ready(&mut self.0, cx)
    }

    fn call(&mut self, request: http::Request<B>) -> ResponseFuture {
        self.0.call(request)
    }
}

impl<S> NamedService for InferenceGrpcService<S> {
    const NAME: &'static str = SERVICE_NAME;
}

// By hand, as the pipeline is behind an `Arc` and need not be `Clone` here.
impl<S> Clone for InferenceGrpcService<S> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<S> fmt::Debug for InferenceGrpcService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("InferenceGrpcService").field(&self.0).finish()
    }
}
