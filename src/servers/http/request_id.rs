//! The name of one request, in the answer, in problem documents and in the client's logs.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response};

use crate::error::problem::{self, ProblemDocument};
use crate::servers::headers::{REQUEST_ID, is_request_id, made_request_id};

/// The client's `x-request-id`, or one made here.
#[derive(Clone, Debug)]
pub(crate) struct RequestId(HeaderValue);

impl RequestId {
    pub(crate) const HEADER: HeaderName = REQUEST_ID;

    /// The one that the client sent, where it is of at most 128 visible ASCII characters; else a new one.
    pub(crate) fn of(headers: &HeaderMap) -> Self {
        let theirs = headers.get(Self::HEADER).filter(|id| is_request_id(id.as_bytes()));
        Self(
            theirs
                .cloned()
                .unwrap_or_else(|| HeaderValue::try_from(made_request_id()).expect("hex digits are visible ASCII")),
        )
    }

    pub(crate) fn as_str(&self) -> &str {
        self.0.to_str().expect("checked to be visible ASCII")
    }

    pub(crate) fn value(&self) -> &HeaderValue {
        &self.0
    }

    /// Adds the id to a response without one: to its headers, and to the problem document that an
    /// [`ErrorResponseLayer`](crate::layers::ErrorResponseLayer) has written.
    pub(crate) fn add_to<B: From<Bytes>>(&self, response: &mut Response<B>) {
        response.headers_mut().entry(Self::HEADER).or_insert_with(|| self.0.clone());
        // Middleware in between can have compressed or replaced the document.
        if let Some(document) = response.extensions_mut().remove::<ProblemDocument>()
            && !response.headers().contains_key(CONTENT_ENCODING)
            && response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == problem::CONTENT_TYPE)
        {
            *response.body_mut() = document.with_request_id(self.as_str()).to_json().into();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_id_is_echoed_unless_it_is_none() {
        let of = |id| RequestId::of(&HeaderMap::from_iter([(RequestId::HEADER, HeaderValue::from_static(id))]));
        assert_eq!(of("job-7/a").as_str(), "job-7/a");
        assert!(of("a b").as_str().starts_with("req-"));
        assert!(RequestId::of(&HeaderMap::new()).as_str().starts_with("req-"));
    }
}
