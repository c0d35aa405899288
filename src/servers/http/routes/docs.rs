//! `GET /docs`: Swagger UI for `/openapi.json`. It is embedded and loads nothing from other hosts.

use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use utoipa_swagger_ui::Config;

use crate::error::ErrorKind;
use crate::request::request_id::RequestId;
use crate::servers::http::route::{Params, RestRequest};
use crate::servers::http::{MountPath, Problem, ResponseBody, Rest, RestState, document};

/// URLs are relative, so that the page works in nested routers. The default validator is an Internet service and is
/// disabled. Credentials are stored in the browser.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../openapi.json").validator_url("none").try_it_out_enabled(true);
    let config = config.persist_authorization(true);
    Arc::new(config.doc_expansion("list").default_models_expand_depth(-1).filter(true).use_base_layout())
});

/// Swagger UI's own page with another title.
const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>tower-kernels</title>
    <link rel="stylesheet" type="text/css" href="swagger-ui.css">
    <link rel="stylesheet" type="text/css" href="index.css">
    <link rel="icon" type="image/png" href="favicon-32x32.png" sizes="32x32">
    <link rel="icon" type="image/png" href="favicon-16x16.png" sizes="16x16">
  </head>
  <body>
    <div id="swagger-ui"></div>
    <script src="swagger-ui-bundle.js" charset="UTF-8"></script>
    <script src="swagger-ui-standalone-preset.js" charset="UTF-8"></script>
    <script src="swagger-initializer.js" charset="UTF-8"></script>
  </body>
</html>
"#;
const INDEX: &str = "index.html";

const HEADERS: [(HeaderName, &str); 3] = [
    // The page has inline styles and icons, and connects to its own origin only.
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// Redirects to the page with a slash at the end, relative to which its files are.
pub(super) async fn redirect<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    let mut response = document(StatusCode::PERMANENT_REDIRECT, "text/plain", Bytes::new(), request.request_id);
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("docs/"));
    Ok(response)
}

/// Redirects `/`, or the path where the router is nested, to the documentation.
pub(super) async fn root<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    let mounted = request.head.extensions.get::<MountPath>().map(|MountPath(path)| path.trim_end_matches('/'));
    // Relative if possible, for proxies that strip a prefix.
    let location = mounted.map_or_else(|| "docs/".to_owned(), |mounted| format!("{mounted}/docs/"));
    let mut response = document(StatusCode::TEMPORARY_REDIRECT, "text/plain", Bytes::new(), request.request_id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    Ok(response)
}

/// Nothing but the redirect is at `/`.
pub(super) fn check_root(_: &RestState, head: &Parts, _: &Params) -> Result<(), Problem> {
    if matches!(head.method, Method::GET | Method::HEAD) { Ok(()) } else { Err(not_found(head)) }
}

/// Files have an extension; other paths below `/docs/` can be those of a router with this prefix.
pub(super) fn check_file(_: &RestState, head: &Parts, params: &Params) -> Result<(), Problem> {
    if params.get("file").contains('.') { Ok(()) } else { Err(not_found(head)) }
}

fn not_found(head: &Parts) -> Problem {
    Problem::new(ErrorKind::NotFound, format!("there is no resource at {}", head.uri.path()))
}

pub(super) async fn page<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    Ok(index(request.request_id))
}

pub(super) async fn file<S, B>(_: Rest<S>, request: RestRequest<'_, B>) -> Result<Response<ResponseBody>, Problem> {
    let name = request.params.get("file");
    if name == INDEX {
        return Ok(index(request.request_id));
    }
    let file = match utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => file,
        Ok(None) => return Err(not_found(request.head)),
        Err(error) => return Err(Problem::new(ErrorKind::Internal, error.to_string())),
    };
    let bytes = file.bytes.into_owned().into();
    let mut response = document(StatusCode::OK, "application/octet-stream", bytes, request.request_id);
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::try_from(file.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if file.gzpipped {
        // Every browser accepts it, so `accept-encoding` is not checked.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    Ok(with_browser_headers(response))
}

fn index(request_id: &RequestId) -> Response<ResponseBody> {
    with_browser_headers(document(StatusCode::OK, "text/html", PAGE.into(), request_id))
}

/// Adds the headers of responses that a browser shows.
fn with_browser_headers(mut response: Response<ResponseBody>) -> Response<ResponseBody> {
    let headers = response.headers_mut();
    // Short, so that the files are current after an update of the server.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
