use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::Miss;
use super::{ResponseFuture, Store};
use crate::middleware::cache_key::{CacheKey, Cacheable};
use crate::middleware::inner_service::{clone_service, inner_service};

/// Caches responses and returns them for equal requests. See the [module](super).
pub struct Cache<S, P, L> {
    inner: S,
    cache_key: Arc<P>,
    store: Arc<L>,
}

impl<S, P, L> Cache<S, P, L> {
    pub(super) fn new(inner: S, cache_key: Arc<P>, store: Arc<L>) -> Self {
        Self { inner, cache_key, store }
    }
}

inner_service!(Cache::<S, P, L> { inner });
clone_service!(Cache<S, P, L> { inner, cache_key, store });

impl<S, P, R> Service<R> for Cache<S, P, Store<P::OwnedKey, S::Response>>
where
    S: Service<R>,
    S::Response: Cacheable,
    P: CacheKey<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, P, R>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Some(key) = self.cache_key.key(&request) else {
            return ResponseFuture::call(self.inner.call(request), None);
        };
        let digest = self.cache_key.digest(&key);
        if let Some(response) = self.store.get(digest, |owned| self.cache_key.is_equal(owned, &key)) {
            return ResponseFuture::hit(response);
        }
        let miss = Miss {
            key: self.cache_key.to_owned_key(key),
            digest,
            // Before the call, so that a response that is invalidated while it runs is not cached.
            generation: self.store.generation(),
            cache_key: Arc::clone(&self.cache_key),
            store: Arc::clone(&self.store),
        };
        ResponseFuture::call(self.inner.call(request), Some(miss))
    }
}

impl<S: fmt::Debug, P, L: fmt::Debug> fmt::Debug for Cache<S, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).field("store", &self.store).finish_non_exhaustive()
    }
}
