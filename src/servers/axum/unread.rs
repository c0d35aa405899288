//! Discards the body of requests to routes without one.

use ::axum::body::Body;
use ::axum::extract::Request;
use ::axum::middleware::Next;
use ::axum::response::Response;
use http::request::Parts;

use crate::servers::unread_body::UnreadBody;

/// Responds from the head of a request, and discards its body.
pub(super) async fn without_body(request: Request, respond: impl FnOnce(&Parts) -> Response) -> Response {
    let (head, body) = request.into_parts();
    let response = respond(&head);
    UnreadBody::of(head.version, &head.headers).finish(body, response).await
}

/// Middleware that discards the body of a request.
pub(super) async fn drop_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let unread = UnreadBody::of(head.version, &head.headers);
    let response = next.run(Request::from_parts(head, Body::empty())).await;
    unread.finish(body, response).await
}
