//! The routes of the REST API: one table, from which the axum router, the hyper service, the OpenAPI document, the
//! `Allow` header and the documentation (`routes.md`) come.

#[cfg(feature = "docs")]
pub(super) mod docs;
mod execute;
mod health;
mod inference;
mod kernels;
mod metrics;
mod openapi;
mod operands;

pub use self::openapi::is_docs;

#[cfg(feature = "axum")]
use std::collections::BTreeSet;
use std::marker::PhantomData;

use bytes::Bytes;
use http_body_util::Empty;

use super::RestState;
use super::route::OpenApiEntry::{Hidden, Once, Operands, PerKernel};
use super::route::{Operation, RequestBody, RestService, Route};
use crate::backends::Local;
use crate::service::KernelService;

/// Tags of operations that do not belong to a domain of kernels.
pub(super) const INFERENCE: &str = "inference";
pub(super) const KERNELS: &str = "kernels";
pub(super) const OPERANDS: &str = "operands";
pub(super) const SERVER: &str = "server";

/// The routes of a server over the service `S`, with request bodies `B`.
pub(crate) struct Routes<S, B>(PhantomData<(S, B)>);

impl<S: RestService, B: RequestBody> Routes<S, B> {
    /// Of several routes at one path, those whose resource exists count.
    pub(crate) const ALL: &'static [Route<S, B>] = &[
        Operation::get("/kernels", "listKernels", "Lists kernels by id")
            .prefixed()
            .details(
                "filters `?domain=graph`, `?mode=batch` or `ring`; pages of `?limit=` (default 100, at most 1 000) and \
                 `?after=`, the `next` of the previous page",
            )
            .openapi(Once(KERNELS, kernels::list_entry))
            .handled_by(|rest, request| Box::pin(kernels::list(rest, request))),
        Operation::get("/kernels/{*id}", "describe", "Describes a kernel")
            .prefixed()
            .details("aliases, backends, JSON Schemas of its input and output; slashes in the id may be `%2F`")
            .check_resource(kernels::check_id)
            .openapi(PerKernel(kernels::describe_entry))
            .handled_by(|rest, request| Box::pin(kernels::describe(rest, request))),
        Operation::post("/kernels/{*id}/execute", "execute", "Runs this kernel")
            .prefixed()
            .details("the body is its input, and metadata is in headers")
            .check_resource(execute::check_id)
            .openapi(PerKernel(execute::kernel_entry))
            .handled_by(|rest, request| Box::pin(execute::execute_kernel(rest, request))),
        Operation::post("/execute", "execute", "Runs a kernel")
            .prefixed()
            .details("the body has `kernel_id`, `input` and `metadata`")
            .openapi(Once(KERNELS, execute::document_entry))
            .handled_by(|rest, request| Box::pin(execute::execute_document(rest, request))),
        Operation::get("/operands", "listOperands", "Lists operands by name")
            .prefixed()
            .details("of the tenant, and public ones; pages of `?limit=` and `?after=`, as of kernels")
            .openapi(Operands(operands::list_entry))
            .handled_by(|rest, request| Box::pin(operands::list(rest, request))),
        Operation::put("/operands/{name}", "putOperand", "Stores an operand")
            .prefixed()
            .details(
                "`?type=graph`, `vectors` or `tensors`; the body is its value, as JSON or tensors; `?public=true` for all tenants; \
                 `If-Match` and `If-None-Match: *` make it conditional",
            )
            .openapi(Operands(operands::put_entry))
            .handled_by(|rest, request| Box::pin(operands::put(rest, request))),
        Operation::get("/operands/{name}", "describeOperand", "Describes an operand")
            .prefixed()
            .details("`name` or `name@version`; 304 if `If-None-Match` has its entity tag")
            .openapi(Operands(operands::describe_entry))
            .handled_by(|rest, request| Box::pin(operands::describe(rest, request))),
        Operation::delete("/operands/{name}", "removeOperand", "Removes an operand")
            .prefixed()
            .details("its memory is freed when the last request on it has ended")
            .openapi(Operands(operands::remove_entry))
            .handled_by(|rest, request| Box::pin(operands::remove(rest, request))),
        Operation::get("/health", "health", "Server health")
            .details(
                "registry, execution (error rate over the last minute), devices and their sensors, circuits, memory; \
                 503 if unhealthy",
            )
            .enabled_if(|state| state.config.enable_health)
            .openapi(Once(SERVER, health::health_entry))
            .handled_by(|rest, request| Box::pin(health::health(rest, request))),
        Operation::get("/health/live", "live", "Liveness probe")
            .details("always 200")
            .enabled_if(|state| state.config.enable_health)
            .openapi(Once(SERVER, health::live_entry))
            .handled_by(|rest, request| Box::pin(health::live(rest, request))),
        Operation::get("/health/ready", "ready", "Readiness probe")
            .details(
                "503 if the server drains, device code is being loaded, the backend has stopped, or a device is lost \
                 that a kernel requires",
            )
            .enabled_if(|state| state.config.enable_health)
            .openapi(Once(SERVER, health::ready_entry))
            .handled_by(|rest, request| Box::pin(health::ready(rest, request))),
        Operation::get("/v2", "inferenceServer", "Describes the server")
            .details("the Open Inference Protocol, in which kernels are models")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::server_entry))
            .handled_by(|rest, request| Box::pin(inference::server(rest, request))),
        Operation::get("/v2/health/live", "inferenceLive", "Liveness probe")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::live_entry))
            .handled_by(|rest, request| Box::pin(inference::live(rest, request))),
        Operation::get("/v2/health/ready", "inferenceReady", "Readiness probe")
            .details("as `/health/ready`")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::ready_entry))
            .handled_by(|rest, request| Box::pin(inference::ready(rest, request))),
        Operation::get("/v2/models/stats", "inferenceStatistics", "Statistics of all models")
            .details("of requests over this protocol")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::statistics_entry))
            .handled_by(|rest, request| Box::pin(inference::statistics(rest, request))),
        Operation::get("/v2/models/{*name}", "inferenceModel", "Describes a model")
            .details("slashes in the id can be dots")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_entry))
            .handled_by(|rest, request| Box::pin(inference::model(rest, request))),
        Operation::get("/v2/models/{*name}/ready", "inferenceModelReady", "Readiness of a model")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_ready_entry))
            .handled_by(|rest, request| Box::pin(inference::model_ready(rest, request))),
        Operation::get("/v2/models/{*name}/config", "inferenceModelConfig", "Configuration of a model")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_config_entry))
            .handled_by(|rest, request| Box::pin(inference::model_config(rest, request))),
        Operation::get("/v2/models/{*name}/stats", "inferenceModelStatistics", "Statistics of a model")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_statistics_entry))
            .handled_by(|rest, request| Box::pin(inference::model_statistics(rest, request))),
        Operation::post("/v2/models/{*name}/infer", "infer", "Runs a model")
            .details("JSON, or JSON and binary data")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::infer_entry))
            .handled_by(|rest, request| Box::pin(inference::infer(rest, request))),
        Operation::get("/v2/models/{*name}/versions/{version}", "inferenceModelOfVersion", "Describes a model in a version")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_entry))
            .handled_by(|rest, request| Box::pin(inference::model(rest, request))),
        Operation::get("/v2/models/{*name}/versions/{version}/ready", "inferenceModelReadyOfVersion", "Readiness of a model in a version")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_ready_entry))
            .handled_by(|rest, request| Box::pin(inference::model_ready(rest, request))),
        Operation::get("/v2/models/{*name}/versions/{version}/config", "inferenceModelConfigOfVersion", "Configuration of a model in a version")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_config_entry))
            .handled_by(|rest, request| Box::pin(inference::model_config(rest, request))),
        Operation::get("/v2/models/{*name}/versions/{version}/stats", "inferenceModelStatisticsOfVersion", "Statistics of a model in a version")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::model_statistics_entry))
            .handled_by(|rest, request| Box::pin(inference::model_statistics(rest, request))),
        Operation::post("/v2/models/{*name}/versions/{version}/infer", "inferOfVersion", "Runs a model in a version")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::infer_entry))
            .handled_by(|rest, request| Box::pin(inference::infer(rest, request))),
        Operation::post("/v2/repository/index", "inferenceIndex", "Lists models")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::index_entry))
            .handled_by(|rest, request| Box::pin(inference::index(rest, request))),
        Operation::post("/v2/repository/models/{*name}/load", "inferenceLoad", "Loads a model")
            .details("off by default; makes a model available again that was unloaded")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::load_entry))
            .handled_by(|rest, request| Box::pin(inference::load(rest, request))),
        Operation::post("/v2/repository/models/{*name}/unload", "inferenceUnload", "Unloads a model")
            .details("off by default; for this protocol alone: its kernel still runs for others")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_model)
            .openapi(Once(INFERENCE, inference::load_entry))
            .handled_by(|rest, request| Box::pin(inference::unload(rest, request))),
        Operation::get("/v2/systemsharedmemory/status", "inferenceRegions", "Lists regions of shared memory")
            .details("off by default, and for clients on a loopback address, here and below")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::region_status_entry))
            .handled_by(|rest, request| Box::pin(inference::shared_memory_status(rest, request))),
        Operation::get("/v2/systemsharedmemory/region/{name}/status", "inferenceRegion", "Describes a region of shared memory")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::region_status_entry))
            .handled_by(|rest, request| Box::pin(inference::shared_memory_status(rest, request))),
        Operation::post("/v2/systemsharedmemory/region/{name}/register", "inferenceRegister", "Registers a region of shared memory")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::register_region_entry))
            .handled_by(|rest, request| Box::pin(inference::register_shared_memory(rest, request))),
        Operation::post("/v2/systemsharedmemory/region/{name}/unregister", "inferenceUnregister", "Removes a region of shared memory")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::unregister_region_entry))
            .handled_by(|rest, request| Box::pin(inference::unregister_shared_memory(rest, request))),
        Operation::post("/v2/systemsharedmemory/unregister", "inferenceUnregisterAll", "Removes all regions of shared memory")
            .enabled_if(|state| state.inference_enabled)
            .openapi(Once(INFERENCE, inference::unregister_region_entry))
            .handled_by(|rest, request| Box::pin(inference::unregister_shared_memory(rest, request))),
        Operation::get("/v2/cudasharedmemory/{*path}", "getCudaSharedMemory", "Rejects CUDA shared memory")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_cuda_shared_memory)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(inference::cuda_shared_memory(rest, request))),
        Operation::post("/v2/cudasharedmemory/{*path}", "postCudaSharedMemory", "Rejects CUDA shared memory")
            .enabled_if(|state| state.inference_enabled)
            .check_resource(inference::check_cuda_shared_memory)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(inference::cuda_shared_memory(rest, request))),
        Operation::get("/metrics", "metrics", "Prometheus metrics")
            .details("the text format, or OpenMetrics if `Accept` prefers that; gzip if `Accept-Encoding` allows it")
            .enabled_if(|state| state.config.enable_metrics && state.metrics.is_some())
            .openapi(Once(SERVER, metrics::entry))
            .handled_by(|rest, request| Box::pin(metrics::metrics(rest, request))),
        Operation::get("/openapi.json", "openapi", "OpenAPI 3.1 document")
            .details("has the schemas of all kernels")
            .enabled_if(|state| state.openapi_enabled)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(openapi::openapi(rest, request))),
        #[cfg(feature = "docs")]
        Operation::get("/docs", "docs", "Redirects to `/docs/`")
            .details("with the feature `docs`")
            .enabled_if(|state| state.openapi_enabled)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(docs::redirect(rest, request))),
        #[cfg(feature = "docs")]
        Operation::get("/docs/", "docsPage", "Swagger UI")
            .details("with the feature `docs`")
            .enabled_if(|state| state.openapi_enabled)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(docs::page(rest, request))),
        #[cfg(feature = "docs")]
        Operation::get("/docs/{file}", "docsFile", "Files of Swagger UI")
            .details("with the feature `docs`")
            .enabled_if(|state| state.openapi_enabled)
            .check_resource(docs::check_file)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(docs::file(rest, request))),
        #[cfg(feature = "docs")]
        Operation::get("/", "root", "Redirects to `/docs/`")
            .details("with the feature `docs`; a route of the program at this path takes precedence")
            .enabled_if(|state| state.openapi_enabled)
            .check_resource(docs::check_root)
            .openapi(Hidden)
            .handled_by(|rest, request| Box::pin(docs::root(rest, request))),
    ];
}

/// All operations. They do not depend on the types of the service and of the bodies.
fn operations() -> impl Iterator<Item = &'static Operation> {
    Routes::<KernelService<Local>, Empty<Bytes>>::ALL.iter().map(|route| &route.operation)
}

/// The operations that a server with this state has.
pub(crate) fn enabled_operations(state: &RestState) -> impl Iterator<Item = &'static Operation> {
    operations().filter(|operation| (operation.is_enabled)(state))
}

/// The methods of all operations.
#[cfg(feature = "axum")]
pub(crate) fn all_methods() -> BTreeSet<&'static str> {
    operations().map(|operation| operation.method).collect()
}

#[cfg(all(test, feature = "docs"))]
mod tests {
    use std::fmt::Write;

    use super::*;

    /// `TOWER_KERNELS_BLESS=1` writes the file.
    #[test]
    fn the_documented_routes_are_those_of_the_table() {
        let mut table = String::from("| method | path | purpose |\n|---|---|---|\n");
        for operation in operations() {
            let prefix = if operation.is_prefixed { "{prefix}" } else { "" };
            let path = operation.path.replace("{*", "{");
            let details = if operation.details.is_empty() { "" } else { ": " };
            let purpose = [operation.summary, details, operation.details].concat();
            writeln!(table, "| {} | `{prefix}{path}` | {purpose} |", operation.method).unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/servers/http/routes/routes.md");
        if std::env::var_os("TOWER_KERNELS_BLESS").is_some() {
            std::fs::write(path, &table).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap(), table, "see this test's comment");
    }
}
