use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};

/// Error of [`Fallback`](super::Fallback): the primary service failed, or both services did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FallbackError<P, F> {
    /// The primary service failed, and the fallback was not called: because of the error, because of the request, or because
    /// the deadline had passed.
    Primary(P),
    /// Both failed. The error is classified as the fallback's.
    Both {
        /// The error of the primary service.
        primary: P,
        /// The error of the fallback.
        fallback: F,
    },
}

/// An error of the service without the layer.
impl<P, F> From<P> for FallbackError<P, F> {
    fn from(error: P) -> Self {
        Self::Primary(error)
    }
}

impl<P: fmt::Display, F> fmt::Display for FallbackError<P, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Primary(error) => error.fmt(f),
            Self::Both { .. } => f.write_str("the service and its fallback failed"),
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

    /// If both failed, the retry-after is the sooner of the two, as one of them is enough.
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
