//! What a request brings to say who makes it.

use std::fmt;

use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::Denied;

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

/// Longer ones are refused before anything is computed of them.
const LONGEST: usize = 16 * 1024;

/// An API key or a token, as the request brought it. It is a secret, so `Debug` does not show it.
#[derive(Clone, Copy)]
pub struct Credential<'a>(&'a str);

impl<'a> Credential<'a> {
    /// A credential that came in another way than in a header, or for a test.
    pub const fn new(secret: &'a str) -> Self {
        Self(secret)
    }

    /// The secret itself.
    pub const fn as_str(&self) -> &'a str {
        self.0
    }

    /// The one credential of a request; `None` where it brings none.
    ///
    /// Schemes of `authorization` other than `Bearer` are passed over, as a proxy in front may have its own there.
    pub(super) fn read(headers: &'a HeaderMap) -> Result<Option<Self>, Denied> {
        let bearer = headers.get_all(header::AUTHORIZATION).iter().filter_map(bearer);
        let keys = headers.get_all(API_KEY).iter().map(HeaderValue::as_bytes);
        let mut found = bearer.chain(keys);
        let Some(secret) = found.next() else { return Ok(None) };
        // Which of two would count is for nobody to guess.
        if found.next().is_some() {
            return Err(Denied::new("more than one credential"));
        }
        if secret.len() > LONGEST {
            return Err(Denied::new("the credential is too long"));
        }
        match std::str::from_utf8(secret) {
            Ok(secret) if !secret.is_empty() => Ok(Some(Self(secret))),
            Ok(_) => Err(Denied::new("the credential is empty")),
            Err(_) => Err(Denied::new("the credential is not text")),
        }
    }
}

/// What follows the scheme `Bearer`, which may be written in any case.
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
    fn it_is_found_in_either_header() {
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
    fn without_one_there_is_none() {
        for headers in [[("accept", "*/*")], [("authorization", "Basic eA==")], [("authorization", "Bearerabc")]] {
            assert_eq!(read(&headers), Ok(None), "{headers:?}");
        }
    }

    #[test]
    fn what_cannot_be_one_credential_is_refused() {
        let long = "x".repeat(LONGEST + 1);
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
    fn its_debug_output_is_no_secret() {
        assert_eq!(format!("{:?}", Credential::new("hunter2")), "Credential { .. }");
    }
}
