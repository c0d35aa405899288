//! Problem documents in the response of a rejected request.

use http::Response;

use super::{FromBytes, Rejection};
use crate::error::problem::{ProblemDocument, status_and_code};

pub(super) fn response<B: FromBytes>(rejection: &Rejection) -> Response<B> {
    let document = ProblemDocument::new(status_and_code(rejection.kind), rejection.detail.as_str());
    document.into_response(rejection.retry_after, rejection.challenge.as_ref()).map(B::from_bytes)
}
