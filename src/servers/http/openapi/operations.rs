//! Parts of operations: parameters, contents of bodies, responses.

use serde_json::{Value, json};

use super::responses::{reference, responses};
use crate::servers::http::OCTETS;

/// Content of a JSON body with this schema.
pub(crate) fn json_content(schema: &Value) -> Value {
    json!({ "application/json": { "schema": schema } })
}

/// Content of a body with the input or output of a kernel: JSON, or tensors.
pub(crate) fn content_or_tensors(schema: &Value, tensors: &str) -> Value {
    let mut content = json_content(schema);
    content[OCTETS] = json!({ "schema": reference("schemas", tensors) });
    content
}

/// Parameters: these headers of the request.
pub(crate) fn headers(names: &[&str]) -> Vec<Value> {
    names.iter().map(|name| reference("parameters", name)).collect()
}

/// An operation without query and body, with its successful response and the statuses of its errors.
pub(crate) fn without_body(success: Value, errors: &[u16]) -> Value {
    json!({
        "parameters": headers(&["x-request-id"]),
        "responses": responses(200, success, errors.iter().copied()),
    })
}
