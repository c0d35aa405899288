use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};

/// The service failed and there was no second try, or both services failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackError<P, F> {
    /// The first service failed, and the other was not asked: because of what the error is, because of what the request
    /// is, or because there was no time left.
    Primary(P),
    /// Both have failed. What the error says of itself is what the fallback's says, which came last.
    Both {
        /// Of the first service.
        primary: P,
        /// Of the fallback.
        fallback: F,
    },
}

/// What a service without the layer fails with, in the terms of one with it.
impl<P, F> From<P> for FallbackError<P, F> {
    fn from(error: P) -> Self {
        Self::Primary(error)
    }
}

impl<P: fmt::Display, F> fmt::Display for FallbackError<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(error) => error.fmt(f),
            Self::Both { .. } => f.write_str("the service failed, and so did its fallback"),
        }
    }
}

impl<P: AnyError, F: AnyError> Error for FallbackError<P, F> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::Primary(error) => error.as_error().source(),
            Self::Both { fallback, .. } => Some(fallback.as_error()),
        }
    }
}

impl<P: AnyError, F: AnyError> Classify for FallbackError<P, F> {
    fn kind(&self) -> ErrorKind {
        self.classification().kind
    }

    fn retry_after(&self) -> Option<Duration> {
        self.classification().retry_after
    }

    fn challenge(&self) -> Option<HeaderValue> {
        self.classification().challenge
    }

    /// Where both have failed, the time to retry is the sooner of the two: it is enough if one of them can answer.
    fn classification(&self) -> Classification {
        match self {
            Self::Primary(error) => error.classify(),
            Self::Both { primary, fallback } => {
                let mut classification = fallback.classify();
                let (first, second) = (primary.classify().retry_after, classification.retry_after);
                classification.retry_after = first.into_iter().chain(second).min();
                classification
            }
        }
    }
}
