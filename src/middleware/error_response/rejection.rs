use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, ClientMessage, ErrorKind};

/// An error as it is shown to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rejection {
    /// The kind of the error.
    pub kind: ErrorKind,
    /// Time after which the same request can succeed, if known.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate` value for a 401.
    pub challenge: Option<HeaderValue>,
    /// The texts of the error and its sources, joined with `": "`. That of an internal error is generic; its texts are logged.
    pub detail: String,
}

impl Rejection {
    /// Creates the rejection for `error`, and logs the texts of an internal one.
    pub fn new(error: &impl AnyError) -> Self {
        let ClientMessage { text: detail, internal } = ClientMessage::of(error);
        if let Some(internal) = internal {
            internal.log(None);
        }
        let Classification { kind, retry_after, challenge } = error.classify();
        Self { kind, retry_after, challenge, detail }
    }
}

impl<E: AnyError> From<E> for Rejection {
    fn from(error: E) -> Self {
        Self::new(&error)
    }
}
