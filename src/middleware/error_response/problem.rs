//! Problem documents in the response of a rejected request.

use http::Response;

use super::{FromBytes, Refusal};
use crate::error::problem::{ProblemDocument, status_and_code};

pub(super) fn response<B: FromBytes>(refusal: &Refusal) -> Response<B> {
    let document = ProblemDocument::new(status_and_code(refusal.kind), refusal.detail.as_str());
    document.into_response(refusal.retry_after, refusal.challenge.as_ref()).map(B::from_bytes)
}
