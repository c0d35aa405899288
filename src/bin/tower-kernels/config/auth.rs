//! Authentication settings.

use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tower_kernels::middleware::authenticate::ApiKey;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Auth {
    pub(crate) api_keys: Vec<TenantKey>,
    /// Not set if empty, like every path and text here.
    pub(crate) api_keys_file: PathBuf,
    pub(crate) open_docs: bool,
    pub(crate) open_metrics: bool,
    pub(crate) jwt: Jwt,
}

/// The content of `auth.api_keys_file`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeysFile {
    pub(crate) api_keys: Vec<TenantKey>,
}

/// An API key of a tenant, as its SHA-256 in hexadecimal.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "UncheckedTenantKey")]
pub(crate) struct TenantKey {
    tenant: String,
    key_sha256: Redacted,
}

impl TenantKey {
    pub(crate) fn api_key(&self) -> Result<ApiKey, String> {
        ApiKey::from_sha256(self.tenant.as_str(), &self.key_sha256.0).map_err(|error| error.to_string())
    }
}

/// A [`TenantKey`] before it is checked.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UncheckedTenantKey {
    tenant: String,
    key_sha256: String,
}

impl TryFrom<UncheckedTenantKey> for TenantKey {
    type Error = String;

    fn try_from(UncheckedTenantKey { tenant, key_sha256 }: UncheckedTenantKey) -> Result<Self, String> {
        let key = Self { tenant, key_sha256: Redacted(key_sha256) };
        key.api_key().map(|_| key)
    }
}

/// Text that neither the log nor `--print-config` shows.
#[derive(Clone, PartialEq)]
struct Redacted(String);

impl fmt::Debug for Redacted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(redacted)")
    }
}

impl Serialize for Redacted {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(redacted)")
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Jwt {
    pub(crate) algorithm: Algorithm,
    pub(crate) key_file: PathBuf,
    pub(crate) secret_env: String,
    pub(crate) issuer: String,
    pub(crate) audience: String,
    pub(crate) tenant_claim: String,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            algorithm: Algorithm::default(),
            key_file: PathBuf::new(),
            secret_env: String::new(),
            issuer: String::new(),
            audience: String::new(),
            tenant_claim: "sub".to_owned(),
        }
    }
}

/// The signature algorithm of tokens. A key for another algorithm is rejected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Algorithm {
    #[default]
    RS256,
    ES256,
    #[serde(rename = "EdDSA")]
    EdDsa,
    HS256,
}
