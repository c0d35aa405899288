//! `GET /docs`: Swagger UI for `/openapi.json`. It is embedded and loads nothing from other hosts.

use std::sync::{Arc, LazyLock};

use ::axum::extract::rejection::PathRejection;
use ::axum::extract::{NestedPath, Path};
use ::axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Extensions, HeaderMap, HeaderValue, StatusCode};
use utoipa_swagger_ui::Config;

use crate::error::ErrorKind;
use crate::request::request_id::RequestId;
use crate::servers::http::{Problem, document};

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
pub(super) async fn docs(headers: HeaderMap) -> Response {
    let mut response: Response =
        document(StatusCode::PERMANENT_REDIRECT, "text/plain", Bytes::new(), &RequestId::from_headers(&headers));
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("docs/"));
    response
}

/// Redirects `/`, or the path where the router is nested, to the documentation.
pub(super) fn from_root(extensions: &Extensions, request_id: &RequestId) -> Response {
    let nested = extensions.get::<NestedPath>().map(|nested| nested.as_str().trim_end_matches('/'));
    // Relative if possible, for proxies that strip a prefix.
    let location = nested.map_or_else(|| "docs/".to_owned(), |nested| format!("{nested}/docs/"));
    let mut response: Response = document(StatusCode::TEMPORARY_REDIRECT, "text/plain", Bytes::new(), request_id);
    if let Ok(location) = HeaderValue::try_from(location) {
        response.headers_mut().insert(LOCATION, location);
    }
    response
}

pub(super) async fn page(headers: HeaderMap) -> Response {
    respond(INDEX, &RequestId::from_headers(&headers))
}

pub(super) async fn file(headers: HeaderMap, path: Result<Path<String>, PathRejection>) -> Response {
    let request_id = RequestId::from_headers(&headers);
    match path {
        Ok(Path(file)) => respond(&file, &request_id),
        Err(error) => Problem::new(ErrorKind::InvalidArgument, error.body_text()).into_response(&request_id),
    }
}

fn respond(name: &str, request_id: &RequestId) -> Response {
    if name == INDEX {
        return with_browser_headers(document(StatusCode::OK, "text/html", PAGE.into(), request_id));
    }
    let file = match utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG)) {
        Ok(Some(file)) => file,
        Ok(None) => {
            let problem = Problem::new(ErrorKind::NotFound, format!("nothing is at /docs/{name}"));
            return problem.into_response(request_id);
        }
        Err(error) => return Problem::new(ErrorKind::Internal, error.to_string()).into_response(request_id),
    };
    let mut response: Response =
        document(StatusCode::OK, "application/octet-stream", file.bytes.into_owned().into(), request_id);
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::try_from(file.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    if file.gzpipped {
        // Every browser accepts it, so `accept-encoding` is not checked.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    with_browser_headers(response)
}

/// Adds the headers of responses that a browser shows.
fn with_browser_headers(mut response: Response) -> Response {
    let headers = response.headers_mut();
    // Short, so that the files are current after an update of the server.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
