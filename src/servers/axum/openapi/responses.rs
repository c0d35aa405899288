//! What goes with every operation: headers, and the responses that refuse.

use http::StatusCode;
use serde_json::{Map, Value, json};

use super::schemas::Schemas;
use crate::error::ErrorKind;
use crate::error::problem::{CONTENT_TYPE, HTTP_ONLY_CODES, ProblemDocument, has_retry_after, title};
use crate::servers::http::HEAD_LENGTH;

/// Refusals of a kind, and those that are HTTP's alone.
pub(super) fn refusals() -> impl Iterator<Item = (u16, &'static str)> {
    let kinds = ErrorKind::ALL.into_iter().map(|kind| (kind.http_status(), kind.code()));
    kinds.chain(HTTP_ONLY_CODES.map(|(status, code)| (status.as_u16(), code)))
}

/// `responses` of an operation: what it answers, and references to these refusals.
pub(super) fn responses(status: u16, answer: Value, refused: impl IntoIterator<Item = u16>) -> Value {
    let refused = refused.into_iter().map(|status| (status.to_string(), problem(status)));
    let answered = (status.to_string(), answer);
    Value::Object(std::iter::once(answered).chain(refused).collect())
}

/// An answer with a body of this content, under the request's id.
pub(super) fn answer(description: &str, content: Value) -> Value {
    json!({ "description": description, "headers": { "x-request-id": reference("headers", "x-request-id") }, "content": content })
}

pub(super) fn reference(components: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{components}/{name}") })
}

/// A refusal with this status.
pub(super) fn problem(status: u16) -> Value {
    reference("responses", &name(status))
}

fn name(status: u16) -> String {
    format!("Problem{status}")
}

/// `components/responses`: one for each status, with the codes that it comes with.
pub(super) fn components(schemas: &mut Schemas) -> Value {
    let problem = schemas.written::<ProblemDocument>();
    let mut components = Map::new();
    for (status, _) in refusals() {
        let codes: Vec<_> = refusals().filter(|(this, _)| *this == status).map(|(_, code)| code).collect();
        let schema = json!({
            "allOf": [problem, { "properties": { "status": { "const": status }, "code": { "enum": codes } } }],
        });
        let known = StatusCode::from_u16(status).expect("the table holds statuses");
        let description = format!("{}: {}.", title(known), codes.join(" or "));
        let mut response = answer(&description, json!({ (CONTENT_TYPE): { "schema": schema } }));
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
    let mut head_length = header("Of tensors: how many bytes of the body are JSON.", json!({ "type": "integer" }));
    head_length["required"] = false.into();
    json!({
        (HEAD_LENGTH.as_str()): head_length,
        "x-request-id": header("The request's own, or one that was made.", json!({ "type": "string" })),
        "retry-after": header("When to come back, in seconds.", json!({ "type": "integer", "minimum": 0 })),
        "allow": header("The methods that the path takes.", json!({ "type": "string" })),
        "www-authenticate": header("How to authenticate.", json!({ "type": "string" })),
    })
}

/// `components/parameters`: headers of requests.
pub(super) fn parameters() -> Value {
    let head_length = HEAD_LENGTH;
    let parameters = [
        ("x-request-id", "Names the request in its answer, where it is of 1 to 128 visible ASCII characters.", None),
        ("traceparent", "The trace that the request belongs to, as W3C Trace Context has it.", None),
        ("tracestate", "What vendors say of the trace.", None),
        (
            "grpc-timeout",
            "How long the answer is of use: a number and a unit, of H, M, S, m, u and n.",
            Some("^[0-9]{1,8}[HMSmun]$"),
        ),
        ("connect-timeout-ms", "How long the answer is of use, in milliseconds.", Some("^[0-9]{1,10}$")),
        // A JSON body may come with any: it is not looked at.
        (
            head_length.as_str(),
            "Of tensors, which cannot be without it: how many bytes of the body are JSON. In digits.",
            None,
        ),
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
