//! `GET /kernels` and `GET /kernels/{id}`: lists and describes kernels.

use std::sync::Arc;

use ::axum::extract::rejection::{PathRejection, QueryRejection};
use ::axum::extract::{Path, Query, Request, State};
use ::axum::response::Response;
use http::{HeaderMap, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::router::Shared;
use super::unread::without_body;
use crate::error::ErrorKind;
use crate::request::request_id::RequestId;
use crate::servers::http::{Problem, document};
use crate::service::{KernelInfo, KernelRegistry, Mode};

/// Query of a list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// Only kernels of this domain.
    domain: Option<String>,
    /// Only kernels of this mode.
    #[schemars(with = "Option<Mode>")]
    mode: Option<String>,
    /// `next` of the previous page.
    after: Option<String>,
    /// Maximum number of kernels on a page; default 100.
    #[schemars(range(min = 1, max = MAX_LIMIT))]
    limit: Option<usize>,
}

/// Default number of kernels on a page.
const DEFAULT_LIMIT: usize = 100;
/// Maximum number of kernels on a page.
const MAX_LIMIT: usize = 1000;

/// A page of kernels, by id.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KernelPage")]
pub(super) struct Page<'a> {
    kernels: Vec<Entry<'a>>,
    /// Number of matching kernels on all pages.
    total: usize,
    /// `after` of the next page. Missing on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

/// A kernel in a list.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KernelEntry")]
struct Entry<'a> {
    #[serde(flatten)]
    info: &'a KernelInfo,
    /// Part of the id before the first slash.
    domain: &'a str,
}

pub(super) async fn list<S>(
    State(shared): State<Arc<Shared<S>>>,
    headers: HeaderMap,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    let request_id = RequestId::from_headers(&headers);
    let page = query
        .map_err(|error| Problem::new(ErrorKind::InvalidArgument, error.body_text()))
        .and_then(|Query(filter)| page(&shared.registry, &filter));
    json_response(page, &request_id)
}

fn page(registry: &KernelRegistry, filter: &Filter) -> Result<Vec<u8>, Problem> {
    let mode = match filter.mode.as_deref() {
        None => None,
        Some("batch") => Some(Mode::Batch),
        Some("ring") => Some(Mode::Ring),
        Some(_) => return Err(invalid("mode", "it is neither batch nor ring")),
    };
    let limit = filter.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid("limit", "it is not between 1 and 1000"));
    }
    let kernels = match &filter.domain {
        Some(domain) => registry.domain(domain),
        None => registry.list(),
    };
    let matching =
        || kernels.iter().map(|kernel| kernel.info()).filter(|info| mode.is_none_or(|mode| info.mode == mode));
    // By id and not by number, so that kernels that are registered in the meantime do not shift pages.
    let mut rest = matching().skip_while(|info| filter.after.as_deref().is_some_and(|after| *info.id <= *after));
    let kernels: Vec<_> = rest.by_ref().take(limit).map(|info| Entry { info, domain: info.domain() }).collect();
    let next = kernels.last().map(|last| &*last.info.id).filter(|_| rest.next().is_some());
    json(&Page { kernels, total: matching().count(), next })
}

pub(super) async fn describe<S>(
    State(shared): State<Arc<Shared<S>>>,
    headers: HeaderMap,
    path: Result<Path<String>, PathRejection>,
) -> Response {
    let request_id = RequestId::from_headers(&headers);
    let document = path_of(path).and_then(|id| match shared.registry.describe(&id) {
        Some(description) => json(&description),
        None if executed_id(&shared.registry, &id).is_some() => Err(Problem::method_not_allowed("POST")),
        None => Err(unknown(&id)),
    });
    json_response(document, &request_id)
}

/// Responds to other methods below `/kernels/` with 405 and the methods of the path. For axum these paths are one
/// route, so its own `Allow` header would have the methods of all.
pub(super) async fn other_method<S>(
    State(shared): State<Arc<Shared<S>>>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Response {
    let problem = match path_of(path) {
        Ok(path) if shared.registry.get(&path).is_some() => Problem::method_not_allowed("GET, HEAD"),
        Ok(path) if executed_id(&shared.registry, &path).is_some() => Problem::method_not_allowed("POST"),
        Ok(path) => unknown(path.strip_suffix("/execute").unwrap_or(&path)),
        Err(problem) => problem,
    };
    without_body(request, |head| problem.into_response(&RequestId::from_headers(&head.headers))).await
}

/// Returns the id in the path `{id}/execute`, if a kernel has it.
pub(super) fn executed_id<'a>(registry: &KernelRegistry, path: &'a str) -> Option<&'a str> {
    path.strip_suffix("/execute").filter(|id| registry.get(id).is_some())
}

pub(super) fn path_of(path: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    path.map(|Path(path)| path).map_err(|error| Problem::new(ErrorKind::InvalidArgument, error.body_text()))
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("no kernel has the id `{id}`"))
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::new(ErrorKind::InvalidArgument, format!("{field}: {reason}")).field(field)
}

pub(super) fn json(value: &impl Serialize) -> Result<Vec<u8>, Problem> {
    serde_json::to_vec(value).map_err(|error| Problem::new(ErrorKind::Internal, error.to_string()))
}

pub(super) fn json_response(body: Result<Vec<u8>, Problem>, request_id: &RequestId) -> Response {
    match body {
        Ok(body) => document(StatusCode::OK, "application/json", body.into(), request_id),
        Err(problem) => problem.into_response(request_id),
    }
}
