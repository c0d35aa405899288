//! The response to a request for the documentation without credentials.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, header};
use tower_kernels::axum::{ResponseBody, is_docs};
use tower_kernels::error::ErrorKind;
use tower_kernels::middleware::error_response::{ByContentType, Protocol, Rejection, RequestProtocol};

/// Whether this path belongs to the documentation or redirects to it.
pub(super) fn is_docs_path(path: &str) -> bool {
    path == "/" || is_docs(path)
}

/// Writes rejections as [`ByContentType`] does, and explains `auth.open_docs` in those of the documentation.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestRejections;

#[derive(Clone, Copy, Debug)]
pub(super) struct RequestInfo {
    spoken: RequestProtocol,
    resource: Resource,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Resource {
    Kernels,
    /// The documentation, from a program.
    Docs,
    /// The documentation, from a browser.
    Page,
}

impl Protocol<ResponseBody> for RestRejections {
    type Context = RequestInfo;

    fn context<R>(&self, request: &Request<R>) -> RequestInfo {
        let accepts_html = || {
            let accept = request.headers().get_all(header::ACCEPT).iter();
            accept.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
        };
        let resource = match is_docs_path(request.uri().path()) {
            false => Resource::Kernels,
            true if accepts_html() => Resource::Page,
            true => Resource::Docs,
        };
        RequestInfo { spoken: Protocol::<ResponseBody>::context(&ByContentType, request), resource }
    }

    fn respond(&self, RequestInfo { spoken, resource }: &RequestInfo, rejection: &Rejection) -> Response<ResponseBody> {
        if rejection.kind != ErrorKind::Unauthenticated || *resource == Resource::Kernels {
            return ByContentType.respond(spoken, rejection);
        }
        let mut rejection = rejection.clone();
        rejection.detail.push_str("; the setting auth.open_docs serves /docs and /openapi.json without credentials");
        let mut response = ByContentType.respond(spoken, &rejection);
        if *resource == Resource::Page {
            *response.body_mut() = Bytes::from_static(PAGE.as_bytes()).into();
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
            headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static("default-src 'none'"));
        }
        response
    }
}

const PAGE: &str = r#"<!DOCTYPE html>
<html lang="en">
  <head>
    <meta charset="UTF-8">
    <title>tower-kernels: credentials needed</title>
  </head>
  <body>
    <h1>This page needs credentials</h1>
    <p>This server requires an API key or a token, which a browser cannot send when it opens a page.</p>
    <ul>
      <li>The operator of the server can serve this page and <code>/openapi.json</code> without credentials, with the
        setting <code>auth.open_docs</code> (<code>--auth-open-docs</code> on the command line). Kernels still require
        them: the page has an Authorize button.</li>
      <li>With credentials, the OpenAPI document can be fetched from the command line:
        <pre>curl -H "x-api-key: $KEY" .../openapi.json
curl -H "authorization: Bearer $TOKEN" .../openapi.json</pre></li>
    </ul>
  </body>
</html>
"#;
