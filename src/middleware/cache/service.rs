use std::fmt::Debug;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::store::Miss;
use super::{ResponseFuture, Store};
use crate::middleware::cache_key::{CacheKey, Cacheable};
use crate::middleware::derive::derive_debug;
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
derive_debug!(Cache::<S, P, L> { inner, store } where S: Debug, L: Debug);

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
        let mut miss = None;
        if let Some(key) = self.cache_key.key(&request) {
            let digest = self.cache_key.digest(&key);
            if let Some(response) = self.store.get(digest, |owned| self.cache_key.is_equal(owned, &key)) {
                return ResponseFuture::hit(response);
            }
            miss = Some(Box::new(Miss {
                key: self.cache_key.to_owned_key(key),
                digest,
                // Before the call, so that a response that is invalidated while it runs is not cached.
                generation: self.store.generation(),
                cache_key: Arc::clone(&self.cache_key),
                store: Arc::clone(&self.store),
            }));
        }
        ResponseFuture::call(self.inner.call(request), miss)
    }
}
