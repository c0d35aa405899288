//! `GET /kernels` and `GET /kernels/{id}`: what there is.

use std::sync::Arc;

use ::axum::extract::rejection::{PathRejection, QueryRejection};
use ::axum::extract::{Path, Query, State};
use ::axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};

use super::router::Shared;
use crate::error::ErrorKind;
use crate::servers::http::{Problem, RequestId, document};
use crate::service::{KernelInfo, KernelRegistry, Mode};

/// What the query of a list may say.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    domain: Option<String>,
    mode: Option<String>,
    after: Option<String>,
    limit: Option<usize>,
}

/// How many kernels a page has where the query does not say, and at most.
const LIMIT: usize = 100;
const MAX_LIMIT: usize = 1000;

#[derive(Serialize)]
struct Page<'a> {
    kernels: Vec<Entry<'a>>,
    /// How many match, on all pages.
    total: usize,
    /// What the next page comes after; there is none where this is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<&'a str>,
}

#[derive(Serialize)]
struct Entry<'a> {
    #[serde(flatten)]
    info: &'a KernelInfo,
    domain: &'a str,
}

pub(super) async fn list<S>(
    State(shared): State<Arc<Shared<S>>>,
    headers: HeaderMap,
    query: Result<Query<Filter>, QueryRejection>,
) -> Response {
    let request_id = RequestId::of(&headers);
    let page = query
        .map_err(|error| Problem::new(ErrorKind::InvalidArgument, error.body_text()))
        .and_then(|Query(filter)| page(&shared.registry, &filter));
    answer(page, &request_id)
}

fn page(registry: &KernelRegistry, filter: &Filter) -> Result<Vec<u8>, Problem> {
    let mode = match filter.mode.as_deref() {
        None => None,
        Some("batch") => Some(Mode::Batch),
        Some("ring") => Some(Mode::Ring),
        Some(_) => return Err(invalid("mode", "it is neither batch nor ring")),
    };
    let limit = filter.limit.unwrap_or(LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(invalid("limit", "it is not between 1 and 1000"));
    }
    let kernels = match &filter.domain {
        Some(domain) => registry.domain(domain),
        None => registry.list(),
    };
    let matching =
        || kernels.iter().map(|kernel| kernel.info()).filter(|info| mode.is_none_or(|mode| info.mode == mode));
    // By id and not by number, so that kernels that are registered meanwhile move nothing to another page.
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
    let request_id = RequestId::of(&headers);
    let document = path_of(path).and_then(|id| match shared.registry.describe(&id) {
        Some(description) => json(&description),
        None if executes(&shared.registry, &id).is_some() => Err(Problem::method_not_allowed("POST")),
        None => Err(unknown(&id)),
    });
    answer(document, &request_id)
}

/// The kernel of the path `{id}/execute`, where there is such a one.
pub(super) fn executes<'a>(registry: &KernelRegistry, path: &'a str) -> Option<&'a str> {
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

pub(super) fn answer(body: Result<Vec<u8>, Problem>, request_id: &RequestId) -> Response {
    match body {
        Ok(body) => document(StatusCode::OK, "application/json", body.into(), request_id),
        Err(problem) => problem.into_response(request_id),
    }
}
