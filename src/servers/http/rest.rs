//! The REST API, which the adapters for axum and hyper serve.

use std::pin::pin;
use std::sync::Arc;

use http::header::CONTENT_LENGTH;
use http::request::Parts;
use http::{Method, Request, Response};
use http_body::Body;
use tracing::Instrument;

use super::route::{Operation, Params, RequestBody, RestRequest, RestService, Route};
use super::routes::Routes;
use super::{ErrorForm, Problem, ResponseBody, RestState};
use crate::error::ErrorKind;
use crate::middleware::tracing::RequestScope;
use crate::request::request_id::RequestId;
use crate::servers::unread_body::UnreadBody;

/// The service that runs kernels, and the state of the handlers.
#[derive(Clone, Debug)]
pub(crate) struct Rest<S> {
    /// Boxed, as it is moved from one future into the next, and a pipeline is large.
    pub(crate) service: Box<S>,
    pub(crate) state: Arc<RestState>,
}

/// Extension of requests: the path that the API is nested at, which is not in the request's URI.
#[derive(Clone, Debug)]
pub(crate) struct MountPath(pub(crate) String);

impl<S> Rest<S> {
    pub(crate) fn new(service: S, state: RestState) -> Self {
        Self { service: Box::new(service), state: Arc::new(state) }
    }
}

impl<S: RestService> Rest<S> {
    /// Responds to a request: finds its [route](Routes), calls the handler, and discards what is unread of the body.
    /// Dropping the future cancels the work.
    pub(crate) fn respond<B: RequestBody>(
        self,
        request: Request<B>,
    ) -> impl Future<Output = Response<ResponseBody>> + Send {
        // Taken apart before the future, which would have space for the request and for its parts.
        let (mut head, body) = request.into_parts();
        let request_id = RequestId::from_headers(&head.headers);
        let span = RequestScope::enter_handler(&mut head.extensions, request_id.as_str());
        async move { self.respond_in_span(&head, &request_id, body).instrument(span).await }
    }

    async fn respond_in_span<B: RequestBody>(
        self,
        head: &Parts,
        request_id: &RequestId,
        body: B,
    ) -> Response<ResponseBody> {
        let mut body = pin!(body);
        let error_form = ErrorForm::of_path(head.uri.path(), self.state.inference_enabled);
        let (result, is_body_read) = match find::<S, B>(&self.state, head) {
            Ok((route, params)) => {
                let request = RestRequest { head, request_id, params, body: body.as_mut() };
                let result = (route.handler)(self, request).await;
                let is_body_read = route.operation.reads_body() && result.is_ok();
                (result, is_body_read)
            }
            Err(problem) => (Err(problem), false),
        };
        let mut response = match result {
            Ok(response) => response,
            Err(problem) => problem.into_response(error_form, request_id),
        };
        if head.method == Method::HEAD {
            remove_body(&mut response);
        }
        if is_body_read {
            return response;
        }
        UnreadBody::of(head.version, &head.headers).finish(body, response).await
    }
}

/// Removes the body of a response to HEAD, and keeps its length: hyper would omit a length of 0, and axum would not.
fn remove_body(response: &mut Response<ResponseBody>) {
    let body = std::mem::take(response.body_mut());
    if let Some(length) = body.size_hint().exact() {
        response.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// Finds the route of a request.
///
/// # Errors
/// 404 if there is nothing at the path, 405 with the allowed methods if there is, 400 if the path is malformed.
fn find<S: RestService, B: RequestBody>(
    state: &RestState,
    head: &Parts,
) -> Result<(&'static Route<S, B>, Params), Problem> {
    let (method, path) = (head.method.as_str(), head.uri.path());
    let routes = Routes::<S, B>::ALL.iter().filter(|route| (route.operation.is_enabled)(state));
    // Without the paths of other methods, whose resources are looked up for nothing.
    for route in routes.clone().filter(|route| route.operation.has_method(method)) {
        let Some(params) = route.operation.match_path(&state.config, path)? else { continue };
        if (route.operation.check_resource)(state, head, &params).is_ok() {
            return Ok((route, params));
        }
    }
    Err(no_route(state, head, routes.map(|route| &route.operation)))
}

/// The error of a request that none of these operations is for.
fn no_route(state: &RestState, head: &Parts, operations: impl Iterator<Item = &'static Operation>) -> Problem {
    let (method, path) = (head.method.as_str(), head.uri.path());
    let mut not_found = None;
    let mut allowed = Vec::new();
    for operation in operations {
        let params = match operation.match_path(&state.config, path) {
            Ok(Some(params)) => params,
            Ok(None) => continue,
            Err(problem) => return problem,
        };
        match (operation.check_resource)(state, head, &params) {
            Ok(()) => allowed.push(operation.method),
            // Further down are the more specific paths.
            Err(problem) => not_found = Some(problem),
        }
    }
    if allowed.is_empty() {
        let nothing = || Problem::new(ErrorKind::NotFound, format!("there is no resource at {path}"));
        return not_found.unwrap_or_else(nothing);
    }
    if allowed.contains(&"GET") {
        allowed.push("HEAD");
    }
    Problem::method_not_allowed(method, &allowed)
}
