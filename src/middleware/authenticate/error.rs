use http::HeaderValue;

use crate::error::{Classification, ErrorKind, layer_error};

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

layer_error!(AuthenticateError(Inner) {
    Self::Missing { challenge } => unauthenticated(challenge), None, "the request carries no credential";
    Self::Denied { challenge } => unauthenticated(challenge), None, "the credential is not accepted";
});

fn unauthenticated(challenge: &HeaderValue) -> Classification {
    Classification::new(ErrorKind::Unauthenticated).with_challenge(challenge.clone())
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
