use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::{Cache, CacheSnapshot, Store};

/// Caches responses and returns them for equal requests. See the [module](super).
///
/// Clones share the cache. [`ttl`](Self::ttl) begins with an empty one, so configure first and clone after. `L` is the
/// [`Store`] of the keys and of the responses of the service that the layer is applied to.
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
    #[must_use]
    pub fn ttl(self, ttl: Duration) -> Self {
        Self { cache_key: self.cache_key, store: Arc::new(Store::new(self.store.snapshot().max_bytes, Some(ttl))) }
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

// By hand, as a derive would require `P: Clone`.
impl<P, L> Clone for CacheLayer<P, L> {
    fn clone(&self) -> Self {
        Self { cache_key: Arc::clone(&self.cache_key), store: Arc::clone(&self.store) }
    }
}

impl<P, L: fmt::Debug> fmt::Debug for CacheLayer<P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheLayer").field("store", &self.store).finish_non_exhaustive()
    }
}
