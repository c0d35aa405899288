use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{Credential, Denied, Identity, Verify};
use crate::request::Priority;
use crate::request::limits::{InvalidName, check_name};

/// Verifies API keys, of which it stores only the SHA-256, and maps them to tenants.
///
/// ```
/// use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys};
///
/// // Two keys for one tenant, to replace the old one by the new one.
/// let keys = ApiKeys::new([
///     ApiKey::new("acme", "5f4e0c1b9ad84c6f8a3a")?,
///     ApiKey::from_sha256("acme", "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")?,
/// ])?;
/// assert_eq!(keys.len(), 2);
/// # Ok::<(), tower_kernels::middleware::authenticate::InvalidApiKey>(())
/// ```
///
/// # Timing
///
/// The digest of a key is compared with all stored digests in full, whether or not one has matched. So the time depends
/// on the length of the key and the number of stored keys, and not on how similar it is to one of them. Only then is
/// the tenant of a match looked up; the caller learns from the response anyway whether there was one.
///
/// A comparison takes a few nanoseconds per stored key, so thousands of keys are practical; `benches/RESULTS.md` has
/// the figures. The digests have no salt, so keys must be long and random, as `openssl rand -hex 32` generates them.
/// Otherwise a key could be found from its digest by trying all.
#[derive(Clone, Default)]
pub struct ApiKeys {
    keys: Vec<ApiKey>,
}

/// A SHA-256 as words, which are compared faster than bytes.
type Words = [u64; 4];

impl ApiKeys {
    /// Creates a verifier of these keys. A tenant may have several.
    ///
    /// # Errors
    /// [`InvalidApiKey::Twice`] if two keys are equal.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Result<Self, InvalidApiKey> {
        let keys: Vec<ApiKey> = keys.into_iter().collect();
        let mut seen = HashSet::new();
        if let Some(duplicate) = keys.iter().find(|key| !seen.insert(key.digest)) {
            return Err(InvalidApiKey::Twice { tenant: Arc::clone(&duplicate.identity.tenant) });
        }
        Ok(Self { keys })
    }

    /// Returns the number of keys.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Returns whether there are no keys. Every credential is then denied.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns the key with the digest `given`, in constant time: all digests are compared in full.
    fn find(&self, given: &Words) -> Option<&ApiKey> {
        let mut found = u64::MAX;
        for (index, key) in (0_u64..).zip(&self.keys) {
            found.conditional_assign(&index, key.digest.ct_eq(given));
        }
        self.keys.get(usize::try_from(found).ok()?)
    }
}

impl Verify for ApiKeys {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        let key = self.find(&digest(credential.as_str()));
        key.map(|key| key.identity.clone()).ok_or(Denied::new("no such API key").with_code("unknown_key"))
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// An API key and the identity that it authenticates.
#[derive(Clone)]
#[must_use]
pub struct ApiKey {
    digest: Words,
    identity: Identity,
}

impl ApiKey {
    /// Shorter keys could be guessed, or found from their digest.
    const MIN_LENGTH: usize = 16;

    /// Creates a key from its text, of which only the digest is stored.
    ///
    /// # Errors
    /// If the key has fewer than 16 characters or others than visible ASCII, or the name of the tenant is invalid.
    pub fn new(tenant: impl Into<Arc<str>>, key: &str) -> Result<Self, InvalidApiKey> {
        let tenant = tenant.into();
        if key.len() < Self::MIN_LENGTH {
            return Err(InvalidApiKey::Short { tenant });
        }
        // Headers lose a space at either end, and one within is probably a mistake.
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidApiKey::NotAscii { tenant });
        }
        Self::from_digest(tenant, digest(key))
    }

    /// Creates a key from its SHA-256 in 64 hexadecimal digits, as `printf %s "$KEY" | sha256sum` prints it.
    ///
    /// # Errors
    /// If it is not 64 hexadecimal digits, or the name of the tenant is invalid.
    pub fn from_sha256(tenant: impl Into<Arc<str>>, hex: &str) -> Result<Self, InvalidApiKey> {
        let tenant = tenant.into();
        // `from_str_radix` alone would accept a sign.
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidApiKey::NotSha256 { tenant });
        }
        let mut digest = Words::default();
        for (at, word) in digest.iter_mut().enumerate() {
            *word = u64::from_str_radix(&hex[at * 16..][..16], 16).expect("16 hexadecimal digits");
        }
        Self::from_digest(tenant, digest)
    }

    fn from_digest(tenant: Arc<str>, digest: Words) -> Result<Self, InvalidApiKey> {
        if tenant.is_empty() {
            return Err(InvalidApiKey::NoTenant);
        }
        check_name(&tenant).map_err(|error| InvalidApiKey::Tenant { error })?;
        Ok(Self { digest, identity: Identity::new(tenant) })
    }

    /// Sets the priority of requests with this key.
    pub fn with_priority(mut self, priority: Priority) -> Self {
        self.identity.priority = Some(priority);
        self
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKey").field("identity", &self.identity).finish_non_exhaustive()
    }
}

fn digest(key: &str) -> Words {
    let bytes = Sha256::digest(key.as_bytes());
    let (words, _) = bytes.as_chunks::<8>();
    std::array::from_fn(|at| u64::from_be_bytes(words[at]))
}

/// The error for an API key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidApiKey {
    /// The name of the tenant is empty.
    #[error("an API key needs the name of a tenant")]
    NoTenant,
    /// The name of the tenant is invalid.
    #[error("the name of an API key's tenant is invalid: {error}")]
    Tenant {
        /// Why the name is invalid.
        error: InvalidName,
    },
    /// The key is short enough to be guessed.
    #[error("an API key of {tenant:?} is shorter than 16 characters")]
    Short {
        /// Tenant of the key.
        tenant: Arc<str>,
    },
    /// The key has characters other than visible ASCII, which headers do not preserve.
    #[error("an API key of {tenant:?} has characters other than visible ASCII")]
    NotAscii {
        /// Tenant of the key.
        tenant: Arc<str>,
    },
    /// The digest is not a SHA-256.
    #[error("the SHA-256 of an API key of {tenant:?} is not 64 hexadecimal digits")]
    NotSha256 {
        /// Tenant of the key.
        tenant: Arc<str>,
    },
    /// Two keys are equal.
    #[error("an API key of {tenant:?} is given twice")]
    Twice {
        /// Tenant of the second key.
        tenant: Arc<str>,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(tenant: &str, key: &str) -> ApiKey {
        ApiKey::new(tenant, key).unwrap()
    }

    fn tenant_of(keys: &ApiKeys, given: &str) -> Option<String> {
        keys.verify(Credential::new(given)).ok().map(|identity| identity.tenant.to_string())
    }

    #[test]
    fn each_of_many_keys_is_found_and_similar_keys_are_not() {
        let name = |n: usize| format!("key-number-{n:08}");
        for count in [0, 1, 2, 3000] {
            let keys = ApiKeys::new((0..count).map(|n| key(&format!("tenant {n}"), &name(n)))).unwrap();
            assert_eq!((keys.len(), keys.is_empty()), (count, count == 0));
            for n in 0..count {
                assert_eq!(tenant_of(&keys, &name(n)), Some(format!("tenant {n}")));
            }
            for other in [&name(count), "", "key-number-0000000", "key-number-00000000 ", "KEY-NUMBER-00000000"] {
                assert_eq!(tenant_of(&keys, other), None, "{other:?}");
            }
        }
    }

    #[test]
    fn a_digest_that_differs_in_one_bit_does_not_match() {
        let of = |hex: &str| ApiKeys::new([ApiKey::from_sha256("a", hex).unwrap()]).unwrap();
        let given = "hello world, hello world";
        let whole = digest(given);
        for bit in 0..256 {
            let mut other = whole;
            other[bit / 64] ^= 1 << (bit % 64);
            let hex: String = other.iter().map(|word| format!("{word:016x}")).collect();
            assert_eq!(tenant_of(&of(&hex), given), None, "bit {bit}");
        }
        let hex: String = whole.iter().map(|word| format!("{word:016X}")).collect();
        assert_eq!(tenant_of(&of(&hex), given).as_deref(), Some("a"));
    }

    #[test]
    fn a_digest_is_what_sha256sum_prints() {
        // printf %s correct-horse-battery-staple | sha256sum
        let hex = "87cbebfeebc05f7c54ac9336c4b4bbec831227a641951a4bde7edd56020f8590";
        let keys = ApiKeys::new([ApiKey::from_sha256("acme", hex).unwrap()]).unwrap();
        assert_eq!(tenant_of(&keys, "correct-horse-battery-staple").as_deref(), Some("acme"));
    }

    #[test]
    fn a_tenant_may_have_several_keys_each_with_its_priority() {
        let keys = ApiKeys::new([
            key("acme", "the-old-key-of-acme"),
            key("acme", "the-new-key-of-acme").with_priority(Priority::High),
        ])
        .unwrap();
        let priority = |given| keys.verify(Credential::new(given)).unwrap().priority;
        assert_eq!(tenant_of(&keys, "the-old-key-of-acme"), tenant_of(&keys, "the-new-key-of-acme"));
        assert_eq!((priority("the-old-key-of-acme"), priority("the-new-key-of-acme")), (None, Some(Priority::High)));
    }

    #[test]
    fn unsafe_keys_are_errors() {
        let tenant: Arc<str> = "a".into();
        let of = |key| ApiKey::new("a", key).unwrap_err();
        assert_eq!(of("too-short-a-key"), InvalidApiKey::Short { tenant: tenant.clone() });
        for key in ["sixteen characters", " sixteen-characters", "sixteen-characters\n", "sechzehn-zeichen-schön"] {
            assert_eq!(of(key), InvalidApiKey::NotAscii { tenant: tenant.clone() });
        }
        assert_eq!(ApiKey::new("", "sixteen-characters").unwrap_err(), InvalidApiKey::NoTenant);
        for hex in ["", "00", &"g".repeat(64), &"0".repeat(63), &"0".repeat(65), &("+".to_owned() + &"0".repeat(63))] {
            let error = ApiKey::from_sha256("a", hex).unwrap_err();
            assert_eq!(error, InvalidApiKey::NotSha256 { tenant: tenant.clone() }, "{hex}");
        }
        let twice = ApiKeys::new([key("b", "sixteen-characters"), key("a", "sixteen-characters")]);
        assert_eq!(twice.unwrap_err(), InvalidApiKey::Twice { tenant });
    }

    #[test]
    fn debug_output_holds_no_key_and_no_digest() {
        let key = key("acme", "sixteen-characters");
        let shown = format!("{key:?} {:?}", ApiKeys::new([key.clone()]).unwrap());
        assert_eq!(
            shown,
            r#"ApiKey { identity: Identity { tenant: "acme", priority: None }, .. } ApiKeys { len: 1, .. }"#
        );
    }
}
