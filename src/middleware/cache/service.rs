use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll};

use tower_service::Service;

use super::future::Asked;
use super::{ResponseFuture, Store};
use crate::middleware::cache_key::{Repeatable, Repeats};
use crate::middleware::inner_service::inner_service;

/// Keeps answers and gives them again. See the [module](super).
pub struct Cache<S, P, L> {
    inner: S,
    repeats: Arc<P>,
    store: Arc<L>,
}

impl<S, P, L> Cache<S, P, L> {
    pub(super) fn new(inner: S, repeats: Arc<P>, store: Arc<L>) -> Self {
        Self { inner, repeats, store }
    }
}

inner_service!(Cache::<S, P, L> { inner });

impl<S, P, R> Service<R> for Cache<S, P, Store<P::Kept, S::Response>>
where
    S: Service<R>,
    S::Response: Repeatable,
    P: Repeats<R>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, P, R>;

    #[inline]
    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    // Always, so that the inner future is made where it stays and not moved there.
    #[inline(always)]
    fn call(&mut self, request: R) -> Self::Future {
        let Some(question) = self.repeats.question(&request) else {
            return ResponseFuture::called(self.inner.call(request), None);
        };
        let digest = self.repeats.digest(&question);
        if let Some(answer) = self.store.find(digest, |kept| self.repeats.is_same(kept, &question)) {
            return ResponseFuture::known(answer);
        }
        let asked = Asked {
            question: self.repeats.hold(question),
            digest,
            // Before the call, so that what is invalidated while it runs is not kept.
            generation: self.store.generation(),
            repeats: Arc::clone(&self.repeats),
            store: Arc::clone(&self.store),
        };
        ResponseFuture::called(self.inner.call(request), Some(asked))
    }
}

// By hand: what is kept is shared.
impl<S: Clone, P, L> Clone for Cache<S, P, L> {
    fn clone(&self) -> Self {
        Self { inner: self.inner.clone(), repeats: Arc::clone(&self.repeats), store: Arc::clone(&self.store) }
    }
}

impl<S: fmt::Debug, P, L: fmt::Debug> fmt::Debug for Cache<S, P, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache").field("inner", &self.inner).field("store", &self.store).finish_non_exhaustive()
    }
}
