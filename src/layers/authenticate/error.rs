use std::convert::Infallible;
use std::time::Duration;

use http::HeaderValue;

use crate::error::{Classify, ErrorKind};

/// The request does not say who makes it, or the inner service failed.
///
/// What is wrong with a credential is not told: not to the client, who may be guessing, and so not here. The log has it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticateError<E> {
    /// There is no credential.
    #[error("the request carries no credential")]
    Missing {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// There is one, and it is not accepted.
    #[error("the credential is not accepted")]
    Denied {
        /// The value of `WWW-Authenticate`.
        challenge: HeaderValue,
    },
    /// The inner service failed.
    #[error(transparent)]
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

impl<E: Classify> Classify for AuthenticateError<E> {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Missing { .. } | Self::Denied { .. } => ErrorKind::Unauthenticated,
            Self::Inner(error) => error.kind(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Missing { .. } | Self::Denied { .. } => None,
            Self::Inner(error) => error.retry_after(),
        }
    }

    fn challenge(&self) -> Option<&HeaderValue> {
        match self {
            Self::Missing { challenge } | Self::Denied { challenge } => Some(challenge),
            Self::Inner(error) => error.challenge(),
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
