use std::time::Duration;

use http::HeaderValue;

use crate::error::{Classify, ErrorKind};

/// The deadline passed, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TimeoutError<E> {
    /// The deadline passed.
    #[error("the deadline passed {}", if *.called { "before the answer was there" } else { "before the call" })]
    Elapsed {
        /// Whether the inner service had been called. If not, nothing was begun.
        called: bool,
    },
    /// The inner service failed.
    #[error(transparent)]
    Inner(E),
}

impl<E: Classify> Classify for TimeoutError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Elapsed { .. } => ErrorKind::DeadlineExceeded,
            Self::Inner(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Elapsed { .. } => None,
            Self::Inner(error) => error.retry_after(),
        }
    }

    fn challenge(&self) -> Option<&HeaderValue> {
        match self {
            Self::Elapsed { .. } => None,
            Self::Inner(error) => error.challenge(),
        }
    }
}
