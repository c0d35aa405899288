//! Methods of the service.

use std::sync::Arc;

use tonic::{Request, Response, Status};

use super::message;
use super::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest, ServerLiveResponse,
    ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
    SystemSharedMemoryRegisterRequest, SystemSharedMemoryRegisterResponse, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryStatusResponse, SystemSharedMemoryUnregisterRequest, SystemSharedMemoryUnregisterResponse,
};
use super::{InferenceResponses, documents};
use crate::error::ErrorKind;
use crate::request::Execution;
use crate::servers::grpc::call_context::CallContext;
use crate::servers::grpc::handler::Handler;
use crate::servers::grpc::memory::rejected;
use crate::servers::grpc::server::Pipeline;
use crate::servers::grpc::status::Rejection;
use crate::servers::grpc::wire::Requests;
use crate::servers::inference::{
    Model, NoModelControl, NoSharedMemory, RegionError, RegionInputs, UnknownModel, UnloadedModel,
    check_repository_parameters,
};
use crate::servers::offload::{DOCUMENT_BYTES, offload};
use crate::service::{KernelError, Tensors};

impl From<UnknownModel> for Rejection {
    fn from(error: UnknownModel) -> Self {
        Self::new(UnknownModel::KIND, error.to_string())
    }
}

impl From<UnloadedModel> for Rejection {
    fn from(error: UnloadedModel) -> Self {
        Self::new(UnloadedModel::KIND, error.to_string())
    }
}

impl From<NoModelControl> for Rejection {
    fn from(error: NoModelControl) -> Self {
        Self::new(NoModelControl::KIND, error.to_string())
    }
}

impl From<NoSharedMemory> for Rejection {
    fn from(error: NoSharedMemory) -> Self {
        Self::new(NoSharedMemory::KIND, error.to_string())
    }
}

impl From<RegionError> for Rejection {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Invalid(invalid) => invalid.into(),
            error => Self::new(error.kind(), error.to_string()),
        }
    }
}

/// Adds the id of the request to the status of a rejection.
fn respond<T>(result: Result<T, Rejection>, context: &CallContext) -> Result<Response<T>, Status> {
    let status = |rejection: Rejection| rejection.into_status(Some(context.request_id.as_str()));
    result.map(Response::new).map_err(status)
}

impl<S: Pipeline> Handler<S> {
    pub(in super::super) async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        Ok(Response::new(ServerLiveResponse { live: true }))
    }

    pub(in super::super) async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        Ok(Response::new(ServerReadyResponse { ready: self.health.is_serving() }))
    }

    pub(in super::super) async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(documents::server(self.inference.names())))
    }

    pub(in super::super) async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let model = self.model(&message.name, &message.version);
        let ready = model
            .map(|model| self.inference.is_loaded(&model) && model.signature().is_ok() && self.health.is_serving());
        respond(ready.map(|ready| ModelReadyResponse { ready }), &context)
    }

    pub(in super::super) async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let described = self.loaded_model(&message.name, &message.version).and_then(|model| {
            let signature = model.signature().map_err(of_schema)?;
            Ok(documents::metadata(&model, signature))
        });
        respond(described, &context)
    }

    pub(in super::super) async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let described = self.loaded_model(&message.name, &message.version).and_then(|model| {
            let signature = model.signature().map_err(of_schema)?;
            Ok(ModelConfigResponse { config: Some(documents::config(&model, signature)) })
        });
        respond(described, &context)
    }

    pub(in super::super) async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let models = if message.name.is_empty() {
            Ok(Model::all(&self.registry))
        } else {
            self.model(&message.name, &message.version).map(|model| vec![model])
        };
        let statistics = |models: Vec<Model>| models.iter().map(documents::statistics).collect();
        respond(models.map(|models| ModelStatisticsResponse { model_stats: statistics(models) }), &context)
    }

    pub(in super::super) async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let only_ready = request.into_inner().ready;
        let models = Model::all(&self.registry);
        let listed = models.iter().map(|model| (model, self.inference.is_loaded(model)));
        let listed = listed.filter(|(_, is_loaded)| *is_loaded || !only_ready);
        let models = listed.map(|(model, is_loaded)| documents::index_entry(model, is_loaded)).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    pub(in super::super) async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let (context, RepositoryModelLoadRequest { model_name, parameters, .. }) = CallContext::from_request(request);
        let loaded = self.set_loaded(&model_name, parameters.keys().map(String::as_str), true);
        respond(loaded.map(|()| RepositoryModelLoadResponse {}), &context)
    }

    pub(in super::super) async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let (context, RepositoryModelUnloadRequest { model_name, parameters, .. }) = CallContext::from_request(request);
        let unloaded = self.set_loaded(&model_name, parameters.keys().map(String::as_str), false);
        respond(unloaded.map(|()| RepositoryModelUnloadResponse {}), &context)
    }

    fn set_loaded<'a>(
        &self,
        name: &str,
        parameters: impl IntoIterator<Item = &'a str>,
        is_loaded: bool,
    ) -> Result<(), Rejection> {
        self.inference.check_model_control()?;
        let model = self.model(name, "")?;
        model.signature().map_err(of_schema)?;
        check_repository_parameters(parameters, is_loaded)?;
        Ok(self.inference.set_loaded(&model, is_loaded)?)
    }

    pub(in super::super) async fn system_shared_memory_status(
        &self,
        request: Request<SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<SystemSharedMemoryStatusResponse>, Status> {
        let access = self.inference.regions_for(request.extensions());
        let (context, SystemSharedMemoryStatusRequest { name }) = CallContext::from_request(request);
        let found = access.map_err(Rejection::from).and_then(|regions| Ok(regions.status(named(&name))?));
        let status = |region: &Arc<_>| documents::region(region);
        let response =
            found.map(|regions| SystemSharedMemoryStatusResponse { regions: regions.iter().map(status).collect() });
        respond(response, &context)
    }

    pub(in super::super) async fn system_shared_memory_register(
        &self,
        request: Request<SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<SystemSharedMemoryRegisterResponse>, Status> {
        let access = self.inference.regions_for(request.extensions());
        let (context, message) = CallContext::from_request(request);
        let SystemSharedMemoryRegisterRequest { name, key, offset, byte_size } = message;
        let registered =
            access.map_err(Rejection::from).and_then(|regions| Ok(regions.register(&name, &key, offset, byte_size)?));
        respond(registered.map(|()| SystemSharedMemoryRegisterResponse {}), &context)
    }

    pub(in super::super) async fn system_shared_memory_unregister(
        &self,
        request: Request<SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<SystemSharedMemoryUnregisterResponse>, Status> {
        let access = self.inference.regions_for(request.extensions());
        let (context, SystemSharedMemoryUnregisterRequest { name }) = CallContext::from_request(request);
        let unregistered = access.map(|regions| regions.unregister(named(&name))).map_err(Rejection::from);
        respond(unregistered.map(|()| SystemSharedMemoryUnregisterResponse {}), &context)
    }

    pub(in super::super) async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let (mut context, message) = CallContext::from_request(request);
        context.hold_message();
        self.infer(context, message).await.map(Response::new)
    }

    pub(in super::super) async fn model_stream_infer(
        &self,
        request: Request<Requests<ModelInferRequest>>,
    ) -> Result<Response<InferenceResponses>, Status> {
        let (context, requests) = CallContext::from_request(request);
        Ok(Response::new(InferenceResponses::new(self.clone(), context, requests)))
    }

    /// Runs a model on a message, whose memory the context holds.
    pub(super) async fn infer(
        &self,
        context: CallContext,
        message: ModelInferRequest,
    ) -> Result<ModelInferResponse, Status> {
        let request_id = context.request_id.clone();
        let reject = |rejection: Rejection| rejection.into_status(Some(request_id.as_str()));
        let model = self.loaded_model(&message.model_name, &message.model_version).map_err(reject)?;
        let pending = model.kernel().request_statistics().begin();
        let result = self.infer_model(context, message, &model).await;
        pending.end(result.as_ref().ok().map(|(_, execution)| execution));
        result.map(|(response, _)| response)
    }

    async fn infer_model(
        &self,
        mut context: CallContext,
        message: ModelInferRequest,
        model: &Model,
    ) -> Result<(ModelInferResponse, Execution), Status> {
        let request_id = context.request_id.clone();
        let reject = |rejection: Rejection| rejection.into_status(Some(request_id.as_str()));
        context.record_kernel(model.id(), &self.registry);
        let access = self.inference.regions_for(context.extensions());
        let message::Inference { tensors, regions, copied, metadata, requested } =
            message::read(message, model, context.metadata.received_at, &access).map_err(reject)?;
        context.hold_copy(copied).map_err(|error| reject(rejected(error)))?;
        let tensors = self.read_regions(&context, regions, tensors).await.map_err(reject)?;
        if let Some(parameters) = metadata {
            context.add_parameters(parameters);
        }
        let (response, _) = self.run(context, model.id().to_owned(), Ok(tensors.into())).await?;
        let bytes = response.payload.byte_len().unwrap_or(0);
        let (model, is_large) = (model.clone(), requested.has_region() && bytes > DOCUMENT_BYTES);
        let writing = offload(is_large, move || (message::write(&response, &model, requested), response.execution));
        let (written, execution) = writing.await;
        Ok((written.map_err(reject)?, execution))
    }

    /// Adds the inputs of a request that are in shared memory.
    async fn read_regions(
        &self,
        context: &CallContext,
        inputs: RegionInputs,
        sent: Tensors,
    ) -> Result<Tensors, Rejection> {
        if inputs.is_empty() {
            return Ok(sent);
        }
        let (bytes, max) = (inputs.checked_bytes()?, self.config.max_request_size);
        if bytes > max as u64 {
            let message = format!("the inputs in shared memory have {bytes} bytes, the maximum is {max}");
            return Err(Rejection::new(ErrorKind::TooLarge, message));
        }
        context.hold_copy(usize::try_from(bytes).unwrap_or(usize::MAX)).map_err(rejected)?;
        Ok(inputs.read_into(sent, bytes).await?)
    }

    fn model(&self, name: &str, version: &str) -> Result<Model, Rejection> {
        Ok(Model::find(&self.registry, name, version)?)
    }

    /// Finds a model that is not unloaded.
    fn loaded_model(&self, name: &str, version: &str) -> Result<Model, Rejection> {
        let model = self.model(name, version)?;
        if self.inference.is_loaded(&model) { Ok(model) } else { Err(UnloadedModel(model.name().to_owned()).into()) }
    }
}

/// Returns a name, and `None` for an empty one, which stands for all.
fn named(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

fn of_schema(error: KernelError) -> Rejection {
    Rejection::of(&error)
}
