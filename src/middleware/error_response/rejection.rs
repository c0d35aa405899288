use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, ClientMessage, ErrorKind};

/// What is left of an error when it is to be told to a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refusal {
    /// What kind of refusal it is.
    pub kind: ErrorKind,
    /// When the same request can succeed, where that is known.
    pub retry_after: Option<Duration>,
    /// How to say who asks, where that is what is missing.
    pub challenge: Option<HeaderValue>,
    /// The error and its sources, joined with `": "`. Of an internal error it says no more than that it is one: what
    /// the error says goes to the log.
    pub detail: String,
}

impl Refusal {
    /// What `error` says of itself.
    pub fn new(error: &impl AnyError) -> Self {
        let ClientMessage { text: detail, internal } = ClientMessage::of(error);
        if let Some(internal) = internal {
            internal.log(None);
        }
        let Classification { kind, retry_after, challenge } = error.classify();
        Self { kind, retry_after, challenge, detail }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
