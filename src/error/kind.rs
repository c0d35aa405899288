//! Error kinds and their HTTP statuses and gRPC codes.

use std::fmt;

/// The kind of an error; the [module](super) has the table of statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is invalid; retrying does not help.
    InvalidArgument,
    /// Credentials are missing or invalid.
    Unauthenticated,
    /// No kernel has this id.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The condition of the request does not hold, such as that of `If-Match`.
    PreconditionFailed,
    /// The request exceeds a limit or the device's memory; retrying does not help.
    TooLarge,
    /// The request is valid, but no backend here can run it.
    Unsupported,
    /// A rate limit or quota is exceeded.
    RateLimited,
    /// Request cancelled.
    Cancelled,
    /// A bug or failure in the server.
    Internal,
    /// At capacity; retry later.
    Overloaded,
    /// A device or worker has failed.
    Unavailable,
    /// The kernel is not run for a while, as it has ended its process several times.
    Quarantined,
    /// The memory for requests is in use; retry later.
    MemoryExhausted,
    /// What is to be stored does not fit into the budget for it; retrying does not help until something is removed.
    InsufficientStorage,
    /// Deadline exceeded.
    DeadlineExceeded,
}

impl ErrorKind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 16] = [
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::NotFound,
        Self::AlreadyExists,
        Self::PreconditionFailed,
        Self::TooLarge,
        Self::Unsupported,
        Self::RateLimited,
        Self::Cancelled,
        Self::Internal,
        Self::Overloaded,
        Self::Unavailable,
        Self::Quarantined,
        Self::MemoryExhausted,
        Self::InsufficientStorage,
        Self::DeadlineExceeded,
    ];

    /// Stable, machine-readable name: the `code` of a problem document, `error.type` of a span, `outcome` of a metric.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::NotFound => "not_found",
            Self::AlreadyExists => "already_exists",
            Self::PreconditionFailed => "precondition_failed",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate_limited",
            Self::Quarantined => "quarantined",
            Self::MemoryExhausted => "memory_exhausted",
            Self::InsufficientStorage => "insufficient_storage",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// HTTP status of the response. 499 (Client Closed Request) is nginx's; it appears in logs and metrics only, as the
    /// client has closed the connection.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::AlreadyExists => 409,
            Self::PreconditionFailed => 412,
            Self::TooLarge => 413,
            Self::Unsupported => 422,
            Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::MemoryExhausted | Self::Overloaded | Self::Quarantined | Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
            Self::InsufficientStorage => 507,
        }
    }

    /// gRPC status code of the response.
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::AlreadyExists => 6,
            Self::RateLimited | Self::MemoryExhausted | Self::InsufficientStorage => 8,
            Self::PreconditionFailed => 9,
            Self::TooLarge => 11,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::Overloaded | Self::Quarantined | Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

/// Response extension: the [code](ErrorKind::code) of the error, which is more specific than the status.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "axum", feature = "grpc", feature = "hyper")),
    allow(dead_code, reason = "read by request counters of the servers")
)]
pub(crate) struct OutcomeCode(pub(crate) &'static str);

/// A set of error kinds, such as those that are retried or that count as failures.
///
/// ```
/// use tower_kernels::error::{ErrorKind, ErrorKinds};
///
/// let kinds = ErrorKinds::from([ErrorKind::Unavailable, ErrorKind::Overloaded]);
/// assert!(kinds.contains(ErrorKind::Overloaded) && !kinds.contains(ErrorKind::Internal));
/// ```
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct ErrorKinds(u16);

impl ErrorKinds {
    /// Whether the set contains `kind`.
    #[inline]
    pub const fn contains(self, kind: ErrorKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    pub(crate) const fn of(kinds: &[ErrorKind]) -> Self {
        let (mut set, mut index) = (0, 0);
        // Iterators cannot be used in a `const fn`.
        while index < kinds.len() {
            set |= 1 << kinds[index] as u16;
            index += 1;
        }
        Self(set)
    }
}

impl<const N: usize> From<[ErrorKind; N]> for ErrorKinds {
    fn from(kinds: [ErrorKind; N]) -> Self {
        Self::of(&kinds)
    }
}

impl FromIterator<ErrorKind> for ErrorKinds {
    fn from_iter<I: IntoIterator<Item = ErrorKind>>(kinds: I) -> Self {
        Self(kinds.into_iter().fold(0, |set, kind| set | 1 << kind as u16))
    }
}

impl fmt::Debug for ErrorKinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(ErrorKind::ALL.iter().filter(|kind| self.contains(**kind))).finish()
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_set_contains_the_kinds_that_it_was_made_of() {
        for kind in ErrorKind::ALL {
            let others = ErrorKind::ALL.into_iter().filter(|other| *other != kind).collect::<ErrorKinds>();
            assert!(!others.contains(kind) && ErrorKinds::from([kind]).contains(kind));
        }
    }

    #[test]
    fn codes_are_distinct() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }
}
