//! Dispatches calls to methods. Replaces the generated server, which passes decoded messages only.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use http_body::Body;
use prost::Message;
use tonic::codec::{CompressionEncoding, EnabledCompressionEncodings};
use tonic::codegen::{BoxFuture, StdError};
use tonic::server::Grpc;
use tonic::{Code, Request, Response, Status, Streaming};
use tower_service::Service;

use super::handler::Handler;
use super::inference::{InferenceResponses, proto as inference};
use super::proto::{
    DeleteOperandRequest, ExecuteRequest, ExecuteResponse, ExecuteStreamRequest, ExecuteStreamResponse,
    ExecuteTensorsRequest, ExecuteTensorsResponse, GetKernelRequest, GetOperandRequest, KernelDescription,
    ListKernelsRequest, ListKernelsResponse, ListOperandsRequest, ListOperandsResponse, Operand, PutOperandRequest,
    PutOperandResponse,
};
use super::put_operand::PutResponses;
use super::server::Pipeline;
use super::stream::Responses;
use super::wire::{Encoded, Incoming, RequestCodec, Requests};
use crate::servers::inference::NO_CUDA_SHARED_MEMORY;

/// The methods of `tower_kernels.v1.Kernel` and `inference.GRPCInferenceService`, by their paths.
pub(super) struct Dispatch<S> {
    handler: Arc<Handler<S>>,
    accept: EnabledCompressionEncodings,
    send: EnabledCompressionEncodings,
    max_decoding: Option<usize>,
    max_encoding: Option<usize>,
}

impl<S> Dispatch<S> {
    pub(super) fn new(handler: Handler<S>) -> Self {
        Self {
            handler: Arc::new(handler),
            accept: EnabledCompressionEncodings::default(),
            send: EnabledCompressionEncodings::default(),
            max_decoding: None,
            max_encoding: None,
        }
    }

    pub(super) fn max_decoding_message_size(mut self, bytes: usize) -> Self {
        self.max_decoding = Some(bytes);
        self
    }

    pub(super) fn max_encoding_message_size(mut self, bytes: usize) -> Self {
        self.max_encoding = Some(bytes);
        self
    }

    pub(super) fn accept_compressed(mut self, encoding: CompressionEncoding) -> Self {
        self.accept.enable(encoding);
        self
    }

    pub(super) fn send_compressed(mut self, encoding: CompressionEncoding) -> Self {
        self.send.enable(encoding);
        self
    }

    fn grpc<T: Incoming, U: Message + Default + 'static>(&self) -> Grpc<RequestCodec<T, U>> {
        Grpc::new(RequestCodec::new())
            .apply_compression_config(self.accept, self.send)
            .apply_max_message_size_config(self.max_decoding, self.max_encoding)
    }

    fn unary<T, U, B>(&self, request: http::Request<B>) -> BoxFuture<http::Response<tonic::body::Body>, Infallible>
    where
        S: Pipeline,
        T: Incoming,
        U: Message + Default + 'static,
        Methods<S>: Service<
                Request<Encoded<T>>,
                Response = Response<U>,
                Error = Status,
                Future = BoxFuture<Response<U>, Status>,
            >,
        B: Body + Send + 'static,
        B::Error: Into<StdError> + Send + 'static,
    {
        let (mut grpc, methods) = (self.grpc::<T, U>(), Methods(Arc::clone(&self.handler)));
        Box::pin(async move { Ok(grpc.unary(methods, request).await) })
    }
}

impl<S, B> Service<http::Request<B>> for Dispatch<S>
where
    S: Pipeline,
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        match request.uri().path() {
            "/tower_kernels.v1.Kernel/Execute" => self.unary::<ExecuteRequest, ExecuteResponse, _>(request),
            "/tower_kernels.v1.Kernel/ExecuteTensors" => {
                self.unary::<ExecuteTensorsRequest, ExecuteTensorsResponse, _>(request)
            }
            "/tower_kernels.v1.Kernel/GetKernel" => self.unary::<GetKernelRequest, KernelDescription, _>(request),
            "/tower_kernels.v1.Kernel/ListKernels" => self.unary::<ListKernelsRequest, ListKernelsResponse, _>(request),
            "/tower_kernels.v1.Kernel/ExecuteStream" => {
                let grpc = self.grpc::<ExecuteStreamRequest, ExecuteStreamResponse>();
                let (mut grpc, methods) = (grpc, Methods(Arc::clone(&self.handler)));
                Box::pin(async move { Ok(grpc.streaming(methods, request).await) })
            }
            "/tower_kernels.v1.Kernel/PutOperand" => {
                let grpc = self.grpc::<PutOperandRequest, PutOperandResponse>();
                let (mut grpc, methods) = (grpc, Methods(Arc::clone(&self.handler)));
                Box::pin(async move { Ok(grpc.streaming(methods, request).await) })
            }
            "/tower_kernels.v1.Kernel/GetOperand" => self.unary::<GetOperandRequest, Operand, _>(request),
            "/tower_kernels.v1.Kernel/ListOperands" => {
                self.unary::<ListOperandsRequest, ListOperandsResponse, _>(request)
            }
            "/tower_kernels.v1.Kernel/DeleteOperand" => self.unary::<DeleteOperandRequest, Operand, _>(request),
            "/inference.GRPCInferenceService/ServerLive" => {
                self.unary::<inference::ServerLiveRequest, inference::ServerLiveResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ServerReady" => {
                self.unary::<inference::ServerReadyRequest, inference::ServerReadyResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelReady" => {
                self.unary::<inference::ModelReadyRequest, inference::ModelReadyResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ServerMetadata" => {
                self.unary::<inference::ServerMetadataRequest, inference::ServerMetadataResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelMetadata" => {
                self.unary::<inference::ModelMetadataRequest, inference::ModelMetadataResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelInfer" => {
                self.unary::<inference::ModelInferRequest, inference::ModelInferResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelConfig" => {
                self.unary::<inference::ModelConfigRequest, inference::ModelConfigResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelStatistics" => {
                self.unary::<inference::ModelStatisticsRequest, inference::ModelStatisticsResponse, _>(request)
            }
            "/inference.GRPCInferenceService/RepositoryIndex" => {
                self.unary::<inference::RepositoryIndexRequest, inference::RepositoryIndexResponse, _>(request)
            }
            "/inference.GRPCInferenceService/RepositoryModelLoad" => {
                self.unary::<inference::RepositoryModelLoadRequest, inference::RepositoryModelLoadResponse, _>(request)
            }
            "/inference.GRPCInferenceService/RepositoryModelUnload" => {
                self.unary::<inference::RepositoryModelUnloadRequest, inference::RepositoryModelUnloadResponse, _>(request)
            }
            "/inference.GRPCInferenceService/SystemSharedMemoryStatus" => {
                self.unary::<inference::SystemSharedMemoryStatusRequest, inference::SystemSharedMemoryStatusResponse, _>(request)
            }
            "/inference.GRPCInferenceService/SystemSharedMemoryRegister" => {
                self.unary::<inference::SystemSharedMemoryRegisterRequest, inference::SystemSharedMemoryRegisterResponse, _>(request)
            }
            "/inference.GRPCInferenceService/SystemSharedMemoryUnregister" => {
                self.unary::<inference::SystemSharedMemoryUnregisterRequest, inference::SystemSharedMemoryUnregisterResponse, _>(request)
            }
            "/inference.GRPCInferenceService/ModelStreamInfer" => {
                let grpc = self.grpc::<inference::ModelInferRequest, inference::ModelStreamInferResponse>();
                let (mut grpc, methods) = (grpc, Methods(Arc::clone(&self.handler)));
                Box::pin(async move { Ok(grpc.streaming(methods, request).await) })
            }
            path => {
                // What servers of models can do and this one cannot, and all else.
                let reason = match path.strip_prefix("/inference.GRPCInferenceService/") {
                    Some(method) if method.starts_with("CudaSharedMemory") => NO_CUDA_SHARED_MEMORY,
                    _ => "",
                };
                Box::pin(async move { Ok(Status::new(Code::Unimplemented, reason).into_http()) })
            }
        }
    }
}

async fn decoded<T: Incoming>(request: Request<Encoded<T>>) -> Result<Request<T>, Status> {
    let (metadata, extensions, message) = request.into_parts();
    Ok(Request::from_parts(metadata, extensions, message.decode().await?))
}

/// Implements tonic's services for each method, which are distinguished by their request types.
struct Methods<S>(Arc<Handler<S>>);

macro_rules! methods {
    ($($request:ty, $method:ident -> $response:ty, |$call:ident| $prepared:expr;)*) => {$(
        impl<S: Pipeline> Service<Request<$request>> for Methods<S> {
            type Response = Response<$response>;
            type Error = Status;
            type Future = BoxFuture<Self::Response, Status>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Status>> {
                Poll::Ready(Ok(()))
            }

            fn call(&mut self, $call: Request<$request>) -> Self::Future {
                let handler = Arc::clone(&self.0);
                Box::pin(async move { handler.$method($prepared).await })
            }
        }
    )*};
}

methods! {
    Encoded<ExecuteRequest>, execute -> ExecuteResponse, |call| decoded(call).await?;
    Encoded<ExecuteTensorsRequest>, execute_tensors -> ExecuteTensorsResponse, |call| decoded(call).await?;
    Encoded<GetKernelRequest>, get_kernel -> KernelDescription, |call| decoded(call).await?;
    Encoded<ListKernelsRequest>, list_kernels -> ListKernelsResponse, |call| decoded(call).await?;
    Streaming<Encoded<ExecuteStreamRequest>>, execute_stream -> Responses, |call| call.map(Requests::new);
    Streaming<Encoded<PutOperandRequest>>, put_operand -> PutResponses, |call| call.map(Requests::new);
    Encoded<GetOperandRequest>, get_operand -> Operand, |call| decoded(call).await?;
    Encoded<ListOperandsRequest>, list_operands -> ListOperandsResponse, |call| decoded(call).await?;
    Encoded<DeleteOperandRequest>, delete_operand -> Operand, |call| decoded(call).await?;
    Encoded<inference::ServerLiveRequest>, server_live -> inference::ServerLiveResponse, |call| decoded(call).await?;
    Encoded<inference::ServerReadyRequest>, server_ready -> inference::ServerReadyResponse, |call| decoded(call).await?;
    Encoded<inference::ModelReadyRequest>, model_ready -> inference::ModelReadyResponse, |call| decoded(call).await?;
    Encoded<inference::ServerMetadataRequest>, server_metadata -> inference::ServerMetadataResponse, |call| decoded(call).await?;
    Encoded<inference::ModelMetadataRequest>, model_metadata -> inference::ModelMetadataResponse, |call| decoded(call).await?;
    Encoded<inference::ModelInferRequest>, model_infer -> inference::ModelInferResponse, |call| decoded(call).await?;
    Encoded<inference::ModelConfigRequest>, model_config -> inference::ModelConfigResponse, |call| decoded(call).await?;
    Encoded<inference::ModelStatisticsRequest>, model_statistics -> inference::ModelStatisticsResponse, |call| decoded(call).await?;
    Encoded<inference::RepositoryIndexRequest>, repository_index -> inference::RepositoryIndexResponse, |call| decoded(call).await?;
    Encoded<inference::RepositoryModelLoadRequest>, repository_model_load -> inference::RepositoryModelLoadResponse, |call| decoded(call).await?;
    Encoded<inference::RepositoryModelUnloadRequest>, repository_model_unload -> inference::RepositoryModelUnloadResponse, |call| decoded(call).await?;
    Encoded<inference::SystemSharedMemoryStatusRequest>, system_shared_memory_status -> inference::SystemSharedMemoryStatusResponse, |call| decoded(call).await?;
    Encoded<inference::SystemSharedMemoryRegisterRequest>, system_shared_memory_register -> inference::SystemSharedMemoryRegisterResponse, |call| decoded(call).await?;
    Encoded<inference::SystemSharedMemoryUnregisterRequest>, system_shared_memory_unregister -> inference::SystemSharedMemoryUnregisterResponse, |call| decoded(call).await?;
    Streaming<Encoded<inference::ModelInferRequest>>, model_stream_infer -> InferenceResponses, |call| call.map(Requests::new);
}

// By hand, as the pipeline is behind an `Arc` and need not be `Clone` here.
impl<S> Clone for Dispatch<S> {
    fn clone(&self) -> Self {
        Self { handler: Arc::clone(&self.handler), ..*self }
    }
}

impl<S> fmt::Debug for Dispatch<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dispatch").field("handler", &self.handler).finish_non_exhaustive()
    }
}
