//! The methods of the service, each of them a call of the pipeline or a look into the registry.

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use tonic::{Request, Response, Status};

use super::config::GrpcConfig;
use super::deadline::Arrival;
use super::memory::rejected;
use super::message::{Names, json_answer, kernel_id_of, tensors, tensors_answer};
use super::metadata::Caller;
use super::proto::{
    ExecuteRequest, ExecuteResponse, ExecuteStreamRequest, ExecuteTensorsRequest, ExecuteTensorsResponse,
    GetKernelRequest, KernelDescription, ListKernelsRequest, ListKernelsResponse,
};
use super::registry;
use super::server::Pipeline;
use super::shutdown::StreamShutdown;
use super::status::Rejection;
use super::stream::Responses;
use super::wire::Requests;
use crate::middleware::timeout;
use crate::panics::CatchPanic;
use crate::service::{InvalidInput, KernelRegistry, KernelResponse, Payload};

/// Behind [`KernelGrpcService`](super::KernelGrpcService), which notes when a call came.
pub(super) struct Handler<S> {
    pub(super) service: S,
    pub(super) registry: Arc<KernelRegistry>,
    pub(super) config: Arc<GrpcConfig>,
    pub(super) shutdown: StreamShutdown,
}

impl<S: Pipeline> Handler<S> {
    /// Waits for room and for the answer, both within the deadline.
    async fn run(
        &self,
        mut caller: Caller,
        kernel_id: String,
        payload: Result<Payload, InvalidInput>,
    ) -> Result<(KernelResponse, Names), Status> {
        let names = Names { request_id: Arc::clone(&caller.request_id), kernel_id };
        let reject = |rejection: Rejection| rejection.into_status(Some(&names.request_id));
        let deadline: Option<Instant> = caller.arrival.deadline(self.config.timeout);
        caller.hold_message();
        if let Some(scope) = &caller.scope {
            // Before what may be wrong with it.
            scope.set_kernel(&names.kernel_id);
        }
        kernel_id_of(&names.kernel_id).map_err(reject)?;
        let is_server_timeout = deadline != caller.arrival.due();
        let payload = payload.map_err(|invalid| reject(invalid.into()))?;
        let memory = caller.memory.clone();
        let request = caller.into_request(names.kernel_id.clone(), payload, deadline, is_server_timeout);
        match CatchPanic::new(timeout::oneshot(self.service.clone(), request)).await {
            Ok(Ok(mut response)) => {
                if let Some(memory) = memory {
                    let held = memory.of_response(&mut response).map_err(|error| reject(rejected(error)))?;
                    memory.sending(held);
                }
                Ok((response, names))
            }
            Ok(Err(error)) => Err(reject(Rejection::of(&error).of_kernel(&names.kernel_id))),
            Err(panicked) => Err(reject(Rejection::panicked(&panicked).of_kernel(&names.kernel_id))),
        }
    }
}

/// A call's message, and what it says beside it.
fn open<T>(request: Request<T>) -> Result<(Caller, T), Status> {
    let (metadata, mut extensions, message) = request.into_parts();
    let reject = |invalid| Rejection::from(invalid).into_status(None);
    let arrival = match extensions.remove::<Arrival>() {
        Some(arrival) => arrival,
        None => Arrival::of(&http::HeaderMap::new(), &extensions).map_err(reject)?,
    };
    Ok((Caller::new(&metadata, extensions, arrival).map_err(reject)?, message))
}

impl<S: Pipeline> Handler<S> {
    pub(super) async fn execute(&self, request: Request<ExecuteRequest>) -> Result<Response<ExecuteResponse>, Status> {
        let (caller, message) = open(request)?;
        let (response, names) = self.run(caller, message.kernel_id, Ok(Payload::json(message.input))).await?;
        let request_id = Arc::clone(&names.request_id);
        let answer = json_answer(response, names).map_err(|rejection| rejection.into_status(Some(&request_id)))?;
        Ok(Response::new(answer))
    }

    pub(super) async fn execute_tensors(
        &self,
        request: Request<ExecuteTensorsRequest>,
    ) -> Result<Response<ExecuteTensorsResponse>, Status> {
        let (caller, message) = open(request)?;
        let payload = tensors(message.inputs).map(Payload::from);
        let (response, names) = self.run(caller, message.kernel_id, payload).await?;
        let request_id = Arc::clone(&names.request_id);
        let answer = tensors_answer(response, names).map_err(|rejection| rejection.into_status(Some(&request_id)))?;
        Ok(Response::new(answer))
    }

    pub(super) async fn execute_stream(
        &self,
        request: Request<Requests<ExecuteStreamRequest>>,
    ) -> Result<Response<Responses>, Status> {
        let (caller, requests) = open(request)?;
        let (service, config) = (self.service.clone(), Arc::clone(&self.config));
        Ok(Response::new(Responses::new(service, config, caller, requests, &self.shutdown)))
    }

    pub(super) async fn get_kernel(
        &self,
        request: Request<GetKernelRequest>,
    ) -> Result<Response<KernelDescription>, Status> {
        let (caller, message) = open(request)?;
        let answer = registry::get(&self.registry, message);
        answer.map(Response::new).map_err(|rejection| rejection.into_status(Some(&caller.request_id)))
    }

    pub(super) async fn list_kernels(
        &self,
        request: Request<ListKernelsRequest>,
    ) -> Result<Response<ListKernelsResponse>, Status> {
        let (caller, message) = open(request)?;
        let answer = registry::list(&self.registry, &message);
        answer.map(Response::new).map_err(|rejection| rejection.into_status(Some(&caller.request_id)))
    }
}

impl<S> fmt::Debug for Handler<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handler").field("config", &self.config).finish_non_exhaustive()
    }
}
