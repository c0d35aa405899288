//! What every error can say of itself: what kind of refusal it is, and when to retry.
//!
//! Layers do not erase errors, they nest them: the error of a stack is an enum of enums, and each level answers
//! [`Classify`] for itself or passes the question on. Whoever stands at the edge (REST, gRPC, actix, your code) asks
//! the outermost error for its [`ErrorKind`], and all of them answer alike from the one table below.
//!
//! Errors that other layers put into boxes, as tower's `Buffer`, `LoadShed` and `Timeout` do, are classified by what is in
//! the box: see [`classify`](fn@classify). Layers and servers accept both, as [`AnyError`].
//!
//! | kind | code | HTTP | gRPC | meaning |
//! |---|---|---|---|---|
//! | `InvalidArgument` | `invalid_argument` | 400 | 3 `INVALID_ARGUMENT` | the request is wrong, and stays wrong |
//! | `Unauthenticated` | `unauthenticated` | 401 | 16 `UNAUTHENTICATED` | no credentials, or wrong ones |
//! | `NotFound` | `not_found` | 404 | 5 `NOT_FOUND` | no kernel of this id |
//! | `TooLarge` | `too_large` | 413 | 11 `OUT_OF_RANGE` | can never fit, on this device or under this limit |
//! | `Unsupported` | `unsupported` | 422 | 12 `UNIMPLEMENTED` | understood, and nothing here can run it |
//! | `RateLimited` | `rate_limited` | 429 | 8 `RESOURCE_EXHAUSTED` | a quota is used up |
//! | `Cancelled` | `cancelled` | 499 | 1 `CANCELLED` | the caller left |
//! | `Internal` | `internal` | 500 | 13 `INTERNAL` | a defect on this side |
//! | `Overloaded` | `overloaded` | 503 | 14 `UNAVAILABLE` | full just now |
//! | `Unavailable` | `unavailable` | 503 | 14 `UNAVAILABLE` | a device or worker is gone |
//! | `MemoryExhausted` | `memory_exhausted` | 503 | 8 `RESOURCE_EXHAUSTED` | requests hold all the memory that they may just now |
//! | `DeadlineExceeded` | `deadline_exceeded` | 504 | 4 `DEADLINE_EXCEEDED` | the time was up |

mod any;
mod erased;

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

pub use self::any::AnyError;
pub use self::erased::classify;
pub(crate) use self::erased::{classify_with, provide};
use crate::panics::LogLimit;

mod chain;

pub use self::chain::{Chain, chain};

/// What kind of refusal or failure an error is. The [module](self) holds the table of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The request is wrong and will stay wrong.
    InvalidArgument,
    /// No credentials, or wrong ones.
    Unauthenticated,
    /// No kernel of this id.
    NotFound,
    /// The request can never fit: on this device, or under this limit.
    TooLarge,
    /// The request is understood, and nothing here can run it.
    Unsupported,
    /// A quota is used up.
    RateLimited,
    /// The caller left before the answer.
    Cancelled,
    /// A defect on this side.
    Internal,
    /// Full just now.
    Overloaded,
    /// A device or a worker is gone.
    Unavailable,
    /// Requests hold all the memory that they may, just now.
    MemoryExhausted,
    /// The time was up.
    DeadlineExceeded,
}

impl ErrorKind {
    /// Every kind, in the order of the table.
    pub const ALL: [Self; 12] = [
        Self::InvalidArgument,
        Self::Unauthenticated,
        Self::NotFound,
        Self::TooLarge,
        Self::Unsupported,
        Self::RateLimited,
        Self::Cancelled,
        Self::Internal,
        Self::Overloaded,
        Self::Unavailable,
        Self::MemoryExhausted,
        Self::DeadlineExceeded,
    ];

    /// A stable name for machines: the `code` of a problem document, the `error.type` of a span, a metric's `outcome`.
    pub const fn code(self) -> &'static str {
        match self {
            Self::InvalidArgument => "invalid_argument",
            Self::Unauthenticated => "unauthenticated",
            Self::NotFound => "not_found",
            Self::TooLarge => "too_large",
            Self::Unsupported => "unsupported",
            Self::RateLimited => "rate_limited",
            Self::MemoryExhausted => "memory_exhausted",
            Self::Cancelled => "cancelled",
            Self::Internal => "internal",
            Self::Overloaded => "overloaded",
            Self::Unavailable => "unavailable",
            Self::DeadlineExceeded => "deadline_exceeded",
        }
    }

    /// The HTTP status that says this. 499 (client closed request) is nginx's; nobody is left to read it but the log.
    pub const fn http_status(self) -> u16 {
        match self {
            Self::InvalidArgument => 400,
            Self::Unauthenticated => 401,
            Self::NotFound => 404,
            Self::TooLarge => 413,
            Self::Unsupported => 422,
            Self::RateLimited => 429,
            Self::Cancelled => 499,
            Self::Internal => 500,
            Self::MemoryExhausted | Self::Overloaded | Self::Unavailable => 503,
            Self::DeadlineExceeded => 504,
        }
    }

    /// The number of the gRPC status that says this.
    pub const fn grpc_code(self) -> i32 {
        match self {
            Self::Cancelled => 1,
            Self::InvalidArgument => 3,
            Self::DeadlineExceeded => 4,
            Self::NotFound => 5,
            Self::RateLimited | Self::MemoryExhausted => 8,
            Self::TooLarge => 11,
            Self::Unsupported => 12,
            Self::Internal => 13,
            Self::Overloaded | Self::Unavailable => 14,
            Self::Unauthenticated => 16,
        }
    }
}

/// The code of a refusal, among the extensions of the response that tells it: a status alone does not say all of it.
#[derive(Clone, Copy, Debug)]
#[cfg_attr(
    not(any(feature = "axum", feature = "grpc", feature = "hyper")),
    allow(dead_code, reason = "what counts requests reads it")
)]
pub(crate) struct OutcomeCode(pub(crate) &'static str);

/// A set of kinds: which failures count, or which are worth another try.
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
    /// Whether `kind` is one of them.
    #[inline]
    pub const fn contains(self, kind: ErrorKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }

    pub(crate) const fn of(kinds: &[ErrorKind]) -> Self {
        let (mut set, mut at) = (0, 0);
        while at < kinds.len() {
            set |= 1 << kinds[at] as u16;
            at += 1;
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

/// An error that can say what kind of refusal it is and when to try again.
///
/// ```
/// use std::time::Duration;
/// use tower_kernels::error::{Classify, ErrorKind};
///
/// #[derive(Debug, thiserror::Error)]
/// #[error("the upstream is restarting")]
/// struct Restarting;
///
/// impl Classify for Restarting {
///     fn kind(&self) -> ErrorKind {
///         ErrorKind::Unavailable
///     }
///     fn retry_after(&self) -> Option<Duration> {
///         Some(Duration::from_secs(2))
///     }
/// }
///
/// assert_eq!(Restarting.kind().http_status(), 503);
/// ```
///
/// Layers and servers ask for [`AnyError`], which every error with this trait is, and which boxed errors are as well.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what kind of error it is",
    label = "`Classify` is not implemented for `{Self}`",
    note = "implement `tower_kernels::error::Classify` for `{Self}`: its method `kind` returns an `ErrorKind`",
    note = "for an error type of another crate, put `tower_kernels::layers::ClassifyLayer` directly around the service \
            that returns it",
    note = "see the page `tower_kernels::compile_errors`"
)]
pub trait Classify {
    /// What kind of refusal or failure this is.
    fn kind(&self) -> ErrorKind;

    /// How long to wait before the same request can succeed, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// `WWW-Authenticate` value for a 401.
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// All of the above in one value.
    #[inline]
    fn classification(&self) -> Classification {
        Classification { kind: self.kind(), retry_after: self.retry_after(), challenge: self.challenge() }
    }
}

/// What an error says of itself: its kind, and what goes with it.
///
/// ```
/// use std::time::Duration;
/// use tower_kernels::error::{Classification, ErrorKind};
///
/// let full = Classification::new(ErrorKind::Overloaded).with_retry_after(Duration::from_secs(2));
/// assert_eq!(full.retry_after, Some(Duration::from_secs(2)));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Classification {
    /// What kind of error it is.
    pub kind: ErrorKind,
    /// How long to wait before the same request can succeed, where that is known.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate` value for a 401.
    pub challenge: Option<HeaderValue>,
}

impl Classification {
    /// An error of this kind, of which no more is known.
    #[inline]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, retry_after: None, challenge: None }
    }

    /// Sets how long to wait before the same request can succeed.
    #[must_use]
    pub fn with_retry_after(mut self, wait: Duration) -> Self {
        self.retry_after = Some(wait);
        self
    }

    /// Sets the `WWW-Authenticate` value for a 401.
    #[must_use]
    pub fn with_challenge(mut self, challenge: HeaderValue) -> Self {
        self.challenge = Some(challenge);
        self
    }
}

impl From<ErrorKind> for Classification {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<&Classification> for Classification {
    fn from(classification: &Classification) -> Self {
        classification.clone()
    }
}

/// `Display`, `Error` and `Classify` for the error of a layer, over any error inside of it, boxed ones included.
///
/// The variants of its own have a kind, the time to retry and a text; those in parentheses hold the error of the
/// inner service, and are it in all of this. Not thiserror's derive: that asks for `E: Error`, which a `BoxError` is not.
macro_rules! layer_error {
    (@from $error:ident($inner:ident $(, $more:ident)*)) => {
        /// What a service without the layer fails with, in the terms of one with it.
        impl<E> From<E> for $error<E> {
            fn from(error: E) -> Self {
                Self::$inner(error.into())
            }
        }
    };
    (
        $error:ident($($inner:ident),+) {
            $($pattern:pat => $kind:expr, $retry_after:expr, $($text:expr),+;)+
        }
    ) => {
        layer_error!(@from $error($($inner),+));

        impl<E: std::fmt::Display> std::fmt::Display for $error<E> {
            #[allow(unused_variables, reason = "what a pattern binds need not be in the text")]
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                match self {
                    $($pattern => write!(f, $($text),+),)+
                    $(Self::$inner(error) => E::fmt(error, f),)+
                }
            }
        }

        impl<E: $crate::error::AnyError> std::error::Error for $error<E> {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                $crate::error::provide(self);
                match self {
                    $(Self::$inner(error) => E::as_error(error).source(),)+
                    _ => None,
                }
            }
        }

        impl<E: $crate::error::AnyError> $crate::error::Classify for $error<E> {
            fn kind(&self) -> $crate::error::ErrorKind {
                self.classification().kind
            }

            fn retry_after(&self) -> Option<std::time::Duration> {
                self.classification().retry_after
            }

            fn challenge(&self) -> Option<http::HeaderValue> {
                self.classification().challenge
            }

            #[allow(unused_variables, reason = "what a pattern binds need not be the time to retry")]
            fn classification(&self) -> $crate::error::Classification {
                let (kind, retry_after) = match self {
                    $($pattern => ($kind, $retry_after),)+
                    $(Self::$inner(error) => return E::classify(error),)+
                };
                let mut classification = $crate::error::Classification::new(kind);
                classification.retry_after = retry_after;
                classification
            }
        }
    };
}
pub(crate) use layer_error;

impl Classify for Infallible {
    fn kind(&self) -> ErrorKind {
        match *self {}
    }
}

/// A pointer to an error is of the same kind as the error.
macro_rules! classify_pointer {
    ($($pointer:ident),+) => {$(
        impl<E: Classify + ?Sized> Classify for $pointer<E> {
            fn kind(&self) -> ErrorKind {
                (**self).kind()
            }
            fn retry_after(&self) -> Option<Duration> {
                (**self).retry_after()
            }
            fn challenge(&self) -> Option<HeaderValue> {
                (**self).challenge()
            }
            fn classification(&self) -> Classification {
                (**self).classification()
            }
        }
    )+};
}
classify_pointer!(Box, Arc);

/// What a client is told in place of the text of an internal error, which can hold what is nobody's business: another
/// client's data, paths, the inside of a kernel. The text goes to the log.
pub(crate) const INTERNAL_DETAIL: &str = "an internal error; the server's log says more about this request";

/// What an error says of itself, in two parts: what a client is told, and what only the log is.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) detail: String,
    /// `None` where the client is told all. In a box, as few errors have it.
    pub(crate) hidden: Option<Box<Hidden>>,
}

/// What only the log is told of an internal error.
#[derive(Debug)]
pub(crate) struct Hidden {
    text: String,
    kernel: Option<Box<str>>,
}

impl Told {
    /// A text of an error of this kind.
    pub(crate) fn new(kind: ErrorKind, text: String) -> Self {
        match kind {
            ErrorKind::Internal => {
                Self { detail: INTERNAL_DETAIL.to_owned(), hidden: Some(Box::new(Hidden { text, kernel: None })) }
            }
            _ => Self { detail: text, hidden: None },
        }
    }

    /// An error and its causes.
    pub(crate) fn of(error: &impl AnyError) -> Self {
        Self::new(error.classify().kind, chain(error.as_error()).to_string())
    }
}

impl Hidden {
    /// Which kernel was to run.
    #[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
    pub(crate) fn set_kernel(&mut self, id: &str) {
        self.kernel = Some(id.into());
    }

    /// Writes it to the log, with what finds it there. Clients can make many of these, so there are some lines a second and
    /// no more.
    pub(crate) fn log(&self, request_id: Option<&str>) {
        static LIMIT: LogLimit = LogLimit::new();
        let Self { text, kernel } = self;
        if let Some(left_out) = LIMIT.next() {
            tracing::error!(request_id, kernel, error = text, left_out, "an internal error was answered");
        }
    }
}

/// The error itself, or the first of its causes, that is a `T`.
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) fn find<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    std::iter::successors(Some(error), |&error| error.source()).find_map(|error| error.downcast_ref())
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, ErrorKinds};
    use std::collections::HashSet;

    #[test]
    fn the_table_in_the_docs_is_the_table_in_the_code() {
        let docs = include_str!("error.rs");
        for kind in ErrorKind::ALL {
            let row = format!("//! | `{kind:?}` | `{}` | {} | {} `", kind.code(), kind.http_status(), kind.grpc_code());
            assert!(docs.contains(&row), "no such row in the module's table: {row}");
        }
    }

    #[test]
    fn a_set_has_the_kinds_that_it_was_made_of() {
        for kind in ErrorKind::ALL {
            let others = ErrorKind::ALL.into_iter().filter(|other| *other != kind).collect::<ErrorKinds>();
            assert!(!others.contains(kind) && ErrorKinds::from([kind]).contains(kind));
        }
    }

    #[test]
    fn a_cause_that_an_error_repeats_is_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("the service failed: {0}")]
        struct Repeats(#[source] std::num::ParseIntError);

        let cause = "a".parse::<u8>().unwrap_err();
        assert_eq!(super::chain(&Repeats(cause)).to_string(), "the service failed: invalid digit found in string");
    }

    #[test]
    fn codes_are_distinct() {
        let codes: HashSet<_> = ErrorKind::ALL.iter().map(|kind| kind.code()).collect();
        assert_eq!(codes.len(), ErrorKind::ALL.len());
    }
}
