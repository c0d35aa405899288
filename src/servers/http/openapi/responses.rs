//! Headers and error responses of the operations.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::error::ErrorKind;
use crate::error::problem::{CONTENT_TYPE, HTTP_ONLY_CODES, ProblemDocument, has_retry_after, title};
use crate::servers::http::HEAD_LENGTH;

/// Statuses and codes of all errors.
pub(crate) fn error_statuses() -> impl Iterator<Item = (u16, &'static str)> {
    let kinds = ErrorKind::ALL.into_iter().map(|kind| (kind.http_status(), kind.code()));
    kinds.chain(HTTP_ONLY_CODES.map(|(status, code)| (status.as_u16(), code)))
}

/// `responses` of an operation: its success, and references to these errors.
pub(crate) fn responses(status: u16, success: Value, errors: impl IntoIterator<Item = u16>) -> Value {
    let errors = errors.into_iter().map(|status| (status.to_string(), problem(status)));
    let success = (status.to_string(), success);
    Value::Object(std::iter::once(success).chain(errors).collect())
}

/// A response with this content and the `x-request-id` header.
pub(crate) fn response(description: &str, content: Value) -> Value {
    json!({ "description": description, "headers": { "x-request-id": reference("headers", "x-request-id") }, "content": content })
}

pub(crate) fn reference(components: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{components}/{name}") })
}

/// A reference to the error response of this status.
pub(super) fn problem(status: u16) -> Value {
    reference("responses", &name(status))
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

/// `components/responses`: one for each error status, with its codes.
pub(super) fn components(schemas: &mut Schemas) -> Value {
    let problem = schemas.written::<ProblemDocument>();
    let mut components = Map::new();
    for (status, _) in error_statuses() {
        let codes: Vec<_> = error_statuses().filter(|(this, _)| *this == status).map(|(_, code)| code).collect();
        let schema = json!({
            "allOf": [problem, { "properties": { "status": { "const": status }, "code": { "enum": codes } } }],
        });
        let known = StatusCode::from_u16(status).expect("the table holds statuses");
        let description = format!("{}: {}.", title(known), codes.join(" or "));
        let mut response = response(&description, json!({ (CONTENT_TYPE): { "schema": schema } }));
        if has_retry_after(known) {
            response["headers"]["retry-after"] = reference("headers", "retry-after");
        }
        if known == StatusCode::METHOD_NOT_ALLOWED {
            response["headers"]["allow"] = reference("headers", "allow");
        }
        if known == StatusCode::UNAUTHORIZED {
            response["headers"]["www-authenticate"] = reference("headers", "www-authenticate");
        }
        components.insert(name(status), response);
    }
    Value::Object(components)
}

/// `components/headers`.
pub(super) fn headers() -> Value {
    let header =
        |description: &str, schema: Value| json!({ "description": description, "required": true, "schema": schema });
    let mut head_length = header("Length in bytes of the JSON before the tensors.", json!({ "type": "integer" }));
    head_length["required"] = false.into();
    json!({
        (HEAD_LENGTH.as_str()): head_length,
        "x-request-id": header("The id of the request, or a generated one.", json!({ "type": "string" })),
        "retry-after": header("Seconds to wait before retrying.", json!({ "type": "integer", "minimum": 0 })),
        "allow": header("Methods of the path.", json!({ "type": "string" })),
        "www-authenticate": header("How to authenticate.", json!({ "type": "string" })),
    })
}

/// `components/parameters`: headers of requests.
pub(super) fn parameters() -> Value {
    let head_length = HEAD_LENGTH;
    let parameters = [
        ("x-request-id", "Id of the request, which the response repeats: 1 to 128 visible ASCII characters.", None),
        ("traceparent", "W3C trace context of the request.", None),
        ("tracestate", "Vendor-specific trace context.", None),
        (
            "grpc-timeout",
            "Timeout: 1 to 8 digits and a unit, one of H, M, S, m, u and n.",
            Some("^[0-9]{1,8}[HMSmun]$"),
        ),
        ("connect-timeout-ms", "Timeout in milliseconds.", Some("^[0-9]{1,10}$")),
        // Ignored with a JSON body, so any value is allowed.
        (head_length.as_str(), "Length in bytes of the JSON before the tensors. Required with tensors.", None),
    ];
    let parameter = |(name, description, pattern): (&str, &str, Option<&str>)| {
        let mut schema = json!({ "type": "string" });
        if let Some(pattern) = pattern {
            schema["pattern"] = pattern.into();
        }
        (name.to_owned(), json!({ "name": name, "in": "header", "description": description, "schema": schema }))
    };
    Value::Object(parameters.into_iter().map(parameter).collect())
}
