//! Reads the credential of a request.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Denied;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Maximum length of a credential. Longer ones are rejected before they are hashed or parsed.
const MAX_BYTES: usize = 16 * 1024;

/// The API key or token of a request. `Debug` does not print it.
#[derive(Clone, Copy)]
pub struct Credential<'a>(&'a str);

impl<'a> Credential<'a> {
    /// Creates a credential that was not read from a header.
    pub const fn new(secret: &'a str) -> Self {
        Self(secret)
    }

    /// Returns the secret.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// Returns the credential in the headers, or `None` if there is none. More than one is an error.
    ///
    /// Schemes of `authorization` other than `Bearer` are ignored, because a proxy in front may use one of its own.
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Option<Self>, Denied> {
        let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer);
        let keys = headers.get_all(API_KEY).iter().map(HeaderValue::as_bytes);
        let mut found = bearer.chain(keys);
        let Some(secret) = found.next() else { return Ok(None) };
        // It would be ambiguous which of the two counts.
        if found.next().is_some() {
            return Err(Denied::new("more than one credential"));
        }
        if secret.len() > MAX_BYTES {
            return Err(Denied::new("the credential is too long"));
        }
        match std::str::from_utf8(secret) {
            Ok(secret) if !secret.is_empty() => Ok(Some(Self(secret))),
            Ok(_) => Err(Denied::new("the credential is empty")),
            Err(_) => Err(Denied::new("the credential is not text")),
        }
    }
}

/// Returns the token after the scheme `Bearer`, which is case-insensitive.
fn bearer(value: &HeaderValue) -> Option<&[u8]> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    let is_bearer = scheme.eq_ignore_ascii_case(b"bearer") && rest.first().is_none_or(|&byte| byte == b' ');
    is_bearer.then(|| rest.trim_ascii())
}

impl fmt::Debug for Credential<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(headers: &[(&str, &str)]) -> Result<Option<String>, String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::try_from(*name).unwrap(), HeaderValue::try_from(*value).unwrap());
        }
        let found = Credential::read(&map).map_err(|denied| denied.to_string())?;
        Ok(found.map(|credential| credential.as_str().to_owned()))
    }

    #[test]
    fn a_credential_is_read_from_either_header() {
        for headers in [
            [("authorization", "Bearer abc")],
            [("authorization", "bearer  abc")],
            [("authorization", "BEARER abc")],
            [("x-api-key", "abc")],
        ] {
            assert_eq!(read(&headers), Ok(Some("abc".to_owned())), "{headers:?}");
        }
        assert_eq!(read(&[("authorization", "Basic eA=="), ("x-api-key", "abc")]), Ok(Some("abc".to_owned())));
    }

    #[test]
    fn other_headers_and_schemes_are_no_credential() {
        for headers in [[("accept", "*/*")], [("authorization", "Basic eA==")], [("authorization", "Bearerabc")]] {
            assert_eq!(read(&headers), Ok(None), "{headers:?}");
        }
    }

    #[test]
    fn ambiguous_empty_and_long_credentials_are_rejected() {
        let long = "x".repeat(MAX_BYTES + 1);
        for headers in [
            &[("authorization", "Bearer a"), ("x-api-key", "a")][..],
            &[("authorization", "Bearer a"), ("authorization", "Bearer b")],
            &[("x-api-key", "a"), ("x-api-key", "a")],
            &[("authorization", "Bearer")],
            &[("authorization", "Bearer ")],
            &[("x-api-key", "")],
            &[("x-api-key", &long)],
        ] {
            read(headers).unwrap_err();
        }
        let mut bytes = HeaderMap::new();
        bytes.insert(API_KEY, HeaderValue::from_bytes(b"\xff\xfe").unwrap());
        Credential::read(&bytes).unwrap_err();
    }

    #[test]
    fn debug_output_has_no_secret() {
        assert_eq!(format!("{:?}", Credential::new("hunter2")), "Credential { .. }");
    }
}
