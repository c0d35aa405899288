use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{Classify, ErrorKind, chain};

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
    /// The error and its sources, joined with `": "`.
    pub detail: String,
}

impl Refusal {
    /// What `error` says of itself.
    pub fn new<E: Classify + Error>(error: &E) -> Self {
        Self {
            kind: error.kind(),
            retry_after: error.retry_after(),
            challenge: error.challenge().cloned(),
            detail: chain(error),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
