//! `POST /execute` and `POST /kernels/{id}/execute`: run a kernel.

use http::request::Parts;
use http::{Method, Response};
use serde_json::{Value, json};

use super::kernels;
use crate::middleware::tracing::RequestScope;
use crate::servers::http::openapi::{
    Schemas, TENSORS_IN, TENSORS_OUT, content_or_tensors, error_statuses, headers, reference, response, responses,
};
use crate::servers::http::route::{Params, RequestBody, RestRequest, RestService};
use crate::servers::http::{HEAD_LENGTH, Problem, ResponseBody, Rest, RestState, Target, execute};
use crate::service::{ExecuteRequest, ExecuteResponse, KernelError, RegisteredKernel};

/// Runs the kernel that the document names.
pub(super) async fn execute_document<S: RestService, B: RequestBody>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    execute_target(rest, request, Target::Document).await
}

/// Runs the kernel of the path on the body.
pub(super) async fn execute_kernel<S: RestService, B: RequestBody>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let id = request.params.get("id");
    if rest.state.registry.get(id).is_none() {
        request.head.extensions.get::<RequestScope>().into_iter().for_each(|scope| scope.set_kernel(id));
        let problem = kernels::unknown(id);
        rest.state.outcomes.record(Some(&problem));
        return Err(problem);
    }
    let target = Target::Input(id.to_owned());
    execute_target(rest, request, target).await
}

async fn execute_target<S: RestService, B: RequestBody>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
    target: Target,
) -> Result<Response<ResponseBody>, Problem> {
    let RestRequest { head, request_id, body, .. } = request;
    let result = execute(rest.service, head, request_id, target, body, &rest.state).await;
    rest.state.outcomes.record(result.as_ref().err());
    result.map(|output| output.into_response(request_id))
}

/// Checks that a kernel has the id in the path. For a POST the handler does so, and counts the failure.
pub(super) fn check_id(state: &RestState, head: &Parts, params: &Params) -> Result<(), Problem> {
    if head.method == Method::POST { Ok(()) } else { kernels::check_id(state, head, params) }
}

/// OpenAPI: any kernel. The example is that of the first kernel that has one.
pub(super) fn document_entry(schemas: &mut Schemas, kernels: &[RegisteredKernel]) -> Value {
    let (request, output) = (schemas.read::<ExecuteRequest<'_>>(), schemas.written::<ExecuteResponse>());
    let mut operation = execution(&request, &output);
    let example = kernels.iter().filter(|kernel| kernel.is_batch()).find_map(|kernel| {
        let input = kernel.input_schema().get("examples")?.get(0)?;
        Some(json!({ "kernel_id": kernel.info().id, "input": input }))
    });
    if let Some(example) = example {
        operation["requestBody"]["content"]["application/json"]["example"] = example;
    }
    operation
}

/// OpenAPI: this kernel, unless it is a ring kernel, which cannot be executed.
pub(super) fn kernel_entry(schemas: &mut Schemas, kernel: &RegisteredKernel) -> Result<Option<Value>, KernelError> {
    if !kernel.is_batch() {
        return Ok(None);
    }
    let info = kernel.info();
    let (input, output) = schemas.kernel(kernel)?;
    let response = schemas.written::<ExecuteResponse>();
    let response = json!({ "allOf": [response, { "properties": { "output": output } }] });
    let mut operation = execution(&input, &response);
    operation["summary"] = info.description.to_string().into();
    if !info.aliases.is_empty() {
        operation["description"] = format!("Also known as {}.", info.aliases.join(", ")).into();
    }
    Ok(Some(operation))
}

fn execution(request: &Value, output: &Value) -> Value {
    // Methods that respond with 405 have no operation.
    let errors = error_statuses().map(|(status, _)| status).filter(|status| *status != 405);
    let output = content_or_tensors(output, TENSORS_OUT);
    let description = "Output and execution metadata, in the format of the request: JSON or tensors.";
    let mut ok = response(description, output);
    ok["headers"][HEAD_LENGTH.as_str()] = reference("headers", HEAD_LENGTH.as_str());
    let names = ["x-request-id", "traceparent", "tracestate", "grpc-timeout", "connect-timeout-ms"];
    json!({
        "parameters": headers(&[&names[..], &[HEAD_LENGTH.as_str()]].concat()),
        "requestBody": { "required": true, "content": content_or_tensors(request, TENSORS_IN) },
        "responses": responses(200, ok, errors),
    })
}
