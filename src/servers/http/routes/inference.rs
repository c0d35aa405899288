//! `/v2`: the Open Inference Protocol, in which kernels are models.

use std::time::Instant;

use http::request::Parts;
use http::{Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::health;
use crate::error::ErrorKind;
use crate::servers::http::inference::{
    Inference, InferenceError, InferenceRequest, InferenceResponse, ModelConfig, ModelMetadata, ModelReady,
    ModelStatisticsPage, RegionEntry, RegionRequest, RepositoryEntry, RepositoryQuery, RepositoryRequest, ServerLive,
    ServerMetadata, ServerReady,
};
use crate::servers::http::openapi::{Schemas, error_statuses, headers, json_content, reference, response};
use crate::servers::http::route::{Params, RequestBody, RestRequest, RestService};
use crate::servers::http::{HEAD_LENGTH, OCTETS, Problem, ResponseBody, Rest, RestState, read};
use crate::servers::inference::{
    Model, NO_CUDA_SHARED_MEMORY, NoModelControl, NoSharedMemory, RegionError, UnknownModel, UnloadedModel,
    check_repository_parameters,
};
use crate::service::{InvalidInput, RegisteredKernel, decode_json};

type RouteResult = Result<Response<ResponseBody>, Problem>;

/// Maximum size of the body of a request that is not for inference.
const MAX_CONTROL_REQUEST: usize = 4096;

impl From<UnknownModel> for Problem {
    fn from(error: UnknownModel) -> Self {
        Self::new(UnknownModel::KIND, error.to_string())
    }
}

impl From<UnloadedModel> for Problem {
    fn from(error: UnloadedModel) -> Self {
        Self::new(UnloadedModel::KIND, error.to_string())
    }
}

impl From<NoModelControl> for Problem {
    fn from(error: NoModelControl) -> Self {
        Self::new(NoModelControl::KIND, error.to_string())
    }
}

impl From<NoSharedMemory> for Problem {
    fn from(error: NoSharedMemory) -> Self {
        Self::new(NoSharedMemory::KIND, error.to_string())
    }
}

impl From<RegionError> for Problem {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Invalid(invalid) => invalid.into(),
            error => Self::new(error.kind(), error.to_string()),
        }
    }
}

pub(super) async fn server<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    request.json(StatusCode::OK, &ServerMetadata::new(rest.state.inference.names()))
}

pub(super) async fn live<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    request.json(StatusCode::OK, &ServerLive { live: true })
}

pub(super) async fn ready<S: RestService, B: Send>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let ready = health::not_ready_reason(rest).await.is_none();
    request.json(status_of(ready), &ServerReady { ready })
}

pub(super) async fn model_ready<S: RestService, B: Send>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let model = find(&rest.state, &request.params)?;
    let is_loaded = rest.state.inference.is_loaded(&model);
    let ready = is_loaded && model.signature().is_ok() && health::not_ready_reason(rest).await.is_none();
    request.json(status_of(ready), &ModelReady { name: model.name(), ready })
}

fn status_of(ready: bool) -> StatusCode {
    if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }
}

pub(super) async fn model<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let model = find_loaded(&rest.state, &request.params)?;
    let signature = model.signature().map_err(|error| Problem::of(&error))?;
    request.json(StatusCode::OK, &ModelMetadata::new(&model, signature))
}

pub(super) async fn model_config<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let model = find_loaded(&rest.state, &request.params)?;
    let signature = model.signature().map_err(|error| Problem::of(&error))?;
    request.json(StatusCode::OK, &ModelConfig::new(&model, signature))
}

pub(super) async fn model_statistics<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let model = find(&rest.state, &request.params)?;
    request.json(StatusCode::OK, &ModelStatisticsPage::new(&[model]))
}

pub(super) async fn statistics<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    request.json(StatusCode::OK, &ModelStatisticsPage::new(&Model::all(&rest.state.registry)))
}

pub(super) async fn infer<S: RestService, B: RequestBody>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let model = find_loaded(&rest.state, &request.params)?;
    let kernel = model.kernel().clone();
    let pending = kernel.request_statistics().begin();
    let state = &rest.state;
    let RestRequest { head, request_id, body, .. } = request;
    let result = Inference { service: rest.service, model, head, request_id, state }.run(body).await;
    state.outcomes.record(result.as_ref().err());
    pending.end(result.as_ref().ok().map(|(_, response)| &response.execution));
    result.map(|(response, _)| response)
}

pub(super) async fn index<S, B: RequestBody>(rest: Rest<S>, mut request: RestRequest<'_, B>) -> RouteResult {
    let query: RepositoryQuery = control_request(&rest.state, &mut request).await?;
    let models = Model::all(&rest.state.registry);
    let is_loaded = |model: &Model| rest.state.inference.is_loaded(model);
    let listed = models.iter().map(|model| (model, is_loaded(model))).filter(|(_, loaded)| *loaded || !query.ready);
    let index: Vec<_> = listed.map(|(model, is_loaded)| RepositoryEntry::new(model, is_loaded)).collect();
    request.json(StatusCode::OK, &index)
}

pub(super) async fn load<S, B: RequestBody>(rest: Rest<S>, mut request: RestRequest<'_, B>) -> RouteResult {
    set_loaded(&rest.state, &mut request, true).await
}

pub(super) async fn unload<S, B: RequestBody>(rest: Rest<S>, mut request: RestRequest<'_, B>) -> RouteResult {
    set_loaded(&rest.state, &mut request, false).await
}

async fn set_loaded<B: RequestBody>(
    state: &RestState,
    request: &mut RestRequest<'_, B>,
    is_loaded: bool,
) -> RouteResult {
    state.inference.check_model_control()?;
    let model = find(state, &request.params)?;
    model.signature().map_err(|error| Problem::of(&error))?;
    let RepositoryRequest { parameters } = control_request(state, request).await?;
    check_repository_parameters(parameters.keys().map(String::as_str), is_loaded)?;
    state.inference.set_loaded(&model, is_loaded)?;
    request.json(StatusCode::OK, &json!({}))
}

pub(super) async fn shared_memory_status<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> RouteResult {
    let regions = rest.state.regions_for(request.head)?;
    let found = regions.status(request.params.find("name"))?;
    let entries: Vec<_> = found.iter().map(|region| RegionEntry::new(region)).collect();
    request.json(StatusCode::OK, &entries)
}

pub(super) async fn register_shared_memory<S, B: RequestBody>(
    rest: Rest<S>,
    mut request: RestRequest<'_, B>,
) -> RouteResult {
    let regions = rest.state.regions_for(request.head)?;
    let RegionRequest { key, offset, byte_size } = control_request(&rest.state, &mut request).await?;
    let key = key.ok_or_else(|| InvalidInput::new("key", "missing"))?;
    let byte_size = byte_size.ok_or_else(|| InvalidInput::new("byte_size", "missing"))?;
    regions.register(request.params.get("name"), &key, offset.unwrap_or(0), byte_size)?;
    request.json(StatusCode::OK, &json!({}))
}

pub(super) async fn unregister_shared_memory<S, B: RequestBody>(
    rest: Rest<S>,
    mut request: RestRequest<'_, B>,
) -> RouteResult {
    let regions = rest.state.regions_for(request.head)?;
    // No field is needed, and whatever a client sends is no region.
    let _: Value = control_request(&rest.state, &mut request).await?;
    regions.unregister(request.params.find("name"));
    request.json(StatusCode::OK, &json!({}))
}

pub(super) async fn cuda_shared_memory<S, B>(_: Rest<S>, _: RestRequest<'_, B>) -> RouteResult {
    Err(Problem::new(ErrorKind::Unsupported, NO_CUDA_SHARED_MEMORY))
}

/// Reads and parses the body of a request that is not for inference; an empty one is the default.
async fn control_request<T: DeserializeOwned + Default, B: RequestBody>(
    state: &RestState,
    request: &mut RestRequest<'_, B>,
) -> Result<T, Problem> {
    let limits = &state.limits;
    let memory = limits.memory.reservation(0);
    let deadline = Instant::now() + limits.timeout;
    let body = read::whole(request.body.as_mut(), MAX_CONTROL_REQUEST, deadline, &memory).await;
    let body = body.map_err(|problem| problem.over(request.head.version))?;
    if body.is_empty() { Ok(T::default()) } else { Ok(decode_json(&body)?) }
}

/// Checks that the model in the path exists.
pub(super) fn check_model(state: &RestState, _: &Parts, params: &Params) -> Result<(), Problem> {
    find(state, params).map(|_| ())
}

/// Checks that the path is one of the protocol for CUDA shared memory.
pub(super) fn check_cuda_shared_memory(_: &RestState, _: &Parts, params: &Params) -> Result<(), Problem> {
    let known = ["status", "register", "unregister"];
    let action = params.get("path").rsplit('/').next().unwrap_or_default();
    if known.contains(&action) { Ok(()) } else { Err(Problem::new(ErrorKind::NotFound, "there is no such resource")) }
}

fn find(state: &RestState, params: &Params) -> Result<Model, Problem> {
    Ok(Model::find(&state.registry, params.get("name"), params.find("version").unwrap_or_default())?)
}

/// Finds a model that is not unloaded.
fn find_loaded(state: &RestState, params: &Params) -> Result<Model, Problem> {
    let model = find(state, params)?;
    if state.inference.is_loaded(&model) { Ok(model) } else { Err(UnloadedModel(model.name().to_owned()).into()) }
}

/// OpenAPI: `/v2`.
pub(super) fn server_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let server = schemas.written::<ServerMetadata>();
    operation(schemas, None, "The server.", &server, &[])
}

/// OpenAPI: `/v2/health/live`.
pub(super) fn live_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let live = schemas.written::<ServerLive>();
    operation(schemas, None, "Alive.", &live, &[])
}

/// OpenAPI: `/v2/health/ready`.
pub(super) fn ready_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let ready = schemas.written::<ServerReady>();
    let mut entry = operation(schemas, None, "Ready.", &ready, &[]);
    entry["responses"]["503"] = response("Not ready.", json_content(&ready));
    entry
}

/// OpenAPI: whether a model is ready.
pub(super) fn model_ready_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let ready = schemas.written::<ModelReady<'_>>();
    let mut entry = operation(schemas, Some(kernels), "Ready.", &ready, &[404]);
    entry["responses"]["503"] = response("Not ready.", json_content(&ready));
    entry
}

/// OpenAPI: a model.
pub(super) fn model_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let model = schemas.written::<ModelMetadata<'_>>();
    operation(schemas, Some(kernels), "The model.", &model, &[400, 404, 500, 503])
}

/// OpenAPI: the configuration of a model.
pub(super) fn model_config_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let config = schemas.written::<ModelConfig<'_>>();
    operation(schemas, Some(kernels), "The configuration.", &config, &[400, 404, 500, 503])
}

/// OpenAPI: the statistics of one model.
pub(super) fn model_statistics_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let statistics = schemas.written::<ModelStatisticsPage>();
    operation(schemas, Some(kernels), "The statistics.", &statistics, &[404])
}

/// OpenAPI: the statistics of all models.
pub(super) fn statistics_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let statistics = schemas.written::<ModelStatisticsPage>();
    operation(schemas, None, "The statistics.", &statistics, &[])
}

/// OpenAPI: a request for inference.
pub(super) fn infer_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let (request, written) = (schemas.read::<InferenceRequest<'_>>(), schemas.written::<InferenceResponse<'_>>());
    // Methods that respond with 405 have no operation.
    let errors: Vec<_> = error_statuses().map(|(status, _)| status).filter(|status| *status != 405).collect();
    let mut entry =
        operation(schemas, Some(kernels), "The outputs, as JSON or binary as requested.", &written, &errors);
    entry["responses"]["200"]["content"][OCTETS] = binary_content(&written);
    entry["responses"]["200"]["headers"][HEAD_LENGTH.as_str()] = reference("headers", HEAD_LENGTH.as_str());
    let names = ["traceparent", "tracestate", "grpc-timeout", "connect-timeout-ms", HEAD_LENGTH.as_str()]
        .map(|name| headers(&[name]));
    if let Value::Array(parameters) = &mut entry["parameters"] {
        parameters.extend(names.concat());
    }
    let mut content = json_content(&request);
    content[OCTETS] = binary_content(&request);
    entry["requestBody"] = json!({ "required": true, "content": content });
    entry
}

/// JSON, followed by the bytes of tensors.
fn binary_content(head: &Value) -> Value {
    json!({ "schema": {
        "description": "JSON, whose length in bytes is `inference-header-content-length`, followed by the binary data of \
                        tensors in the order in which the JSON lists them, little-endian and row-major.",
        "type": "string", "format": "binary", "x-head": head,
    } })
}

/// OpenAPI: the index of models.
pub(super) fn index_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let entries = json!({ "type": "array", "items": schemas.written::<RepositoryEntry<'_>>() });
    let query = schemas.read::<RepositoryQuery>();
    let mut entry = operation(schemas, None, "All models.", &entries, &[400, 408, 413, 503]);
    entry["requestBody"] = json!({ "content": json_content(&query) });
    entry
}

/// OpenAPI: loading or unloading of a model.
pub(super) fn load_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let body = schemas.read::<RepositoryRequest>();
    let errors = [400, 404, 408, 413, 422, 500, 503];
    let mut entry = operation(schemas, Some(kernels), "Done.", &json!({ "type": "object" }), &errors);
    entry["requestBody"] = json!({ "content": json_content(&body) });
    entry
}

/// OpenAPI: the regions of shared memory, or one of them.
pub(super) fn region_status_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let entries = json!({ "type": "array", "items": schemas.written::<RegionEntry<'_>>() });
    operation(schemas, None, "The regions.", &entries, &[400, 404, 422])
}

/// OpenAPI: the registration of a region of shared memory.
pub(super) fn register_region_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let body = schemas.read::<RegionRequest>();
    let errors = [400, 404, 408, 409, 413, 422, 503, 507];
    let mut entry = operation(schemas, None, "Registered.", &json!({ "type": "object" }), &errors);
    entry["requestBody"] = json!({ "required": true, "content": json_content(&body) });
    entry
}

/// OpenAPI: the removal of regions of shared memory.
pub(super) fn unregister_region_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    operation(schemas, None, "Removed.", &json!({ "type": "object" }), &[400, 404, 408, 413, 422, 503])
}

/// An operation whose success is JSON, with the protocol's errors. Its path has a model that is one of `kernels`, if given.
fn operation(
    schemas: &mut Schemas,
    kernels: Option<&[RegisteredKernel]>,
    description: &str,
    success: &Value,
    errors: &[u16],
) -> Value {
    let error = json_content(&schemas.written::<InferenceError<'_>>());
    let mut parameters = headers(&["x-request-id"]);
    if let Some(kernels) = kernels {
        let models = kernels.iter().filter(|kernel| kernel.is_batch() && kernel.signature().is_ok());
        // In dots, as path parameters have no slashes.
        let names: Vec<_> = models.map(|kernel| kernel.info().id.replace('/', ".")).collect();
        parameters.push(json!({
            "name": "name", "in": "path", "required": true, "schema": { "type": "string", "enum": names },
        }));
    }
    let mut responses = json!({ "200": response(description, json_content(success)) });
    for status in errors {
        responses[status.to_string()] = response("An error.", error.clone());
    }
    json!({ "parameters": parameters, "responses": responses })
}
