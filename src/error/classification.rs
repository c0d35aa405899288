//! [`Classify`]: how an error reports its kind and when to retry.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;

use super::ErrorKind;

/// Reports the kind of an error and when to retry.
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
/// Layers and servers accept any [`AnyError`](super::AnyError), which is implemented for every error with this trait
/// and for boxed errors.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not say what kind of error it is",
    label = "`Classify` is not implemented for `{Self}`",
    note = "implement `tower_kernels::error::Classify` for `{Self}`: its method `kind` returns an `ErrorKind`",
    note = "for an error type of another crate, put `tower_kernels::layers::ClassifyLayer` directly around the service \
            that returns it",
    note = "see the page `tower_kernels::compile_errors`"
)]
pub trait Classify {
    /// The kind of this error.
    fn kind(&self) -> ErrorKind;

    /// How long to wait before retrying, if known.
    fn retry_after(&self) -> Option<Duration> {
        None
    }

    /// `WWW-Authenticate` value for a 401.
    fn challenge(&self) -> Option<HeaderValue> {
        None
    }

    /// Returns all of the above in one value.
    #[inline]
    fn classification(&self) -> Classification {
        Classification { kind: self.kind(), retry_after: self.retry_after(), challenge: self.challenge() }
    }
}

/// The kind of an error, when to retry, and how to authenticate.
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
    /// The kind of the error.
    pub kind: ErrorKind,
    /// How long to wait before retrying, if known.
    pub retry_after: Option<Duration>,
    /// `WWW-Authenticate` value for a 401.
    pub challenge: Option<HeaderValue>,
}

impl Classification {
    /// Creates a classification of this kind, without `retry_after` and `challenge`.
    #[inline]
    pub const fn new(kind: ErrorKind) -> Self {
        Self { kind, retry_after: None, challenge: None }
    }

    /// Sets how long to wait before retrying.
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

impl Classify for Infallible {
    fn kind(&self) -> ErrorKind {
        match *self {}
    }
}

/// Implements [`Classify`] for a smart pointer by that of the error it points to.
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
