use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};

/// The error of an [`Authenticate`](super::Authenticate).
///
/// It does not say why a credential was denied, so that a client that guesses credentials learns nothing. The log does.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticateError<E> {
    /// The request has no credential.
    Missing {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The credential was not accepted.
    Denied {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The inner service failed.
    Inner(E),
}

/// Wraps an error of the inner service.
impl<E> From<E> for AuthenticateError<E> {
    fn from(error: E) -> Self {
        Self::Inner(error)
    }
}

impl<E: fmt::Display> fmt::Display for AuthenticateError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing { .. } => f.write_str("the request carries no credential"),
            Self::Denied { .. } => f.write_str("the credential is not accepted"),
            Self::Inner(error) => error.fmt(f),
        }
    }
}

impl<E: AnyError> Error for AuthenticateError<E> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        provide(self);
        match self {
            Self::Missing { .. } | Self::Denied { .. } => None,
            Self::Inner(error) => error.as_error().source(),
        }
    }
}

impl<E: AnyError> Classify for AuthenticateError<E> {
    fn kind(&self) -> ErrorKind {
        self.classification().kind
    }

    fn retry_after(&self) -> Option<Duration> {
        self.classification().retry_after
    }

    fn challenge(&self) -> Option<HeaderValue> {
        self.classification().challenge
    }

    fn classification(&self) -> Classification {
        match self {
            Self::Missing { challenge } | Self::Denied { challenge } => {
                Classification::new(ErrorKind::Unauthenticated).with_challenge(challenge.clone())
            }
            Self::Inner(error) => error.classify(),
        }
    }
}

/// Returns the values of `WWW-Authenticate` for a missing and a denied credential, after
/// [RFC 6750](https://www.rfc-editor.org/rfc/rfc6750#section-3), or `None` if a header cannot hold the realm.
pub(super) fn challenges(realm: &str) -> Option<(HeaderValue, HeaderValue)> {
    let realm = realm.replace('\\', r"\\").replace('"', "\\\"");
    // The RFC recommends no error code for requests without a credential.
    let missing = HeaderValue::try_from(format!(r#"Bearer realm="{realm}""#)).ok()?;
    let denied = HeaderValue::try_from(format!(r#"Bearer realm="{realm}", error="invalid_token""#)).ok()?;
    Some((missing, denied))
}
