//! `GET /docs`: Swagger UI over `/openapi.json`. All of it is embedded, and what it may load is from here alone.

use std::sync::{Arc, LazyLock};

use ::axum::extract::Path;
use ::axum::extract::rejection::PathRejection;
use ::axum::response::Response;
use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use utoipa_swagger_ui::Config;

use crate::error::ErrorKind;
use crate::servers::http::{Problem, RequestId, document};

/// Relative, as is all that the page asks for, so that it works wherever the router has been nested. No validator: the
/// default one is a service on the Internet.
static CONFIG: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("../openapi.json").validator_url("none").try_it_out_enabled(true);
    Arc::new(config.doc_expansion("list").default_models_expand_depth(-1).filter(true).use_base_layout())
});

const HEADERS: [(HeaderName, &str); 3] = [
    // The page styles its parts and draws its icons from within itself; nothing comes from elsewhere or goes there.
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
         connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
];

/// To the page, with the slash behind which its files are.
pub(super) async fn docs(headers: HeaderMap) -> Response {
    let mut response: Response =
        document(StatusCode::PERMANENT_REDIRECT, "text/plain", Bytes::new(), &RequestId::of(&headers));
    response.headers_mut().insert(LOCATION, HeaderValue::from_static("docs/"));
    response
}

pub(super) async fn page(headers: HeaderMap) -> Response {
    answer("index.html", &RequestId::of(&headers))
}

pub(super) async fn file(headers: HeaderMap, path: Result<Path<String>, PathRejection>) -> Response {
    let request_id = RequestId::of(&headers);
    match path {
        Ok(Path(file)) => answer(&file, &request_id),
        Err(error) => Problem::new(ErrorKind::InvalidArgument, error.body_text()).into_response(&request_id),
    }
}

fn answer(name: &str, request_id: &RequestId) -> Response {
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
        // Without asking whether the client takes it: every browser does.
        headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    // Long enough for a visit, and short enough for the next version of the server.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=3600"));
    headers.extend(HEADERS.map(|(name, value)| (name, HeaderValue::from_static(value))));
    response
}
