//! OpenAPI path items of the routes.

use serde_json::{Map, Value, json};

use super::super::health::{Health, Probe};
use super::super::kernels::{Filter, Page};
use super::responses::{error_statuses, reference, response, responses};
use super::schemas::{Schemas, TENSORS_IN, TENSORS_OUT, name_of};
use crate::middleware::metrics::Format;
use crate::servers::http::{HEAD_LENGTH, OCTETS};
use crate::service::{ExecuteRequest, ExecuteResponse, RegisteredKernel};

/// Tags of operations that do not belong to a domain of kernels.
pub(super) const KERNELS: &str = "kernels";
pub(super) const SERVER: &str = "server";

fn content(json: &Value) -> Value {
    json!({ "application/json": { "schema": json } })
}

/// Content of a body with the input or output of a kernel: JSON, or tensors.
fn content_or_tensors(json: &Value, tensors: &str) -> Value {
    let mut content = content(json);
    content[OCTETS] = json!({ "schema": reference("schemas", tensors) });
    content
}

fn headers(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| reference("parameters", name)).collect()
}

pub(super) fn list(schemas: &mut Schemas) -> Value {
    let mut parameters = headers(&["x-request-id"]);
    parameters.extend(schemas.query::<Filter>());
    let page = schemas.written::<Page<'_>>();
    json!({ "get": {
        "operationId": "listKernels",
        "summary": "Lists kernels by id",
        "tags": [KERNELS],
        "parameters": parameters,
        "responses": responses(200, response("A page of kernels.", content(&page)), [400, 500]),
    }})
}

pub(super) fn describe(kernel: &RegisteredKernel, description: &Value) -> Value {
    let info = kernel.info();
    json!({ "get": {
        "operationId": format!("describe.{}", name_of(&info.id)),
        "summary": format!("Describes {}", info.id),
        "tags": [info.domain()],
        "parameters": headers(&["x-request-id"]),
        "responses": responses(200, response("Description of the kernel.", content(description)), [500]),
    }})
}

/// Runs any kernel. The example is that of the first kernel that has one.
pub(super) fn execute(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let (request, output) = (schemas.read::<ExecuteRequest<'_>>(), schemas.written::<ExecuteResponse>());
    let mut operation = execution("execute", "Runs a kernel", KERNELS, &request, &output);
    let example = kernels.iter().filter(|kernel| kernel.is_batch()).find_map(|kernel| {
        let input = kernel.input_schema().get("examples")?.get(0)?;
        Some(json!({ "kernel_id": kernel.info().id, "input": input }))
    });
    if let Some(example) = example {
        operation["requestBody"]["content"]["application/json"]["example"] = example;
    }
    json!({ "post": operation })
}

/// Runs this kernel.
pub(super) fn execute_kernel(kernel: &RegisteredKernel, input: &Value, output: &Value, response: &Value) -> Value {
    let info = kernel.info();
    let id = format!("execute.{}", name_of(&info.id));
    let response = json!({ "allOf": [response, { "properties": { "output": output } }] });
    let mut operation = execution(&id, &info.description, info.domain(), input, &response);
    if !info.aliases.is_empty() {
        operation["description"] = format!("Also known as {}.", info.aliases.join(", ")).into();
    }
    json!({ "post": operation })
}

fn execution(id: &str, summary: &str, tag: &str, request: &Value, output: &Value) -> Value {
    // Methods that respond with 405 have no operation.
    let errors = error_statuses().map(|(status, _)| status).filter(|status| *status != 405);
    let output = content_or_tensors(output, TENSORS_OUT);
    let description = "Output and execution metadata, in the format of the request: JSON or tensors.";
    let mut ok = response(description, output);
    ok["headers"][HEAD_LENGTH.as_str()] = reference("headers", HEAD_LENGTH.as_str());
    let names = ["x-request-id", "traceparent", "tracestate", "grpc-timeout", "connect-timeout-ms"];
    json!({
        "operationId": id,
        "summary": summary,
        "tags": [tag],
        "parameters": headers(&[&names[..], &[HEAD_LENGTH.as_str()]].concat()),
        "requestBody": { "required": true, "content": content_or_tensors(request, TENSORS_IN) },
        "responses": responses(200, ok, errors),
    })
}

pub(super) fn health(schemas: &mut Schemas) -> Value {
    let health = content(&schemas.written::<Health>());
    let mut operation = server("health", "Server health", response("Healthy or degraded.", health.clone()), &[]);
    operation["get"]["responses"]["503"] = response("Unhealthy.", health);
    operation
}

pub(super) fn live(schemas: &mut Schemas) -> Value {
    let probe = content(&schemas.written::<Probe>());
    server("live", "Liveness probe", response("Alive.", probe), &[])
}

pub(super) fn ready(schemas: &mut Schemas) -> Value {
    let probe = content(&schemas.written::<Probe>());
    server("ready", "Readiness probe", response("Ready.", probe), &[503])
}

pub(super) fn metrics() -> Value {
    let page = |format: Format| (format.content_type().to_owned(), json!({ "schema": { "type": "string" } }));
    let pages: Value = [Format::Text, Format::OpenMetrics].map(page).into_iter().collect();
    let description = "In the format that `Accept` prefers, or else the first.";
    server("metrics", "Prometheus metrics", response(description, pages), &[500])
}

fn server(id: &str, summary: &str, ok: Value, errors: &[u16]) -> Value {
    let operation: Map<String, Value> = [
        ("operationId", id.into()),
        ("summary", summary.into()),
        ("tags", json!([SERVER])),
        ("parameters", headers(&["x-request-id"]).into()),
        ("responses", responses(200, ok, errors.iter().copied())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    json!({ "get": operation })
}
