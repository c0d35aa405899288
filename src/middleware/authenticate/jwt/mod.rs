//! JSON web tokens.

mod claims;
mod key;
mod provider;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{DecodingKey, Header, Validation, decode, decode_header};
use serde_json::Value;

use self::claims::Claims;
pub use self::key::{InvalidJwtKey, JwtKey};
use super::{Credential, Denied, Identity, Verify};

/// Tenants by the JSON web tokens that an issuer signs for them.
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
/// # What a token must have
///
/// * The algorithm of the key that it is checked with, and its signature.
/// * `exp`, not past; `nbf`, where there is one, not to come: to within the [leeway](Self::leeway).
/// * `iss` and `aud` as [`issuer`](Self::issuer) and [`audience`](Self::audience) say. Without an issuer to ask for, any
///   will do. Without an audience to ask for, a token that names one is rejected, as
///   [RFC 7519](https://www.rfc-editor.org/rfc/rfc7519#section-4.1.3) demands: it is for somebody, and nothing says that
///   this is who.
/// * Claims of the types that RFC 7519 gives them, each of them once: `iss` a text, `aud` a text or a list of texts, `exp`,
///   `nbf` and `iat` numbers.
/// * The [claim](Self::tenant_claim) that names its tenant: 1 to 128 visible ASCII characters.
/// * No `crit` in its header, as nothing that it may ask for is known here.
///
/// # Cryptography
/// Signatures are checked by `ring`, unless the program has another provider of `jsonwebtoken`'s: one that it has
/// installed (`jsonwebtoken::crypto::CryptoProvider::install_default`), or that another crate of the build brings in by
/// turning on exactly one of `jsonwebtoken`'s features `rust_crypto` and `aws_lc_rs`. Otherwise the first [`JwtKey`]
/// installs one for the process, which checks all algorithms but signs with HMAC only.
#[derive(Clone)]
pub struct Jwt {
    keys: Keys,
    tenant_claim: String,
    priority_claim: Option<String>,
}

#[derive(Clone)]
enum Keys {
    /// For every token, whatever id of a key it may name.
    Any(Box<Key>),
    /// For the tokens that name it.
    ById(HashMap<String, Key>),
}

#[derive(Clone)]
struct Key {
    decoding: DecodingKey,
    validation: Validation,
}

impl Jwt {
    const LEEWAY: Duration = Duration::from_secs(60);
    /// Past this it is no leeway.
    const MAX_LEEWAY: Duration = Duration::from_secs(3600);

    /// Tokens that are signed with this key.
    pub fn new(key: JwtKey) -> Self {
        Self::with_keys(Keys::Any(Key::new(key).into()))
    }

    /// Tokens that name one of these keys in the `kid` of their header, and are signed with it. With the old key and the
    /// new one in here, an issuer can go over to the new one.
    ///
    /// # Errors
    /// Where two have the same id.
    pub fn by_id<I: Into<String>>(keys: impl IntoIterator<Item = (I, JwtKey)>) -> Result<Self, InvalidJwtKey> {
        let mut by_id = HashMap::new();
        for (kid, key) in keys {
            let kid = kid.into();
            if by_id.contains_key(&kid) {
                return Err(InvalidJwtKey::Twice { kid });
            }
            by_id.insert(kid, Key::new(key));
        }
        Ok(Self::with_keys(Keys::ById(by_id)))
    }

    fn with_keys(keys: Keys) -> Self {
        Self { keys, tenant_claim: "sub".to_owned(), priority_claim: None }.leeway(Self::LEEWAY)
    }

    /// Asks that `iss` be this, to the character. Said more than once, one of them.
    #[must_use]
    pub fn issuer(self, issuer: impl Into<String>) -> Self {
        let issuer = issuer.into();
        self.validating(|validation| {
            validation.iss.get_or_insert_default().insert(issuer.clone());
            validation.required_spec_claims.insert("iss".to_owned());
        })
    }

    /// Asks that `aud` be this or a list that holds it. Said more than once, one of them. Without it, tokens that have an
    /// `aud` are rejected.
    #[must_use]
    pub fn audience(self, audience: impl Into<String>) -> Self {
        let audience = audience.into();
        self.validating(|validation| {
            validation.aud.get_or_insert_default().insert(audience.clone());
            validation.required_spec_claims.insert("aud".to_owned());
        })
    }

    /// Sets how far the issuer's clock may be from this machine's: a minute if nothing is said, an hour at most. Whole
    /// seconds count.
    #[must_use]
    pub fn leeway(self, leeway: Duration) -> Self {
        let leeway = leeway.min(Self::MAX_LEEWAY).as_secs();
        self.validating(|validation| validation.leeway = leeway)
    }

    /// Sets which claim names the tenant: `sub` if nothing is said.
    #[must_use]
    pub fn tenant_claim(mut self, claim: impl Into<String>) -> Self {
        self.tenant_claim = claim.into();
        self
    }

    /// Sets which claim, where a token has it, is the priority of the requests made with it: `low`, `normal` or `high`.
    #[must_use]
    pub fn priority_claim(mut self, claim: impl Into<String>) -> Self {
        self.priority_claim = Some(claim.into());
        self
    }

    fn validating(mut self, set: impl Fn(&mut Validation)) -> Self {
        match &mut self.keys {
            Keys::Any(key) => set(&mut key.validation),
            Keys::ById(keys) => keys.values_mut().for_each(|key| set(&mut key.validation)),
        }
        self
    }

    fn key_for(&self, header: &Header) -> Result<&Key, Denied> {
        if header.crit.is_some() {
            return Err(Denied::new("token: its header asks for what is not known here (crit)"));
        }
        match (&self.keys, &header.kid) {
            (Keys::Any(key), _) => Ok(key),
            (Keys::ById(keys), Some(kid)) => keys.get(kid).ok_or(Denied::new("token: no key of its kid")),
            (Keys::ById(_), None) => Err(Denied::new("token: it names no kid")),
        }
    }

    fn identity(&self, claims: &Claims) -> Result<Identity, Denied> {
        let tenant = match claims.get(&self.tenant_claim) {
            Some(Value::String(tenant)) if is_tenant(tenant) => Identity::new(tenant.as_str()),
            _ => return Err(Denied::new(format!("token: no tenant in its claim {:?}", self.tenant_claim))),
        };
        match self.priority_claim.as_ref().and_then(|claim| claims.get(claim)) {
            None => Ok(tenant),
            Some(value) => match value.as_str().map(str::parse) {
                Some(Ok(priority)) => Ok(tenant.with_priority(priority)),
                _ => Err(Denied::new("token: its priority is not low, normal or high")),
            },
        }
    }
}

impl Verify for Jwt {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        self.check(credential.as_str()).map_err(|denied| denied.with_code("invalid_token"))
    }
}

impl Jwt {
    fn check(&self, token: &str) -> Result<Identity, Denied> {
        let header = decode_header(token).map_err(|error| denied(&error))?;
        let key = self.key_for(&header)?;
        let data = decode::<Claims>(token, &key.decoding, &key.validation).map_err(|error| denied(&error))?;
        data.claims.check_types()?;
        self.identity(&data.claims)
    }
}

/// The longest name of a tenant, in bytes.
const LONGEST_TENANT: usize = 128;

/// Whether a tenant can be called so in logs, metrics and headers.
fn is_tenant(name: &str) -> bool {
    (1..=LONGEST_TENANT).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic())
}

impl Key {
    fn new(JwtKey { algorithm, key }: JwtKey) -> Self {
        let mut validation = Validation::new(algorithm);
        validation.validate_nbf = true;
        Self { decoding: key, validation }
    }
}

/// In words of our own: those of the library may repeat what the token holds.
#[cold]
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

impl fmt::Debug for Jwt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { keys, tenant_claim, priority_claim } = self;
        f.debug_struct("Jwt")
            .field("keys", keys)
            .field("tenant_claim", tenant_claim)
            .field("priority_claim", priority_claim)
            .finish()
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any(key) => key.fmt(f),
            Self::ById(keys) => keys.fmt(f),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Validation { algorithms, iss, aud, leeway, .. } = &self.validation;
        f.debug_struct("Key")
            .field("algorithms", algorithms)
            .field("issuers", iss)
            .field("audiences", aud)
            .field("leeway", leeway)
            .finish_non_exhaustive()
    }
}
