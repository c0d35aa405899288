use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{AnyError, Classification, Classify, ErrorKind, provide};

/// The request does not say who makes it, or the inner service failed.
///
/// What is wrong with a credential is not told: not to the client, who may be guessing, and so not here. The log has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AuthenticateError<E> {
    /// There is no credential.
    Missing {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// There is one, and it is not accepted.
    Denied {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The inner service failed.
    Inner(E),
}

impl AuthenticateError<Infallible> {
    /// The same refusal, as an error around an inner service.
    #[cold]
    pub(super) fn around<E>(self) -> AuthenticateError<E> {
        match self {
            Self::Missing { challenge } => AuthenticateError::Missing { challenge },
            Self::Denied { challenge } => AuthenticateError::Denied { challenge },
        }
    }
}

/// What a service without the layer fails with, in the terms of one with it.
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

/// What `WWW-Authenticate` says, after [RFC 6750](https://www.rfc-editor.org/rfc/rfc6750#section-3).
#[derive(Clone, Debug)]
pub(super) struct Challenges {
    /// To who brings nothing: without a code, as there is no error yet.
    missing: HeaderValue,
    denied: HeaderValue,
}

impl Challenges {
    /// `None` where the realm cannot be written into a header.
    pub(super) fn new(realm: &str) -> Option<Self> {
        let realm = realm.replace('\\', r"\\").replace('"', "\\\"");
        let missing = HeaderValue::try_from(format!(r#"Bearer realm="{realm}""#)).ok()?;
        let denied = HeaderValue::try_from(format!(r#"Bearer realm="{realm}", error="invalid_token""#)).ok()?;
        Some(Self { missing, denied })
    }

    #[cold]
    pub(super) fn missing(&self) -> AuthenticateError<Infallible> {
        AuthenticateError::Missing { challenge: self.missing.clone() }
    }

    #[cold]
    pub(super) fn denied(&self) -> AuthenticateError<Infallible> {
        AuthenticateError::Denied { challenge: self.denied.clone() }
    }
}
