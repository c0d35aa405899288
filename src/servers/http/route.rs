//! A route of the REST API: what it matches, what handles it, and what the documentation says of it.

use std::error::Error;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;
use http::request::Parts;
use http::{Response, StatusCode};
use http_body::Body;
use percent_encoding::percent_decode_str;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tower_service::Service;

use super::openapi::Schemas;
use super::{Problem, ResponseBody, Rest, RestState, RouterConfig, document};
use crate::error::{AnyError, ErrorKind};
use crate::request::request_id::RequestId;
use crate::service::{KernelError, KernelRequest, KernelResponse, Operands, RegisteredKernel};

/// A service that can be served over REST.
pub(crate) trait RestService:
    Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send> + Clone + Send + 'static
{
}

impl<S> RestService for S where
    S: Service<KernelRequest, Response = KernelResponse, Error: AnyError, Future: Send> + Clone + Send + 'static
{
}

/// The body of a request.
pub(crate) trait RequestBody:
    Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static
{
}

impl<B> RequestBody for B where B: Body<Data = Bytes, Error: Into<Box<dyn Error + Send + Sync>>> + Send + 'static {}

/// An operation and its handler.
pub(crate) struct Route<S, B> {
    pub(crate) operation: Operation,
    pub(crate) handler: Handler<S, B>,
}

/// Responds to a request. Dropping the future cancels the work.
pub(crate) type Handler<S, B> = for<'a> fn(Rest<S>, RestRequest<'a, B>) -> HandlerFuture<'a>;
pub(crate) type HandlerFuture<'a> = Pin<Box<dyn Future<Output = Result<Response<ResponseBody>, Problem>> + Send + 'a>>;

/// A method of a path, and what the documentation says of it.
pub(crate) struct Operation {
    pub(crate) method: &'static str,
    /// `{name}` is one segment of the path, `{*name}` one or more.
    pub(crate) path: &'static str,
    /// Whether the path is below [`RouterConfig::prefix`].
    pub(crate) is_prefixed: bool,
    /// `operationId` of the OpenAPI document.
    pub(crate) id: &'static str,
    /// One line, for the OpenAPI document and the table of routes.
    pub(crate) summary: &'static str,
    /// Further sentences in Markdown, for the table of routes.
    pub(crate) details: &'static str,
    /// Whether the server has this route.
    pub(crate) is_enabled: fn(&RestState) -> bool,
    /// Checks that the resource of the path exists. Otherwise the path has no methods.
    pub(crate) check_resource: fn(&RestState, &Parts, &Params) -> Result<(), Problem>,
    pub(crate) openapi: OpenApiEntry,
}

/// How the OpenAPI document describes an operation. The functions return the operation's fields; method, path, id,
/// summary and path parameters come from the [`Operation`], unless they are among the fields.
#[derive(Clone, Copy)]
pub(crate) enum OpenApiEntry {
    /// Not at all: it belongs to the documentation itself.
    Hidden,
    /// Once, with this tag.
    Once(&'static str, fn(&mut Schemas, &[RegisteredKernel]) -> Value),
    /// Once, with the tag of operands.
    Operands(fn(&mut Schemas, &Operands) -> Value),
    /// Once for each kernel, as path parameters cannot contain the slashes of kernel ids. `None` for a kernel that
    /// does not have the operation.
    PerKernel(fn(&mut Schemas, &RegisteredKernel) -> Result<Option<Value>, KernelError>),
}

impl Operation {
    pub(crate) const fn get(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("GET", path, id, summary)
    }

    pub(crate) const fn post(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("POST", path, id, summary)
    }

    pub(crate) const fn put(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("PUT", path, id, summary)
    }

    pub(crate) const fn delete(path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self::new("DELETE", path, id, summary)
    }

    /// An operation of a path at the root, which every server has, without an entry in the OpenAPI document.
    pub(crate) const fn new(method: &'static str, path: &'static str, id: &'static str, summary: &'static str) -> Self {
        Self {
            method,
            path,
            is_prefixed: false,
            id,
            summary,
            details: "",
            is_enabled: |_| true,
            check_resource: |_, _, _| Ok(()),
            openapi: OpenApiEntry::Hidden,
        }
    }

    /// Moves the path below [`RouterConfig::prefix`].
    pub(crate) const fn prefixed(mut self) -> Self {
        self.is_prefixed = true;
        self
    }

    pub(crate) const fn details(mut self, details: &'static str) -> Self {
        self.details = details;
        self
    }

    pub(crate) const fn enabled_if(mut self, is_enabled: fn(&RestState) -> bool) -> Self {
        self.is_enabled = is_enabled;
        self
    }

    pub(crate) const fn check_resource(
        mut self,
        check: fn(&RestState, &Parts, &Params) -> Result<(), Problem>,
    ) -> Self {
        self.check_resource = check;
        self
    }

    pub(crate) const fn openapi(mut self, entry: OpenApiEntry) -> Self {
        self.openapi = entry;
        self
    }

    pub(crate) const fn handled_by<S, B>(self, handler: Handler<S, B>) -> Route<S, B> {
        Route { operation: self, handler }
    }

    /// Whether the handler reads the body of the request. Otherwise the body is discarded.
    pub(super) fn reads_body(&self) -> bool {
        matches!(self.method, "POST" | "PUT" | "PATCH")
    }

    /// Whether requests of this method are for this operation. GET includes HEAD: the servers omit the body.
    pub(super) fn has_method(&self, method: &str) -> bool {
        self.method == method || (self.method == "GET" && method == "HEAD")
    }

    /// Path with the prefix.
    pub(crate) fn full_path(&self, config: &RouterConfig) -> String {
        if self.is_prefixed { config.path(self.path) } else { self.path.to_owned() }
    }

    /// Returns the parameters of a path that this operation is at, and otherwise `None`.
    ///
    /// # Errors
    /// 400 if a parameter is not percent-encoded UTF-8.
    pub(super) fn match_path(&self, config: &RouterConfig, path: &str) -> Result<Option<Params>, Problem> {
        let path = match self.is_prefixed {
            true => config.without_prefix(path),
            false => Some(path),
        };
        match path.and_then(|path| match_pattern(self.path, path)) {
            Some(raw) => Params::decode(raw).map(Some),
            None => Ok(None),
        }
    }

    /// Names of the parameters in the path.
    pub(super) fn path_parameters(&self) -> impl Iterator<Item = &'static str> {
        let names = self.path.split('{').skip(1).filter_map(|rest| rest.split_once('}'));
        names.map(|(name, _)| name.trim_start_matches('*'))
    }
}

type RawParams<'a> = Vec<(&'static str, &'a str)>;

/// Returns the parameters of a path that matches the pattern. `{*name}` takes as much of the path as what follows it in the
/// pattern allows.
fn match_pattern<'a>(mut pattern: &'static str, mut path: &'a str) -> Option<RawParams<'a>> {
    let mut params = Vec::new();
    while let Some((literal, rest)) = pattern.split_once('{') {
        let (name, after) = rest.split_once('}')?;
        path = path.strip_prefix(literal)?;
        let (name, value) = match name.strip_prefix('*') {
            Some(name) => (name, before_last(path, after)?),
            None => (name, path.split('/').next()?),
        };
        if value.is_empty() {
            return None;
        }
        params.push((name, value));
        (path, pattern) = (&path[value.len()..], after);
    }
    (path == pattern).then_some(params)
}

/// Returns what is before the rest of a pattern, as much as possible of the path.
fn before_last<'a>(path: &'a str, rest: &str) -> Option<&'a str> {
    match rest.split_once('{') {
        Some((literal, _)) => path.rsplit_once(literal).map(|(before, _)| before),
        None => path.strip_suffix(rest),
    }
}

/// Parameters in the path of a request, decoded.
#[derive(Debug, Default)]
pub(crate) struct Params(Vec<(&'static str, String)>);

impl Params {
    fn decode(raw: RawParams<'_>) -> Result<Self, Problem> {
        let decode = |(name, value): (&'static str, &str)| match percent_decode_str(value).decode_utf8() {
            Ok(value) => Ok((name, value.into_owned())),
            Err(_) => {
                let detail = format!("{name}: this part of the path is not UTF-8");
                Err(Problem::new(ErrorKind::InvalidArgument, detail).field(name))
            }
        };
        raw.into_iter().map(decode).collect::<Result<_, _>>().map(Self)
    }

    /// Returns the parameter of this name, if the route's path has it.
    pub(crate) fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(this, _)| *this == name).map(|(_, value)| value.as_str())
    }

    /// Returns the parameter of this name.
    ///
    /// # Panics
    /// If the route's path has no such parameter.
    pub(crate) fn get(&self, name: &str) -> &str {
        self.find(name).unwrap_or_else(|| panic!("the path of the route has no parameter {name}"))
    }
}

/// A request to a route.
pub(crate) struct RestRequest<'a, B> {
    pub(crate) head: &'a Parts,
    pub(crate) request_id: &'a RequestId,
    /// Parameters in the path.
    pub(crate) params: Params,
    /// Unread. What the handler of a POST or PUT leaves unread is only discarded if it returns an error.
    pub(crate) body: Pin<&'a mut B>,
}

impl<B> RestRequest<'_, B> {
    /// Deserializes the query.
    ///
    /// # Errors
    /// 400 that names the field which is unknown or invalid.
    pub(crate) fn query<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        let query = self.head.uri.query().unwrap_or_default();
        let fields = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
        serde_path_to_error::deserialize(fields).map_err(|error| {
            let detail = format!("the query is invalid: {error}");
            Problem::new(ErrorKind::InvalidArgument, detail).field(error.path().to_string())
        })
    }

    /// Responds with JSON.
    ///
    /// # Errors
    /// If the value cannot be serialized.
    pub(crate) fn json(&self, status: StatusCode, value: &impl Serialize) -> Result<Response<ResponseBody>, Problem> {
        match serde_json::to_vec(value) {
            Ok(json) => Ok(document(status, "application/json", json.into(), self.request_id)),
            Err(error) => Err(Problem::new(ErrorKind::Internal, error.to_string())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_whole_paths_and_names_their_parts() {
        for (pattern, path, params) in [
            ("/kernels", "/kernels", Some(vec![])),
            ("/kernels", "/kernels/", None),
            ("/", "/", Some(vec![])),
            ("/docs/{file}", "/docs/a.js", Some(vec![("file", "a.js")])),
            ("/docs/{file}", "/docs/", None),
            ("/docs/{file}", "/docs/a/b", None),
            (
                "/operands/{name}/versions/{version}",
                "/operands/a/versions/7",
                Some(vec![("name", "a"), ("version", "7")]),
            ),
            ("/operands/{name}/versions/{version}", "/operands/a/b/versions/7", None),
            ("/kernels/{*id}", "/kernels/a", Some(vec![("id", "a")])),
            ("/kernels/{*id}", "/kernels/a/b/c", Some(vec![("id", "a/b/c")])),
            ("/kernels/{*id}", "/kernels/", None),
            ("/kernels/{*id}/execute", "/kernels/a/b/execute", Some(vec![("id", "a/b")])),
            ("/kernels/{*id}/execute", "/kernels/execute", None),
            ("/models/{*id}/versions/{v}", "/models/a/b/versions/1", Some(vec![("id", "a/b"), ("v", "1")])),
            (
                "/models/{*id}/versions/{v}/run",
                "/models/a/versions/b/versions/1/run",
                Some(vec![("id", "a/versions/b"), ("v", "1")]),
            ),
            ("/models/{*id}/versions/{v}/run", "/models/a/versions/1", None),
            ("/models/{*id}/versions/{v}", "/models/a/versions/1/run", None),
            ("/models/{*id}/versions/{v}", "/models/versions/1", None),
            ("/kernels/{*id}/execute", "/kernels//execute", None),
            ("/kernels/{*id}/execute", "/kernels/a/execute/", None),
        ] {
            assert_eq!(match_pattern(pattern, path), params, "{pattern} {path}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let operation = Operation::get("/kernels/{*id}", "describe", "");
        let config = RouterConfig { prefix: "/api/v1/".to_owned(), ..RouterConfig::default() };
        let params = operation.match_path(&config, "/kernels/a%2Fb%20c").unwrap().unwrap();
        assert_eq!(params.get("id"), "a/b c");
        assert_eq!(operation.match_path(&config, "/kernels/%FF").unwrap_err().kind(), ErrorKind::InvalidArgument);
        let prefixed = operation.prefixed();
        assert!(prefixed.match_path(&config, "/kernels/a").unwrap().is_none());
        assert!(prefixed.match_path(&config, "/api/v1kernels/a").unwrap().is_none());
        assert_eq!(prefixed.match_path(&config, "/api/v1/kernels/a").unwrap().unwrap().get("id"), "a");
        assert_eq!(prefixed.full_path(&config), "/api/v1/kernels/{*id}");
        assert_eq!(prefixed.path_parameters().collect::<Vec<_>>(), ["id"]);
    }
}
