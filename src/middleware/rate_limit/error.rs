use std::fmt;
use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The error of a [`RateLimiter`](super::RateLimiter).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimitError<E> {
    /// The quota is used up.
    Limited {
        /// The time until there is a token, if no other call takes it.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(RateLimitError(Inner) {
    Self::Limited { retry_after } => ErrorKind::RateLimited, Some(*retry_after),
        "the rate limit is reached; retry in {retry_after:?}";
});

/// A quota that cannot be enforced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InvalidQuota {
    /// The number of calls is zero.
    NoCalls,
    /// The period is zero.
    NoPeriod,
    /// The period is longer than 100 years.
    PeriodTooLong,
}

impl fmt::Display for InvalidQuota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoCalls => "a rate limit must allow at least one call per period",
            Self::NoPeriod => "the period of a rate limit must be longer than zero",
            Self::PeriodTooLong => "the period of a rate limit must be shorter than 100 years",
        })
    }
}

impl std::error::Error for InvalidQuota {}
