use std::time::Duration;

use crate::error::{ErrorKind, layer_error};

/// The quota is used up, or the inner service failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateLimitError<E> {
    /// The quota is used up.
    Limited {
        /// When there will be a token, if nobody else takes it.
        retry_after: Duration,
    },
    /// The inner service failed.
    Inner(E),
}

layer_error!(RateLimitError(Inner) {
    Self::Limited { retry_after } => ErrorKind::RateLimited, Some(*retry_after),
        "the rate limit is reached; a call can be made in {retry_after:?}";
});

/// Not a quota that can be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidQuota {
    /// A quota of no calls lets nothing through, ever.
    #[error("a rate limit must let through at least one call a period")]
    NoCalls,
    /// A period of no time is no limit.
    #[error("the period of a rate limit must be longer than zero")]
    NoPeriod,
    /// Time is counted in nanoseconds, in 64 bits.
    #[error("the period of a rate limit must be shorter than 100 years")]
    PeriodTooLong,
}
