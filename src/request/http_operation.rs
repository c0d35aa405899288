//! Names the operation of an HTTP request: the program's own name, the gRPC method, or the route.

use std::borrow::Cow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{Method, Request};

/// Extension of an [`http::Request`]: the name of its operation, for spans, metrics and layers that keep state for each
/// operation. It takes precedence over the route and the gRPC method.
///
/// String literals are not copied. An `Arc<str>` that is created once and cloned for each request does not allocate
/// either:
///
/// ```
/// use std::sync::Arc;
/// use tower_kernels::request::{Operation, RequestContext};
///
/// let named = http::Request::builder().extension(Operation::from_static("thumbnail")).body(()).unwrap();
/// assert_eq!(named.operation(), "thumbnail");
///
/// let tables: Vec<Arc<str>> = ["users", "orders"].map(|table| format!("read {table}").into()).to_vec();
/// let named = http::Request::builder().extension(Operation::new(Arc::clone(&tables[1]))).body(()).unwrap();
/// assert_eq!(named.operation(), "read orders");
/// ```
///
/// Use few distinct names: layers keep state for a limited number of operations, and all others share one entry.
#[derive(Clone)]
pub struct Operation(Name);

#[derive(Clone)]
enum Name {
    Static(&'static str),
    Shared(Arc<str>),
}

impl Operation {
    /// Creates an operation with a name that is built at run time.
    pub fn new(name: impl Into<Arc<str>>) -> Self {
        Self(Name::Shared(name.into()))
    }

    /// Creates an operation with a static name.
    pub const fn from_static(name: &'static str) -> Self {
        Self(Name::Static(name))
    }

    /// The name.
    #[inline]
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Name::Static(name) => name,
            Name::Shared(name) => name,
        }
    }
}

impl From<&'static str> for Operation {
    fn from(name: &'static str) -> Self {
        Self::from_static(name)
    }
}

impl From<String> for Operation {
    fn from(name: String) -> Self {
        Self::new(name)
    }
}

impl From<Arc<str>> for Operation {
    fn from(name: Arc<str>) -> Self {
        Self::new(name)
    }
}

impl From<Cow<'static, str>> for Operation {
    fn from(name: Cow<'static, str>) -> Self {
        match name {
            Cow::Borrowed(name) => Self::from_static(name),
            Cow::Owned(name) => Self::new(name),
        }
    }
}

impl PartialEq for Operation {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Operation {}

impl Hash for Operation {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Debug for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Operation").field(&self.as_str()).finish()
    }
}

/// Returns the operation of a request: the [`Operation`] extension, the gRPC method, the route that axum has matched,
/// or the HTTP method, whichever is found first.
#[inline]
pub(crate) fn of<B>(request: &Request<B>) -> &str {
    if let Some(own) = request.extensions().get::<Operation>() {
        return own.as_str();
    }
    if let Some(method) = grpc_method(request) {
        return method;
    }
    #[cfg(feature = "axum")]
    if let Some(path) = request.extensions().get::<::axum::extract::MatchedPath>() {
        return routes::name(request.method(), path.as_str());
    }
    METHODS[method_index(request.method())]
}

/// Returns `package.Service/Method`, the span name of OpenTelemetry for RPCs: the path without its first slash.
fn grpc_method<B>(request: &Request<B>) -> Option<&str> {
    if *request.method() != Method::POST {
        return None;
    }
    let content_type = request.headers().get(CONTENT_TYPE)?.as_bytes();
    if !content_type.starts_with(b"application/grpc") {
        return None;
    }
    let name = request.uri().path().strip_prefix('/')?;
    let (service, method) = name.split_once('/')?;
    (!service.is_empty() && !method.is_empty() && !method.contains('/')).then_some(name)
}

/// Names of the known HTTP methods, and one name for all others, because clients can send any method. OpenTelemetry
/// requires the same.
const METHODS: [&str; 10] =
    ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", OTHER_METHODS];
const OTHER_METHODS: &str = "HTTP";

fn method_index(method: &Method) -> usize {
    match *method {
        Method::GET => 0,
        Method::HEAD => 1,
        Method::POST => 2,
        Method::PUT => 3,
        Method::DELETE => 4,
        Method::CONNECT => 5,
        Method::OPTIONS => 6,
        Method::TRACE => 7,
        Method::PATCH => 8,
        _ => METHODS.len() - 1,
    }
}

#[cfg(feature = "axum")]
mod routes {
    //! Names of axum's routes, such as `GET /users/{id}`. A request has the method and the path but not the name, so
    //! each name is created once and stored, and requests borrow it.

    use std::sync::{LazyLock, OnceLock};

    use http::Method;

    use super::{METHODS, method_index};
    use crate::request::operation_table::OperationTable;

    /// Maximum number of routes with a stored name. Clients cannot add routes, so only a program that keeps creating
    /// routers with new paths exceeds it. Further routes are named by their path only.
    const MAX_ROUTES: usize = 1024;

    static NAMES: LazyLock<OperationTable<[OnceLock<Box<str>>; METHODS.len()]>> =
        LazyLock::new(|| OperationTable::new(MAX_ROUTES));

    #[inline]
    pub(crate) fn name<'a>(method: &Method, path: &'a str) -> &'a str {
        let Some((_, names)) = NAMES.find_or_insert(path, Default::default) else { return path };
        let method = method_index(method);
        names[method].get_or_init(|| format!("{} {path}", METHODS[method]).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::RequestContext;

    fn request(method: &str, path: &str, content_type: Option<&str>) -> Request<()> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(content_type) = content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn grpc_requests_are_named_by_their_method_and_others_by_the_http_method() {
        let grpc = Some("application/grpc");
        for (method, path, content_type, operation) in [
            ("POST", "/pkg.v1.Service/Method", grpc, "pkg.v1.Service/Method"),
            ("POST", "/pkg.v1.Service/Method?a=b", Some("application/grpc+proto"), "pkg.v1.Service/Method"),
            ("POST", "/pkg.v1.Service/Method", Some("application/grpc-web"), "pkg.v1.Service/Method"),
            // None of these is a call of gRPC.
            ("POST", "/pkg.v1.Service/Method", Some("application/json"), "POST"),
            ("POST", "/pkg.v1.Service/Method", None, "POST"),
            ("GET", "/pkg.v1.Service/Method", grpc, "GET"),
            ("POST", "/", grpc, "POST"),
            ("POST", "//Method", grpc, "POST"),
            ("POST", "/Service/", grpc, "POST"),
            ("POST", "/a/b/c", grpc, "POST"),
            ("POST", "*", grpc, "POST"),
            ("BREW", "/pot", None, "HTTP"),
            ("BREW2", "/pot", None, "HTTP"),
        ] {
            assert_eq!(request(method, path, content_type).operation(), operation, "{method} {path} {content_type:?}");
        }
    }

    #[test]
    fn a_name_of_the_programs_own_comes_first() {
        for own in [Operation::from_static("own"), Operation::new("own"), String::from("own").into()] {
            let mut request = request("POST", "/pkg.v1.Service/Method", Some("application/grpc"));
            request.extensions_mut().insert(own);
            assert_eq!(request.operation(), "own");
        }
    }

    #[cfg(feature = "axum")]
    #[test]
    fn a_route_is_named_once_for_each_method() {
        let names = ["GET", "POST", "BREW", "STEEP"].map(|method| {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let (first, again) = (routes::name(&method, "/a/{b}"), routes::name(&method, "/a/{b}"));
            assert!(std::ptr::eq(first, again), "{first} is made for each request");
            first
        });
        assert_eq!(names, ["GET /a/{b}", "POST /a/{b}", "HTTP /a/{b}", "HTTP /a/{b}"]);
        let long = format!("/{}", "a".repeat(1000));
        assert_eq!(routes::name(&Method::GET, &long), long);
    }
}
