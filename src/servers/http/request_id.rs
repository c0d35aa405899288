use bytes::Bytes;
use http::Response;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};

use crate::error::problem::{self, ProblemDocument};
use crate::request::request_id::RequestId;

/// Adds the id of the request to a response without one: to its headers, and to the problem document that an
/// [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer) has written.
pub(crate) fn add_request_id<B: From<Bytes>>(response: &mut Response<B>, id: &RequestId) {
    response.headers_mut().entry(RequestId::HEADER).or_insert_with(|| id.value().clone());
    // Middleware in between can have compressed or replaced the document.
    if let Some(document) = response.extensions_mut().remove::<ProblemDocument>()
        && !response.headers().contains_key(CONTENT_ENCODING)
        && response.headers().get(CONTENT_TYPE).is_some_and(|content_type| content_type == problem::CONTENT_TYPE)
    {
        *response.body_mut() = document.with_request_id(id.as_str()).to_json().into();
    }
}
