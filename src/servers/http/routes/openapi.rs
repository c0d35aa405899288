//! `GET /openapi.json`: the OpenAPI document.

use http::header::CACHE_CONTROL;
use http::{HeaderValue, Response, StatusCode};

use super::enabled_operations;
use crate::servers::http::route::RestRequest;
use crate::servers::http::{Problem, ResponseBody, Rest, document};

pub(super) async fn openapi<S, B>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let operations = enabled_operations(&rest.state).collect();
    let body = rest.state.openapi.document(&rest.state.registry, &rest.state.config, operations).await?;
    let mut response = document(StatusCode::OK, "application/json", body, request.request_id);
    // Kernels can be added at any time.
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    Ok(response)
}

/// Whether this is a path of the documentation: `/openapi.json`, or Swagger UI and its files. Use it to exempt them
/// from authentication.
pub fn is_docs(path: &str) -> bool {
    // A file, and not `/docs/kernels` or `/docs/execute` behind the prefix `/docs`.
    let is_file = |name: &str| name.is_empty() || (name.contains('.') && !name.contains('/'));
    matches!(path, "/openapi.json" | "/docs") || path.strip_prefix("/docs/").is_some_and(is_file)
}

#[cfg(test)]
mod tests {
    use super::is_docs;

    #[test]
    fn the_documentation_is_no_path_behind_a_prefix_of_the_same_name() {
        for path in ["/openapi.json", "/docs", "/docs/", "/docs/index.html", "/docs/swagger-ui.css"] {
            assert!(is_docs(path), "{path}");
        }
        for path in [
            "/docs/kernels",
            "/docs/execute",
            "/docs/kernels/a.b/execute",
            "/docs/a/b.c",
            "/docs.html",
            "/openapi.json/kernels",
            "/",
        ] {
            assert!(!is_docs(path), "{path}");
        }
    }
}
