//! What a browser is told that opens the documentation without a credential.

use axum::body::Body;
use http::{HeaderValue, Request, Response, header};
use tower_kernels::axum::is_docs;
use tower_kernels::error::ErrorKind;
use tower_kernels::middleware::error_response::{ByContentType, Protocol, Rejection, RequestProtocol};

/// Whether this path is of the documentation, or leads to it.
pub(super) fn leads_to_docs(path: &str) -> bool {
    path == "/" || is_docs(path)
}

/// Writes rejections as [`ByContentType`] does, and says of the documentation how it can be opened.
#[derive(Clone, Copy, Debug)]
pub(super) struct RestRefusals;

#[derive(Clone, Copy, Debug)]
pub(super) struct Caller {
    spoken: RequestProtocol,
    wants: Wants,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wants {
    Kernels,
    /// The documentation, as a document for programs.
    Docs,
    /// The documentation, as a page for people.
    Page,
}

impl Protocol<Body> for RestRefusals {
    type Context = Caller;

    fn context<R>(&self, request: &Request<R>) -> Caller {
        let accepts_html = || {
            let accept = request.headers().get_all(header::ACCEPT).iter();
            accept.filter_map(|value| value.to_str().ok()).any(|value| value.contains("text/html"))
        };
        let wants = match leads_to_docs(request.uri().path()) {
            false => Wants::Kernels,
            true if accepts_html() => Wants::Page,
            true => Wants::Docs,
        };
        Caller { spoken: Protocol::<Body>::context(&ByContentType, request), wants }
    }

    fn respond(&self, Caller { spoken, wants }: &Caller, rejection: &Rejection) -> Response<Body> {
        if rejection.kind != ErrorKind::Unauthenticated || *wants == Wants::Kernels {
            return ByContentType.respond(spoken, rejection);
        }
        let mut rejection = rejection.clone();
        rejection.detail.push_str("; the setting auth.open_docs opens /docs and /openapi.json to everybody");
        let mut response = ByContentType.respond(spoken, &rejection);
        if *wants == Wants::Page {
            *response.body_mut() = Body::from(PAGE);
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
    <p>This server answers requests with an API key or a token, and a browser cannot send one when it opens a page.</p>
    <ul>
      <li>Whoever runs the server can open this page, and <code>/openapi.json</code>, to everybody: with the setting
        <code>auth.open_docs</code>, which is <code>--auth-open-docs</code> on the command line. Kernels stay closed: the
        page has a button, Authorize, for the credential.</li>
      <li>With a credential, the document that the page shows can be had by other means:
        <pre>curl -H "x-api-key: $KEY" .../openapi.json
curl -H "authorization: Bearer $TOKEN" .../openapi.json</pre></li>
    </ul>
  </body>
</html>
"#;
