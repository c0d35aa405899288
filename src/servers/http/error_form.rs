//! The form of error responses, which depends on the path of the request.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderValue, Response};

use super::inference::InferenceError;
use crate::error::problem::{self, ProblemDocument};
use crate::request::request_id::RequestId;

/// The form of the error responses of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ErrorForm {
    /// A problem document.
    Problem,
    /// The error object of the Open Inference Protocol, whose clients look for its text in there.
    Inference,
}

impl ErrorForm {
    /// Returns the form of a path's errors.
    pub(crate) fn of_path(path: &str, inference_enabled: bool) -> Self {
        match path.strip_prefix("/v2") {
            Some(rest) if inference_enabled && (rest.is_empty() || rest.starts_with('/')) => Self::Inference,
            _ => Self::Problem,
        }
    }

    /// Completes a response that was made without the id of the request: adds the id to its headers, and rewrites a problem
    /// document, such as that of an [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer), with the id or as an error
    /// object.
    pub(crate) fn complete<B: From<Bytes>>(self, response: &mut Response<B>, id: &RequestId) {
        response.headers_mut().entry(RequestId::HEADER).or_insert_with(|| id.value().clone());
        // Middleware in between can have compressed or replaced the document.
        if let Some(document) = response.extensions_mut().remove::<ProblemDocument>()
            && !response.headers().contains_key(CONTENT_ENCODING)
            && response.headers().get(CONTENT_TYPE).is_some_and(|content_type| content_type == problem::CONTENT_TYPE)
        {
            let body = match self {
                Self::Problem => document.with_request_id(id.as_str()).to_json(),
                Self::Inference => {
                    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                    let error = serde_json::to_vec(&InferenceError { error: document.detail() });
                    error.expect("a string is JSON").into()
                }
            };
            *response.body_mut() = body.into();
        }
    }
}
