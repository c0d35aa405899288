use std::fmt::Debug;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::{Cache, CacheSnapshot, Store};
use crate::middleware::derive::{derive_clone, derive_debug};

/// Caches responses and returns them for equal requests. See the [module](super).
///
/// Clones share the cache. [`ttl`](Self::ttl) begins with an empty one, so configure first and clone after. `L` is the
/// [`Store`] of the keys and of the responses of the service that the layer is applied to.
#[must_use]
pub struct CacheLayer<P, L> {
    cache_key: Arc<P>,
    store: Arc<L>,
}

impl<P, K, T> CacheLayer<P, Store<K, T>> {
    /// Creates a cache of up to `max_bytes` of keys and responses.
    pub fn new(max_bytes: u64, cache_key: P) -> Self {
        Self { cache_key: Arc::new(cache_key), store: Arc::new(Store::new(max_bytes, None)) }
    }

    /// Sets how long a response is returned again. By default it does not expire.
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { store: Arc::new(Store::new(self.snapshot().max_bytes, Some(ttl))), ..self }
    }

    /// Returns the current state of the cache.
    pub fn snapshot(&self) -> CacheSnapshot {
        self.store.snapshot()
    }

    /// Removes all entries. Responses of calls in flight are not cached.
    pub fn clear(&self) {
        self.store.invalidate(|_| true);
    }

    /// Removes the entries whose key `is_stale`, after a look at every entry. Responses of calls in flight are not cached,
    /// whatever their key.
    pub fn invalidate(&self, is_stale: impl Fn(&K) -> bool) {
        self.store.invalidate(is_stale);
    }
}

impl<S, P, L> Layer<S> for CacheLayer<P, L> {
    type Service = Cache<S, P, L>;

    fn layer(&self, inner: S) -> Self::Service {
        Cache::new(inner, Arc::clone(&self.cache_key), Arc::clone(&self.store))
    }
}

derive_clone!(CacheLayer::<P, L> { cache_key, store });
derive_debug!(CacheLayer::<P, L> { store } where L: Debug);
