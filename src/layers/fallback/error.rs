use crate::error::{Classify, ErrorKind};
use std::time::Duration;

/// The service failed and there was no second try, or both services failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackError<P, F> {
    /// The first service failed, and the other was not asked: because of what the error is, because of what the request
    /// is, or because there was no time left.
    #[error(transparent)]
    Primary(P),
    /// Both have failed. What the error says of itself is what the fallback's says, which came last.
    #[error("the service failed, and so did its fallback")]
    Both {
        /// Of the first service.
        primary: P,
        /// Of the fallback.
        #[source]
        fallback: F,
    },
}

impl<P: Classify, F: Classify> Classify for FallbackError<P, F> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Primary(error) => error.kind(),
            Self::Both { fallback, .. } => fallback.kind(),
        }
    }

    /// The sooner of the two, where both have failed: it is enough if one of them can answer.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Primary(error) => error.retry_after(),
            Self::Both { primary, fallback } => match (primary.retry_after(), fallback.retry_after()) {
                (Some(primary), Some(fallback)) => Some(primary.min(fallback)),
                (primary, fallback) => primary.or(fallback),
            },
        }
    }

    fn challenge(&self) -> Option<&http::HeaderValue> {
        match self {
            Self::Primary(error) => error.challenge(),
            Self::Both { fallback, .. } => fallback.challenge(),
        }
    }
}
