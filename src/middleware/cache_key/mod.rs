//! Cache keys: which requests ask for the same response, and which responses can be returned again.
//!
//! [`CacheLayer`] and [`CoalesceLayer`] know requests and responses through these traits alone. No requests are equal unless
//! a [`CacheKey`] says so. The shortest is a closure that returns a key, or `None` for a request that must always run:
//!
//! ```
//! use tower_kernels::layers::CoalesceLayer;
//!
//! let by_path = |request: &http::Request<()>| {
//!     (request.method() == http::Method::GET).then(|| request.uri().path().to_owned())
//! };
//! # fn takes<R, P: tower_kernels::middleware::cache_key::CacheKey<R>>(_: &P) {}
//! # takes::<http::Request<()>, _>(&by_path);
//! ```
//!
//! # What belongs in a key
//!
//! Everything that the response depends on, and whoever must not learn about the requests of others. A response that
//! arrives sooner than the work takes tells its caller that somebody has sent the same request, so a key without the tenant
//! tells tenants about each other. What only says how a request is to run, such as its deadline, priority and trace, does
//! not belong in a key.
//!
//! Requests are found by a digest of 128 bits ([XXH3], seeded for each process) and then compared in full: if two keys have
//! the same digest, one of them is not cached or coalesced.
//!
//! For kernels it is [`KernelCacheKey`](crate::service::KernelCacheKey).
//!
//! [`CacheLayer`]: super::CacheLayer
//! [`CoalesceLayer`]: super::CoalesceLayer
//! [XXH3]: https://xxhash.com

mod weight;

use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::OnceLock;

use xxhash_rust::xxh3::Xxh3;

pub use self::weight::Weight;

/// The key by which requests are equal. The [module](self) says what belongs in it.
///
/// A [`Key`](Self::Key) borrows from its request, so that a lookup copies nothing; it is converted to an
/// [`OwnedKey`](Self::OwnedKey) when the lookup finds nothing. Closures `Fn(&R) -> Option<K>` implement the trait with one
/// type for both, which must be `Hash + Eq` and have a [`Weight`].
pub trait CacheKey<R> {
    /// The key of a request.
    type Key<'r>: Hash
    where
        Self: 'r,
        R: 'r;
    /// A key that outlives its request.
    type OwnedKey: Send + Sync + 'static;

    /// Returns the key of `request`, or `None` if it must run whatever other requests there are.
    fn key<'r>(&'r self, request: &'r R) -> Option<Self::Key<'r>>;

    /// Whether two keys are equal in full.
    fn is_equal(&self, owned: &Self::OwnedKey, key: &Self::Key<'_>) -> bool;

    /// Converts a key to one that lives as long as the call. Shared data is cloned by reference, not copied.
    fn to_owned_key(&self, key: Self::Key<'_>) -> Self::OwnedKey;

    /// Copies a key that is to be cached into memory of its own, so that it keeps no larger allocation alive than
    /// [`weight`](Self::weight) says.
    fn compact(&self, owned: Self::OwnedKey) -> Self::OwnedKey {
        owned
    }

    /// The heap memory of a key in bytes, besides its own size.
    fn weight(&self, owned: &Self::OwnedKey) -> usize;

    /// The digest that keys are found by before they are compared.
    fn digest(&self, key: &Self::Key<'_>) -> u128 {
        digest(key)
    }
}

impl<R, K, F> CacheKey<R> for F
where
    F: Fn(&R) -> Option<K>,
    K: Hash + Eq + Weight + Send + Sync + 'static,
{
    type Key<'r>
        = K
    where
        Self: 'r,
        R: 'r;
    type OwnedKey = K;

    fn key<'r>(&'r self, request: &'r R) -> Option<K> {
        self(request)
    }

    fn is_equal(&self, owned: &K, key: &K) -> bool {
        owned == key
    }

    fn to_owned_key(&self, key: K) -> K {
        key
    }

    fn weight(&self, owned: &K) -> usize {
        owned.weight()
    }
}

/// A response that can be returned again.
pub trait Cacheable: Sized {
    /// Returns a copy to cache, in memory of its own, so that it keeps no larger allocation alive than
    /// [`weight`](Self::weight) says. `None` if this response must not be returned again, such as a rejection.
    fn to_cached(&self) -> Option<Self>;

    /// Returns a cached response for another call. Metadata about the execution is that of the call which is answered from
    /// the cache.
    fn to_response(&self) -> Self;

    /// The heap memory of the response in bytes, besides its own size.
    fn weight(&self) -> usize;
}

/// The seed is random, so that nobody can prepare requests with equal digests.
fn digest(key: &impl Hash) -> u128 {
    static SEED: OnceLock<u64> = OnceLock::new();
    let mut hasher = Xxh3::with_seed(*SEED.get_or_init(|| RandomState::new().hash_one(0)));
    key.hash(&mut hasher);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::digest;

    #[test]
    fn equal_keys_have_equal_digests_and_others_different_ones() {
        assert_eq!(digest(&("a/b", 7_u64, vec![1_u8; 300])), digest(&("a/b", 7_u64, vec![1_u8; 300])));
        // The keys of a layer are of one type.
        let [mut lists, mut numbers, mut pairs, mut texts] = [(); 4].map(|()| HashSet::new());
        for length in 0..600 {
            assert!(lists.insert(digest(&vec![0_u8; length])));
        }
        for number in 0..1000_u64 {
            assert!(numbers.insert(digest(&number)));
            assert!(pairs.insert(digest(&(number, number))));
        }
        // The bounds between the parts of a key count.
        assert!(texts.insert(digest(&("ab", "c"))) && texts.insert(digest(&("a", "bc"))));
    }

    #[test]
    fn every_bit_of_a_key_changes_half_of_the_digest() {
        let base = [0x5a_u8; 64];
        for bit in 0..512 {
            let mut other = base;
            other[bit / 8] ^= 1 << (bit % 8);
            let changed = (digest(&base) ^ digest(&other)).count_ones();
            assert!((32..=96).contains(&changed), "bit {bit} changes {changed} of 128");
        }
    }
}
