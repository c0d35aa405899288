//! `/operands`: stores, lists, describes and removes operands.

use bytes::Bytes;
use http::header::{ETAG, IF_MATCH, IF_NONE_MATCH, LOCATION};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ErrorKind;
use crate::request::metadata::{HeaderFormat, RequestMetadata, parse_tenant};
use crate::request::request_id::RequestId;
use crate::servers::http::openapi::{
    Schemas, TENSORS_IN, content_or_tensors, headers, json_content, response, responses,
};
use crate::servers::http::route::{RequestBody, RestRequest, RestService};
use crate::servers::http::{HEAD_LENGTH, Problem, ResponseBody, Rest, document, read_payload};
use crate::servers::operands::{NewOperand, find_operand, remove_operand, store_operand};
use crate::service::{
    InvalidInput, OperandInfo, OperandVersion, Operands, Placement, PutCondition, PutOptions, RemoveOptions,
    operand_name_schema, operand_version_schema,
};

/// Query of a PUT.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PutQuery {
    /// Type of the operand.
    r#type: String,
    /// Whether other tenants may use it. Default: false.
    #[serde(default)]
    public: bool,
    /// On which devices it is from the start. Default: on those of the requests on it, from the first on.
    #[serde(default)]
    placement: Placement,
    /// Tenant whose operand it is, unless the credentials have one.
    tenant: Option<String>,
}

/// Query of the requests for one operand.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TenantQuery {
    /// Tenant of the request, unless the credentials have one.
    tenant: Option<String>,
}

/// Query of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// `next` of the previous page.
    after: Option<String>,
    /// Maximum number of operands on a page; default 100.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    limit: Option<usize>,
    /// Tenant of the request, unless the credentials have one.
    tenant: Option<String>,
}

/// Default number of operands on a page.
const DEFAULT_LIMIT: usize = 100;
/// Maximum number of operands on a page.
const MAX_LIMIT: usize = 1000;

/// A page of operands, by name.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "OperandPage")]
pub(super) struct Page {
    operands: Vec<OperandInfo>,
    /// Number of operands on all pages.
    total: usize,
    /// `after` of the next page. Missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// Stores the body as the newest version of an operand.
pub(super) async fn put<S: RestService, B: RequestBody>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let query: PutQuery = request.query()?;
    let RestRequest { head, request_id, params, body } = request;
    let mut metadata = metadata(head, query.tenant.as_deref())?;
    let limits = &rest.state.limits;
    let deadline = metadata.limit_timeout(limits.operand_timeout);
    let options = PutOptions {
        tenant: metadata.tenant,
        public: query.public,
        condition: condition(&head.headers)?,
        placement: query.placement,
    };
    let name = params.get("name").to_owned();
    let operands = rest.state.registry.operands().clone();
    // Before the body is read.
    operands.check_put(&name, &query.r#type, &options).map_err(|error| Problem::of(&error))?;
    let memory = limits.memory.reservation(limits.max_response_size);
    let reservation = operands.reservation(&options);
    let payload = read_payload(head, body, limits.max_operand_size, deadline, &memory, &reservation).await?;
    let operand = NewOperand { name, type_name: query.r#type, options, payload, reservation };
    let storing = store_operand(operands, operand, Some(deadline), Some(memory));
    let stored = storing.await.map_err(|error| Problem::of(&error))?;
    let mut response = describe_version(request_id, StatusCode::CREATED, &stored)?;
    let location = rest.state.config.path(&format!("/operands/{}", stored.name()));
    response.headers_mut().insert(LOCATION, header_value(&location)?);
    Ok(response)
}

pub(super) async fn list<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    let query: ListQuery = request.query()?;
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(InvalidInput::new("limit", "it is not between 1 and 1000").into());
    }
    let tenant = metadata(request.head, query.tenant.as_deref())?.tenant;
    let all = rest.state.registry.operands().list(tenant.as_deref());
    let total = all.len();
    // By name and not by number, so that operands that are stored in the meantime do not shift pages.
    let mut left =
        all.into_iter().skip_while(|operand| query.after.as_ref().is_some_and(|after| operand.name <= *after));
    let operands: Vec<OperandInfo> = left.by_ref().take(limit).collect();
    let next = operands.last().map(|last| last.name.clone()).filter(|_| left.next().is_some());
    request.json(StatusCode::OK, &Page { operands, total, next })
}

pub(super) async fn describe<S, B>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let query: TenantQuery = request.query()?;
    let tenant = metadata(request.head, query.tenant.as_deref())?.tenant;
    let reference = request.params.get("name");
    let found = find_operand(rest.state.registry.operands(), tenant.as_deref(), reference);
    let found = found.map_err(|error| Problem::of(&error))?;
    let known = entity_tags(&request.head.headers, &IF_NONE_MATCH)?;
    let is_known = known.is_some_and(|known| match known {
        EntityTags::Any => true,
        EntityTags::These(tags) => tags.iter().any(|tag| tag == found.tag()),
    });
    let status = if is_known { StatusCode::NOT_MODIFIED } else { StatusCode::OK };
    let mut response = describe_version(request.request_id, status, &found)?;
    if is_known {
        *response.body_mut() = ResponseBody::from(Bytes::new());
    }
    Ok(response)
}

pub(super) async fn remove<S, B>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let query: TenantQuery = request.query()?;
    let options = RemoveOptions {
        tenant: metadata(request.head, query.tenant.as_deref())?.tenant,
        condition: condition(&request.head.headers)?,
    };
    let removed = remove_operand(rest.state.registry.operands(), request.params.get("name"), options).await;
    let removed = removed.map_err(|error| Problem::of(&error))?;
    describe_version(request.request_id, StatusCode::OK, &removed)
}

/// Responds with a version and its entity tag.
fn describe_version(
    request_id: &RequestId,
    status: StatusCode,
    version: &OperandVersion,
) -> Result<Response<ResponseBody>, Problem> {
    let json = serde_json::to_vec(&version.info());
    let json = json.map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))?;
    let mut response = document(status, "application/json", json.into(), request_id);
    response.headers_mut().insert(ETAG, header_value(version.tag())?);
    Ok(response)
}

fn header_value(text: &str) -> Result<HeaderValue, Problem> {
    HeaderValue::try_from(text).map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))
}

/// Reads the metadata of the headers. The tenant of the credentials takes precedence over that of the query.
fn metadata(head: &Parts, tenant: Option<&str>) -> Result<RequestMetadata, Problem> {
    let metadata = RequestMetadata::from_headers(&head.headers, &head.extensions, HeaderFormat::Rest);
    let mut metadata = metadata.map_err(InvalidInput::from)?;
    if let (None, Some(tenant)) = (&metadata.tenant, tenant) {
        metadata.tenant = parse_tenant(tenant).map_err(InvalidInput::from)?;
    }
    Ok(metadata)
}

/// The condition of a request that changes an operand.
fn condition(headers: &HeaderMap) -> Result<PutCondition, Problem> {
    match (entity_tags(headers, &IF_MATCH)?, entity_tags(headers, &IF_NONE_MATCH)?) {
        (None, None) => Ok(PutCondition::Always),
        (Some(EntityTags::Any), None) => Ok(PutCondition::IfPresent),
        (Some(EntityTags::These(tags)), None) => Ok(PutCondition::IfMatch(tags)),
        (None, Some(EntityTags::Any)) => Ok(PutCondition::IfAbsent),
        (None, Some(EntityTags::These(_))) => {
            Err(InvalidInput::new("if-none-match", "it is not *, which is all that a change can have").into())
        }
        (Some(_), Some(_)) => Err(InvalidInput::new("if-none-match", "there is an if-match already").into()),
    }
}

/// The value of `If-Match` or `If-None-Match`.
enum EntityTags {
    /// `*`.
    Any,
    These(Vec<String>),
}

/// Maximum number of entity tags in a request.
const MAX_TAGS: usize = 64;

fn entity_tags(headers: &HeaderMap, name: &HeaderName) -> Result<Option<EntityTags>, Problem> {
    let invalid =
        || Problem::from(InvalidInput::new(name.as_str(), "it is neither * nor entity tags in quotation marks"));
    let mut tags = Vec::new();
    for value in headers.get_all(name) {
        let value = value.to_str().map_err(|_| invalid())?.trim();
        if value == "*" {
            return Ok(Some(EntityTags::Any));
        }
        // Our tags have no comma in them.
        for tag in value.split(',').map(str::trim) {
            let opaque = tag.strip_prefix("W/").unwrap_or(tag);
            let is_quoted = opaque.len() >= 2 && opaque.starts_with('"') && opaque.ends_with('"');
            if !is_quoted || tags.len() >= MAX_TAGS {
                return Err(invalid());
            }
            tags.push(opaque.to_owned());
        }
    }
    Ok((!tags.is_empty()).then_some(EntityTags::These(tags)))
}

/// OpenAPI: the types and their documents.
pub(super) fn put_entry(schemas: &mut Schemas, operands: &Operands) -> Value {
    let types = operands.types();
    let documents: Vec<Value> = types.iter().map(|(name, schema)| schemas.operand(name, schema)).collect();
    let names: Vec<&str> = types.iter().map(|(name, _)| *name).collect();
    let mut parameters = headers(&["x-request-id", "grpc-timeout", "connect-timeout-ms", HEAD_LENGTH.as_str()]);
    parameters.extend(schemas.query::<PutQuery>().into_iter().map(|mut parameter| {
        if parameter["name"] == "type" {
            parameter["required"] = true.into();
            parameter["schema"]["enum"] = json!(names);
        }
        parameter
    }));
    parameters.extend([conditional("If-Match"), conditional("If-None-Match"), named(operand_name_schema())]);
    let content = content_or_tensors(&json!({ "anyOf": documents }), TENSORS_IN);
    let mut created = with_tag(response("The stored version.", json_content(&schemas.written::<OperandInfo>())));
    created["headers"]["location"] =
        json!({ "description": "The path of the operand.", "schema": { "type": "string" } });
    json!({
        "parameters": parameters,
        "requestBody": { "required": true, "content": content },
        "responses": responses(201, created, [400, 408, 409, 412, 413, 415, 500, 503, 504, 507]),
    })
}

/// OpenAPI: the query and the page.
pub(super) fn list_entry(schemas: &mut Schemas, _: &Operands) -> Value {
    let mut parameters = headers(&["x-request-id"]);
    parameters.extend(schemas.query::<ListQuery>());
    let page = json_content(&schemas.written::<Page>());
    json!({ "parameters": parameters, "responses": responses(200, response("A page of operands.", page), [400, 500]) })
}

/// OpenAPI: an operand.
pub(super) fn describe_entry(schemas: &mut Schemas, _: &Operands) -> Value {
    let mut parameters = headers(&["x-request-id"]);
    parameters.extend(schemas.query::<TenantQuery>());
    parameters.extend([conditional("If-None-Match"), named(operand_version_schema())]);
    let found = with_tag(response("The version.", json_content(&schemas.written::<OperandInfo>())));
    let mut responses = responses(200, found, [400, 404, 500, 503]);
    responses["304"] = json!({ "description": "`If-None-Match` has the entity tag of the version." });
    json!({ "parameters": parameters, "responses": responses })
}

/// OpenAPI: what was removed.
pub(super) fn remove_entry(schemas: &mut Schemas, _: &Operands) -> Value {
    let mut parameters = headers(&["x-request-id"]);
    parameters.extend(schemas.query::<TenantQuery>());
    parameters.extend([conditional("If-Match"), named(operand_version_schema())]);
    let removed = with_tag(response("The version that was removed.", json_content(&schemas.written::<OperandInfo>())));
    json!({ "parameters": parameters, "responses": responses(200, removed, [400, 404, 412, 500, 503]) })
}

/// OpenAPI: the operand in the path.
fn named(schema: Value) -> Value {
    json!({ "name": "name", "in": "path", "required": true, "schema": schema })
}

fn conditional(name: &str) -> Value {
    json!({
        "name": name, "in": "header", "schema": { "type": "string" },
        "description": "Entity tags in quotation marks, or `*` for any version.",
    })
}

fn with_tag(mut response: Value) -> Value {
    response["headers"]["etag"] =
        json!({ "description": "Entity tag of the version.", "schema": { "type": "string" } });
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(headers: &[(&'static str, &'static str)]) -> Result<PutCondition, Problem> {
        let mut map = HeaderMap::new();
        for &(name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        condition(&map)
    }

    #[test]
    fn conditions_are_those_of_http() {
        let tags = |tags: &[&str]| PutCondition::IfMatch(tags.iter().map(|&tag| tag.to_owned()).collect());
        for (headers, expected) in [
            (&[][..], PutCondition::Always),
            (&[("if-match", "*")], PutCondition::IfPresent),
            (&[("if-none-match", " * ")], PutCondition::IfAbsent),
            (&[("if-match", r#""1-a""#)], tags(&[r#""1-a""#])),
            (&[("if-match", r#""1-a" , W/"2-b""#), ("if-match", r#""c""#)], tags(&[r#""1-a""#, r#""2-b""#, r#""c""#])),
        ] {
            assert_eq!(of(headers).unwrap(), expected, "{headers:?}");
        }
        for headers in [
            &[("if-match", "1-a")][..],
            &[("if-match", "\"")],
            &[("if-match", "")],
            &[("if-match", r#""a","#)],
            &[("if-none-match", r#""a""#)],
            &[("if-match", "*"), ("if-none-match", "*")],
        ] {
            assert_eq!(of(headers).unwrap_err().kind(), ErrorKind::InvalidArgument, "{headers:?}");
        }
    }
}
