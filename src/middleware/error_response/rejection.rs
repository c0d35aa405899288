use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, ErrorKind, Told};

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
        let Told { detail, hidden } = Told::of(error);
        if let Some(hidden) = hidden {
            hidden.log(None);
        }
        let Classification { kind, retry_after, challenge } = error.classify();
        Self { kind, retry_after, challenge, detail }
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)
    }
}
