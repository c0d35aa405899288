//! `GET /kernels` and `GET /kernels/{id}`: lists and describes kernels.

use http::request::Parts;
use http::{Response, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::ErrorKind;
use crate::servers::http::openapi::{Schemas, headers, json_content, response, responses};
use crate::servers::http::route::{Params, RestRequest};
use crate::servers::http::{Problem, ResponseBody, Rest, RestState};
use crate::service::{Description, KernelError, KernelInfo, Mode, RegisteredKernel};

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

pub(super) async fn list<S, B>(rest: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    let filter: Filter = request.query()?;
    let kernels = match &filter.domain {
        Some(domain) => rest.state.registry.domain(domain),
        None => rest.state.registry.list(),
    };
    request.json(StatusCode::OK, &page(&kernels, &filter)?)
}

fn page<'a>(kernels: &'a [RegisteredKernel], filter: &Filter) -> Result<Page<'a>, Problem> {
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
    let matching =
        || kernels.iter().map(|kernel| kernel.info()).filter(|info| mode.is_none_or(|mode| info.mode == mode));
    // By id and not by number, so that kernels that are registered in the meantime do not shift pages.
    let mut rest = matching().skip_while(|info| filter.after.as_deref().is_some_and(|after| *info.id <= *after));
    let kernels: Vec<_> = rest.by_ref().take(limit).map(|info| Entry { info, domain: info.domain() }).collect();
    let next = kernels.last().map(|last| &*last.info.id).filter(|_| rest.next().is_some());
    Ok(Page { kernels, total: matching().count(), next })
}

pub(super) async fn describe<S, B>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let id = request.params.get("id");
    let description = rest.state.registry.describe(id).ok_or_else(|| unknown(id))?;
    request.json(StatusCode::OK, &description)
}

/// Checks that a kernel has the id in the path.
pub(super) fn check_id(state: &RestState, _: &Parts, params: &Params) -> Result<(), Problem> {
    let id = params.get("id");
    if state.registry.get(id).is_some() { Ok(()) } else { Err(unknown(id)) }
}

pub(super) fn unknown(id: &str) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("no kernel has the id `{id}`"))
}

fn invalid(field: &str, reason: &str) -> Problem {
    Problem::new(ErrorKind::InvalidArgument, format!("{field}: {reason}")).field(field)
}

/// OpenAPI: the query and the page.
pub(super) fn list_entry(schemas: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let mut parameters = headers(&["x-request-id"]);
    parameters.extend(schemas.query::<Filter>());
    let page = schemas.written::<Page<'_>>();
    json!({
        "parameters": parameters,
        "responses": responses(200, response("A page of kernels.", json_content(&page)), [400, 500]),
    })
}

/// OpenAPI: a kernel.
pub(super) fn describe_entry(schemas: &mut Schemas, kernel: &RegisteredKernel) -> Result<Option<Value>, KernelError> {
    let description = json_content(&schemas.written::<Description>());
    Ok(Some(json!({
        "summary": format!("Describes {}", kernel.info().id),
        "parameters": headers(&["x-request-id"]),
        "responses": responses(200, response("Description of the kernel.", description), [500]),
    })))
}
