use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use subtle::{ConditionallySelectable, ConstantTimeEq};

use super::{Credential, Denied, Identity, Verify};
use crate::request::Priority;
use crate::request::limits::{InvalidName, check_name};

/// Tenants by the API keys that they hold, of which only the SHA-256 is kept.
///
/// ```
/// use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys};
///
/// // Two for one tenant: the new one is handed out before the old one is taken away.
/// let keys = ApiKeys::new([
///     ApiKey::new("acme", "5f4e0c1b9ad84c6f8a3a")?,
///     ApiKey::from_sha256("acme", "b94d27b9934d3e08a52e52d7da7dabfac484efe37a5380ee9088f7ace2efcde9")?,
/// ])?;
/// assert_eq!(keys.len(), 2);
/// # Ok::<(), tower_kernels::middleware::authenticate::InvalidApiKey>(())
/// ```
///
/// # What the time tells
///
/// A key is hashed, and its digest compared with every one that is kept, in full, whether or not one has matched: the
/// time depends on how long the given key is and on how many there are, not on which of them it is like. Only after that
/// is the tenant of a match looked up, and a refusal told from an acceptance, both of which the caller learns anyway.
///
/// Comparing costs a few nanoseconds a key that is kept, so some thousands are no burden; `benches/RESULTS.md` has the
/// figures. The digests are not salted: a key is to be long and random, as `openssl rand -hex 32` makes them, so that
/// its digest cannot be searched for.
#[derive(Clone, Default)]
pub struct ApiKeys {
    /// Beside each other and apart from whose they are, so that a comparison reads nothing else.
    digests: Vec<Words>,
    identities: Vec<Identity>,
}

/// A SHA-256, in pieces that are compared in one instruction each.
type Words = [u64; 4];

impl ApiKeys {
    /// Any number of keys, several for one tenant among them.
    ///
    /// # Errors
    /// Where two are the same.
    pub fn new(keys: impl IntoIterator<Item = ApiKey>) -> Result<Self, InvalidApiKey> {
        let (digests, identities): (Vec<_>, Vec<_>) = keys.into_iter().map(|key| (key.digest, key.identity)).unzip();
        let mut seen = HashSet::new();
        if let Some(again) = digests.iter().position(|digest| !seen.insert(digest)) {
            return Err(InvalidApiKey::Twice { tenant: Arc::clone(&identities[again].tenant) });
        }
        Ok(Self { digests, identities })
    }

    /// How many keys there are.
    pub fn len(&self) -> usize {
        self.digests.len()
    }

    /// Whether there are none, so that nobody is let in.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The place of the one that equals `given`. Every one is compared, and in all of its length.
    fn position(&self, given: &Words) -> Option<usize> {
        let mut found = u64::MAX;
        for (place, kept) in (0_u64..).zip(&self.digests) {
            let difference = (kept[0] ^ given[0]) | (kept[1] ^ given[1]) | (kept[2] ^ given[2]) | (kept[3] ^ given[3]);
            found.conditional_assign(&place, difference.ct_eq(&0));
        }
        usize::try_from(found).ok().filter(|&place| place < self.digests.len())
    }
}

impl Verify for ApiKeys {
    fn verify(&self, credential: Credential<'_>) -> Result<Identity, Denied> {
        match self.position(&digest(credential.as_str())) {
            Some(place) => Ok(self.identities[place].clone()),
            None => Err(Denied::new("no such API key").with_code("unknown_key")),
        }
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// One API key and whose it is.
#[derive(Clone)]
pub struct ApiKey {
    digest: Words,
    identity: Identity,
}

impl ApiKey {
    /// What is shorter can be guessed, or searched for by its digest.
    const SHORTEST: usize = 16;

    /// A key as its tenant sends it. It is not kept, only its digest is.
    ///
    /// # Errors
    /// Where it has fewer than 16 characters, or others than a header can carry, or the tenant has no name.
    pub fn new(tenant: impl Into<Arc<str>>, key: &str) -> Result<Self, InvalidApiKey> {
        let tenant = tenant.into();
        if key.len() < Self::SHORTEST {
            return Err(InvalidApiKey::Short { tenant });
        }
        // A space at either end would be lost on the way, and one within is more likely a mistake than not.
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidApiKey::NotAscii { tenant });
        }
        Self::of(tenant, digest(key))
    }

    /// A key by its SHA-256 in 64 hexadecimal digits, as `printf %s "$KEY" | sha256sum` prints it.
    ///
    /// # Errors
    /// Where it is not 64 hexadecimal digits, or the tenant has no name.
    pub fn from_sha256(tenant: impl Into<Arc<str>>, hex: &str) -> Result<Self, InvalidApiKey> {
        let tenant = tenant.into();
        // `from_str_radix` alone would take a sign.
        if hex.len() != 64 || !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(InvalidApiKey::NotSha256 { tenant });
        }
        let mut digest = Words::default();
        for (at, word) in digest.iter_mut().enumerate() {
            *word = u64::from_str_radix(&hex[at * 16..][..16], 16).expect("16 hexadecimal digits");
        }
        Self::of(tenant, digest)
    }

    fn of(tenant: Arc<str>, digest: Words) -> Result<Self, InvalidApiKey> {
        if tenant.is_empty() {
            return Err(InvalidApiKey::NoTenant);
        }
        check_name(&tenant).map_err(|error| InvalidApiKey::Tenant { error })?;
        Ok(Self { digest, identity: Identity::new(tenant) })
    }

    /// Gives the requests made with it this priority.
    #[must_use]
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

/// Not an API key to let anybody in with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidApiKey {
    /// There must be something to call its holder.
    #[error("an API key needs the name of a tenant")]
    NoTenant,
    /// Tenants' names are short and can be seen.
    #[error("an API key's tenant cannot have this name: {error}")]
    Tenant {
        /// What is wrong with the name.
        error: InvalidName,
    },
    /// It could be guessed.
    #[error("an API key of {tenant:?} is shorter than 16 characters")]
    Short {
        /// Whose it is.
        tenant: Arc<str>,
    },
    /// No header carries it as it is.
    #[error("an API key of {tenant:?} holds other characters than visible ASCII")]
    NotAscii {
        /// Whose it is.
        tenant: Arc<str>,
    },
    /// Not a digest.
    #[error("the SHA-256 of an API key of {tenant:?} is not 64 hexadecimal digits")]
    NotSha256 {
        /// Whose it is.
        tenant: Arc<str>,
    },
    /// It would be left to chance whose it is.
    #[error("an API key of {tenant:?} is given twice")]
    Twice {
        /// Who holds the second.
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
    fn each_of_many_keys_is_known_and_nothing_that_resembles_one() {
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
    fn a_digest_that_differs_in_any_one_bit_is_another() {
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
    fn a_digest_is_the_one_that_sha256sum_prints() {
        // printf %s correct-horse-battery-staple | sha256sum
        let hex = "87cbebfeebc05f7c54ac9336c4b4bbec831227a641951a4bde7edd56020f8590";
        let keys = ApiKeys::new([ApiKey::from_sha256("acme", hex).unwrap()]).unwrap();
        assert_eq!(tenant_of(&keys, "correct-horse-battery-staple").as_deref(), Some("acme"));
    }

    #[test]
    fn a_tenant_may_have_several_and_each_its_priority() {
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
    fn keys_that_let_the_wrong_one_in_are_errors() {
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
