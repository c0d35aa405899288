//! Methods of the service.

use tonic::{Request, Response, Status};

use super::message;
use super::proto::{
    ModelConfigRequest, ModelConfigResponse, ModelInferRequest, ModelInferResponse, ModelMetadataRequest,
    ModelMetadataResponse, ModelReadyRequest, ModelReadyResponse, ModelStatisticsRequest, ModelStatisticsResponse,
    RepositoryIndexRequest, RepositoryIndexResponse, ServerLiveRequest, ServerLiveResponse, ServerMetadataRequest,
    ServerMetadataResponse, ServerReadyRequest, ServerReadyResponse,
};
use super::{InferenceResponses, documents};
use crate::request::Execution;
use crate::servers::grpc::call_context::CallContext;
use crate::servers::grpc::handler::Handler;
use crate::servers::grpc::memory::rejected;
use crate::servers::grpc::server::Pipeline;
use crate::servers::grpc::status::Rejection;
use crate::servers::grpc::wire::Requests;
use crate::servers::inference::{Model, UnknownModel};
use crate::service::KernelError;

impl From<UnknownModel> for Rejection {
    fn from(error: UnknownModel) -> Self {
        Self::new(UnknownModel::KIND, error.to_string())
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
        Ok(Response::new(documents::server()))
    }

    pub(in super::super) async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let model = self.model(&message.name, &message.version);
        let ready = model.map(|model| model.signature().is_ok() && self.health.is_serving());
        respond(ready.map(|ready| ModelReadyResponse { ready }), &context)
    }

    pub(in super::super) async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let (context, message) = CallContext::from_request(request);
        let described = self.model(&message.name, &message.version).and_then(|model| {
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
        let described = self.model(&message.name, &message.version).and_then(|model| {
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
        _: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let models = Model::all(&self.registry).iter().map(documents::index_entry).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
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
        let model = self.model(&message.model_name, &message.model_version).map_err(reject)?;
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
        let message::Inference { payload, copied, metadata, requested } =
            message::read(message, model, context.metadata.received_at).map_err(reject)?;
        context.hold_copy(copied).map_err(|error| reject(rejected(error)))?;
        if let Some(parameters) = metadata {
            context.add_parameters(parameters);
        }
        let (response, _) = self.run(context, model.id().to_owned(), Ok(payload)).await?;
        let written = message::write(&response, model, requested).map_err(reject)?;
        Ok((written, response.execution))
    }

    fn model(&self, name: &str, version: &str) -> Result<Model, Rejection> {
        Ok(Model::find(&self.registry, name, version)?)
    }
}

fn of_schema(error: KernelError) -> Rejection {
    Rejection::of(&error)
}
