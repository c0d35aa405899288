//! Methods of the gRPC service: each calls the pipeline or reads the registry.

use std::fmt;
use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::call_context::CallContext;
use super::config::GrpcConfig;
use super::health::HealthService;
use super::memory::rejected;
use super::message::{ResponseIds, check_kernel_id, json_response, tensors, tensors_response};
use super::proto::{
    DeleteOperandRequest, ExecuteRequest, ExecuteResponse, ExecuteStreamRequest, ExecuteTensorsRequest,
    ExecuteTensorsResponse, GetKernelRequest, GetOperandRequest, KernelDescription, ListKernelsRequest,
    ListKernelsResponse, ListOperandsRequest, ListOperandsResponse, Operand, PutOperandRequest,
};
use super::put_operand::{PutResponses, UploadLimits};
use super::server::Pipeline;
use super::shutdown::StreamShutdown;
use super::status::Rejection;
use super::stream::Responses;
use super::wire::Requests;
use super::{operands, registry};
use crate::middleware::timeout;
use crate::panics::CatchPanic;
use crate::request::request_id::RequestId;
use crate::servers::inference::InferenceExtensions;
use crate::service::{InvalidInput, KernelRegistry, KernelResponse, Payload};

/// Implements the methods for [`KernelGrpcService`](super::KernelGrpcService).
#[derive(Clone)]
pub(super) struct Handler<S> {
    pub(super) service: S,
    pub(super) registry: Arc<KernelRegistry>,
    pub(super) health: HealthService,
    pub(super) config: Arc<GrpcConfig>,
    pub(super) shutdown: StreamShutdown,
    pub(super) upload_limits: UploadLimits,
    pub(super) inference: InferenceExtensions,
}

impl<S: Pipeline> Handler<S> {
    /// Runs a kernel on a message whose memory the context holds. The wait for readiness and for the response ends at the deadline.
    pub(super) async fn run(
        &self,
        context: CallContext,
        kernel_id: String,
        payload: Result<Payload, InvalidInput>,
    ) -> Result<(KernelResponse, ResponseIds), Status> {
        let ids = ResponseIds { request_id: context.request_id.clone(), kernel_id };
        let reject = |rejection: Rejection| rejection.into_status(Some(ids.request_id.as_str()));
        // First, so that it is logged if the request is invalid.
        context.record_kernel(&ids.kernel_id, &self.registry);
        check_kernel_id(&ids.kernel_id).map_err(reject)?;
        let payload = payload.map_err(|invalid| reject(invalid.into()))?;
        let memory = context.memory.clone();
        let request = context.into_request(ids.kernel_id.clone(), payload, self.config.timeout, &self.registry);
        match CatchPanic::new(timeout::oneshot(self.service.clone(), request)).await {
            Ok(Ok(mut response)) => {
                let held = memory.of_response(&mut response).map_err(|error| reject(rejected(error)))?;
                memory.sending(held);
                Ok((response, ids))
            }
            Ok(Err(error)) => Err(reject(Rejection::of(&error).of_kernel(&ids.kernel_id))),
            Err(panicked) => Err(reject(Rejection::panicked(&panicked).of_kernel(&ids.kernel_id))),
        }
    }
}

/// Creates the response, or the status of a rejection.
fn respond<T>(result: Result<T, Rejection>, request_id: &RequestId) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|rejection| rejection.into_status(Some(request_id.as_str())))
}

impl<S: Pipeline> Handler<S> {
    pub(super) async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let (mut context, message) = CallContext::from_request(request);
        context.hold_message();
        let request_id = context.request_id.clone();
        let (response, ids) = self.run(context, message.kernel_id, Ok(Payload::json(message.input))).await?;
        respond(json_response(response, ids), &request_id)
    }

    pub(super) async fn execute_tensors(
        &self,
        request: Request<ExecuteTensorsRequest>,
    ) -> Result<Response<ExecuteTensorsResponse>, Status> {
        let (mut context, message) = CallContext::from_request(request);
        context.hold_message();
        let request_id = context.request_id.clone();
        let payload = tensors(message.inputs).map(Payload::from);
        let (response, ids) = self.run(context, message.kernel_id, payload).await?;
        respond(tensors_response(response, ids), &request_id)
    }

    pub(super) async fn execute_stream(
        &self,
        request: Request<Requests<ExecuteStreamRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (context, requests) = CallContext::from_request(request);
        Ok(Response::new(Responses::new(self, context, requests)))
    }

    pub(super) async fn get_kernel(
        &self,
        request: Request<GetKernelRequest>,
    ) -> Result<Response<KernelDescription>, Status> {
        let (context, message) = CallContext::from_request(request);
        respond(registry::get(&self.registry, message), &context.request_id)
    }

    pub(super) async fn list_kernels(
        &self,
        request: Request<ListKernelsRequest>,
    ) -> Result<Response<ListKernelsResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        respond(registry::list(&self.registry, &message), &context.request_id)
    }

    pub(super) async fn put_operand(
        &self,
        request: Request<Requests<PutOperandRequest>>,
    ) -> Result<Response<PutResponses>, Status> {
        let (context, requests) = CallContext::from_request(request);
        let operands = self.registry.operands().clone();
        Ok(Response::new(PutResponses::new(operands, self.upload_limits, context, requests, &self.shutdown)))
    }

    pub(super) async fn get_operand(&self, request: Request<GetOperandRequest>) -> Result<Response<Operand>, Status> {
        let (context, message) = CallContext::from_request(request);
        respond(operands::get(self.registry.operands(), &context.metadata, &message), &context.request_id)
    }

    pub(super) async fn list_operands(
        &self,
        request: Request<ListOperandsRequest>,
    ) -> Result<Response<ListOperandsResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        respond(operands::list(self.registry.operands(), &context.metadata, &message), &context.request_id)
    }

    pub(super) async fn delete_operand(
        &self,
        request: Request<DeleteOperandRequest>,
    ) -> Result<Response<Operand>, Status> {
        let (context, message) = CallContext::from_request(request);
        respond(operands::delete(self.registry.operands(), context.metadata, message).await, &context.request_id)
    }
}

impl<S> fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("config", &self.config).finish_non_exhaustive()
    }
}
