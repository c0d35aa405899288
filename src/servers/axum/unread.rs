//! Routes that need no body, and are sent one.

use ::axum::body::Body;
use ::axum::extract::Request;
use ::axum::middleware::Next;
use ::axum::response::Response;
use http::request::Parts;

use crate::servers::unread_body::UnreadBody;

/// Answers by the head of a request alone, and deals with its body.
pub(super) async fn without_body(request: Request, answer: impl FnOnce(&Parts) -> Response) -> Response {
    let (head, body) = request.into_parts();
    let response = answer(&head);
    UnreadBody::of(head.version, &head.headers).finish(body, response).await
}

/// The same as a layer around the handler of a route.
pub(super) async fn drop_body(request: Request, next: Next) -> Response {
    let (head, body) = request.into_parts();
    let unread = UnreadBody::of(head.version, &head.headers);
    let response = next.run(Request::from_parts(head, Body::empty())).await;
    unread.finish(body, response).await
}
