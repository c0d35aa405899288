//! JSON web tokens.

mod claims;
mod key;
mod provider;

use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Header, Validation, decode, decode_header};
use serde_json::Value;

use self::claims::Claims;
pub use self::key::{InvalidJwtKey, JwtKey};
use super::{Credential, Denied, Identity, Verify};
use crate::request::limits::MAX_NAME_BYTES;

/// Verifies JSON web tokens and reads the tenant from a claim.
///
/// ```
/// use tower_kernels::middleware::authenticate::{Jwt, JwtKey};
///
/// let secret = b"a secret of 32 bytes or of more.";
/// let tokens = Jwt::new(JwtKey::hs256(secret)?)
///     .issuer("https://login.example")
///     .audience("kernels")
///     .tenant_claim("org");
/// # Ok::<(), tower_kernels::middleware::authenticate::InvalidJwtKey>(())
/// ```
///
/// # Requirements
///
/// A token is accepted if it has
/// * the algorithm of the key, and a valid signature;
/// * an `exp` that is not in the past and no `nbf` in the future, within the [leeway](Self::leeway);
/// * an `iss` and an `aud` that match [`issuer`](Self::issuer) and [`audience`](Self::audience). Without an expected
///   issuer any is accepted. Without an expected audience a token that has one is rejected, as
///   [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3) requires;
/// * claims of the types in RFC 7519, each at most once: `iss` a string, `aud` a string or a list of strings, `exp`,
///   `nbf` and `iat` numbers;
/// * a [claim](Self::tenant_claim) that names the tenant in 1 to 128 visible ASCII characters;
/// * no `crit` in its header, because no extension is supported.
///
/// # Cryptography
/// Signatures are verified with `ring`, unless the program has another provider for `jsonwebtoken`: one that it has
/// installed (`jsonwebtoken::crypto::CryptoProvider::install_default`), or that a crate of the build enables by exactly
/// one of `jsonwebtoken`'s features `rust_crypto` and `aws_lc_rs`. Otherwise the first [`JwtKey`] installs one for the
/// process, which verifies all algorithms but signs with HMAC only.
#[derive(Clone, Debug)]
#[must_use]
pub struct Jwt {
    /// Keys with their `kid`. A key without one is for all tokens.
    keys: Vec<(Option<String>, JwtKey)>,
    tenant_claim: String,
    priority_claim: Option<String>,
}

impl Jwt {
    const LEEWAY: Duration = Duration::from_secs(60);
    const MAX_LEEWAY: Duration = Duration::from_secs(3600);

    /// Accepts tokens that are signed with this key.
    pub fn new(key: JwtKey) -> Self {
        Self::with_keys(vec![(None, key)])
    }

    /// Accepts tokens that are signed with the key that the `kid` in their header names. An issuer can rotate its keys
    /// while both the old and the new one are here.
    ///
    /// # Errors
    /// [`InvalidJwtKey::Twice`] if two keys have the same id.
    pub fn by_id<I: Into<String>>(keys: impl IntoIterator<Item = (I, JwtKey)>) -> Result<Self, InvalidJwtKey> {
        let mut by_id: Vec<(Option<String>, JwtKey)> = Vec::new();
        for (kid, key) in keys {
            let kid = kid.into();
            if by_id.iter().any(|(known, _)| known.as_ref() == Some(&kid)) {
                return Err(InvalidJwtKey::Twice { kid });
            }
            by_id.push((Some(kid), key));
        }
        Ok(Self::with_keys(by_id))
    }

    fn with_keys(keys: Vec<(Option<String>, JwtKey)>) -> Self {
        Self { keys, tenant_claim: "sub".to_owned(), priority_claim: None }.leeway(Self::LEEWAY)
    }

    /// Requires `iss` to equal `issuer`, or one of them if called several times.
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        let issuer = issuer.into();
        self.validation(|validation| {
            validation.iss.get_or_insert_default().insert(issuer.clone());
            validation.required_spec_claims.insert("iss".to_owned());
        })
    }

    /// Requires `aud` to be or contain `audience`, or one of them if called several times. Without an audience, tokens
    /// that have an `aud` are rejected.
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.validation(|validation| {
            validation.aud.get_or_insert_default().insert(audience.clone());
            validation.required_spec_claims.insert("aud".to_owned());
        })
    }

    /// Sets the tolerance for `exp` and `nbf`, as clocks differ. One minute by default, at most one hour, rounded down
    /// to seconds.
    pub fn leeway(self, leeway: Duration) -> Self {
        let leeway = leeway.min(Self::MAX_LEEWAY).as_secs();
        self.validation(|validation| validation.leeway = leeway)
    }

    /// Sets the claim that names the tenant. `sub` by default.
    pub fn tenant_claim(mut self, claim: impl Into<String>) -> Self {
        self.tenant_claim = claim.into();
        self
    }

    /// Sets the claim with the priority of the token's requests: `low`, `normal` or `high`. Tokens need not have it.
    pub fn priority_claim(mut self, claim: impl Into<String>) -> Self {
        self.priority_claim = Some(claim.into());
        self
    }

    fn validation(mut self, set: impl Fn(&mut Validation)) -> Self {
        self.keys.iter_mut().for_each(|(_, key)| set(&mut key.validation));
        self
    }

    fn check(&self, token: &str) -> Result<Identity, Denied> {
        let header = decode_header(token).map_err(|error| denied(&error))?;
        let key = self.key_for(&header)?;
        let data = decode::<Claims>(token, &key.key, &key.validation).map_err(|error| denied(&error))?;
        data.claims.check_types()?;
        self.identity(&data.claims)
    }

    fn key_for(&self, header: &Header) -> Result<&JwtKey, Denied> {
        if header.crit.is_some() {
            return Err(Denied::new("token: its header asks for what is not known here (crit)"));
        }
        match self.keys.iter().find(|(kid, _)| kid.is_none() || *kid == header.kid) {
            Some((_, key)) => Ok(key),
            None if header.kid.is_none() => Err(Denied::new("token: it names no kid")),
            None => Err(Denied::new("token: no key of its kid")),
        }
    }

    fn identity(&self, claims: &Claims) -> Result<Identity, Denied> {
        let tenant = match claims.get(&self.tenant_claim) {
            Some(Value::String(tenant)) if is_tenant(tenant) => Identity::new(tenant.as_str()),
            _ => return Err(Denied::new(format!("token: no tenant in its claim {:?}", self.tenant_claim))),
        };
        let Some(value) = self.priority_claim.as_ref().and_then(|claim| claims.get(claim)) else { return Ok(tenant) };
        match value.as_str().map(str::parse) {
            Some(Ok(priority)) => Ok(tenant.with_priority(priority)),
            _ => Err(Denied::new("token: its priority is not low, normal or high")),
        }
    }
}

impl Verify for Jwt {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        self.check(credential.as_str()).map_err(|denied| denied.with_code("invalid_token"))
    }
}

/// Returns whether a claim is a valid name of a tenant.
fn is_tenant(name: &str) -> bool {
    (1..=MAX_NAME_BYTES).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Describes an error without the library's text, which may contain parts of the token.
fn denied(error: &Error) -> Denied {
    Denied::new(match error.kind() {
        ErrorKind::InvalidSignature => "token: its signature is wrong",
        ErrorKind::InvalidAlgorithm => "token: its algorithm is not that of the key",
        ErrorKind::ExpiredSignature => "token: it has expired",
        ErrorKind::ImmatureSignature => "token: it is not valid yet",
        ErrorKind::InvalidIssuer => "token: it is of another issuer",
        ErrorKind::InvalidAudience => "token: it is for another audience",
        ErrorKind::MissingRequiredClaim(claim) => {
            return Denied::new(format!("token: it has no {claim} that can be read"));
        }
        ErrorKind::InvalidClaimFormat(claim) => return Denied::new(format!("token: its {claim} cannot be read")),
        _ => "token: it cannot be read",
    })
}
