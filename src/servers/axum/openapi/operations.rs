//! What each route does, as OpenAPI's path items.

use serde_json::{Map, Value, json};

use super::super::health::{Health, Probe};
use super::super::kernels::{Filter, Page};
use super::responses::{answer, reference, refusals, responses};
use super::schemas::{Schemas, TENSORS_IN, TENSORS_OUT, name_of};
use crate::middleware::metrics::Format;
use crate::servers::http::{HEAD_LENGTH, OCTETS};
use crate::service::{ExecuteRequest, ExecuteResponse, RegisteredKernel};

/// Tags of operations that belong to no domain of kernels.
pub(super) const KERNELS: &str = "kernels";
pub(super) const SERVER: &str = "server";

fn content(json: &Value) -> Value {
    json!({ "application/json": { "schema": json } })
}

/// The content of a body that is a kernel's input or output, or a document around one: JSON, or tensors after a head.
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
        "summary": "The kernels, by id",
        "tags": [KERNELS],
        "parameters": parameters,
        "responses": responses(200, answer("A page of them.", content(&page)), [400, 500]),
    }})
}

pub(super) fn describe(kernel: &RegisteredKernel, description: &Value) -> Value {
    let info = kernel.info();
    json!({ "get": {
        "operationId": format!("describe.{}", name_of(&info.id)),
        "summary": format!("What {} is", info.id),
        "tags": [info.domain()],
        "parameters": headers(&["x-request-id"]),
        "responses": responses(200, answer("Its description.", content(description)), [500]),
    }})
}

/// Runs any kernel. The example is of the first that has one.
pub(super) fn execute(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let (request, response) = (schemas.read::<ExecuteRequest<'_>>(), schemas.written::<ExecuteResponse>());
    let mut operation = execution("execute", "Runs the kernel that the document names", KERNELS, &request, &response);
    let example = kernels.iter().filter(|kernel| kernel.is_batch()).find_map(|kernel| {
        let input = kernel.input_schema().get("examples")?.get(0)?;
        Some(json!({ "kernel_id": kernel.info().id, "input": input }))
    });
    if let Some(example) = example {
        operation["requestBody"]["content"]["application/json"]["example"] = example;
    }
    json!({ "post": operation })
}

/// Runs this one.
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

fn execution(id: &str, summary: &str, tag: &str, request: &Value, response: &Value) -> Value {
    // 405 is for what has no operation.
    let refused = refusals().map(|(status, _)| status).filter(|status| *status != 405);
    let output = content_or_tensors(response, TENSORS_OUT);
    let mut answered = answer("The output, and how it came about, in the form that the input had.", output);
    answered["headers"][HEAD_LENGTH.as_str()] = reference("headers", HEAD_LENGTH.as_str());
    let names = ["x-request-id", "traceparent", "tracestate", "grpc-timeout", "connect-timeout-ms"];
    json!({
        "operationId": id,
        "summary": summary,
        "tags": [tag],
        "parameters": headers(&[&names[..], &[HEAD_LENGTH.as_str()]].concat()),
        "requestBody": { "required": true, "content": content_or_tensors(request, TENSORS_IN) },
        "responses": responses(200, answered, refused),
    })
}

pub(super) fn health(schemas: &mut Schemas) -> Value {
    let health = content(&schemas.written::<Health>());
    let mut operation = server("health", "Server health", answer("It works.", health.clone()), &[]);
    operation["get"]["responses"]["503"] = answer("It does not.", health);
    operation
}

pub(super) fn live(schemas: &mut Schemas) -> Value {
    let probe = content(&schemas.written::<Probe>());
    server("live", "Whether the server answers", answer("It does.", probe), &[])
}

pub(super) fn ready(schemas: &mut Schemas) -> Value {
    let probe = content(&schemas.written::<Probe>());
    server("ready", "Whether to send the server more", answer("Yes.", probe), &[503])
}

pub(super) fn metrics() -> Value {
    let page = |format: Format| (format.content_type().to_owned(), json!({ "schema": { "type": "string" } }));
    let pages: Value = [Format::Text, Format::OpenMetrics].map(page).into_iter().collect();
    let description = "In the format that `Accept` prefers, the first where it prefers none.";
    server("metrics", "What the server has counted, for Prometheus", answer(description, pages), &[500])
}

fn server(id: &str, summary: &str, ok: Value, refused: &[u16]) -> Value {
    let operation: Map<String, Value> = [
        ("operationId", id.into()),
        ("summary", summary.into()),
        ("tags", json!([SERVER])),
        ("parameters", headers(&["x-request-id"]).into()),
        ("responses", responses(200, ok, refused.iter().copied())),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect();
    json!({ "get": operation })
}
