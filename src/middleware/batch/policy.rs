//! Which requests may share a call.

use std::hash::Hash;

use crate::middleware::derive::derive_debug;

/// Decides which requests may share a call, and how much of a batch each takes up.
///
/// [`BatchLayer::by_key`](super::BatchLayer::by_key) makes one of a closure, without weights.
pub trait BatchPolicy<R> {
    /// Requests with the same key may share a call. It is kept while a batch of it waits or runs.
    type Key: Hash + Eq + Clone;

    /// Returns the key of a request; `None` if it is to be called by itself. Runs once, in `call`, so it must be quick.
    fn key(&self, request: &mut R) -> Option<Self::Key>;

    /// Returns how much of a batch's weight the request takes up, given its [`key`](Self::key).
    fn weight(&self, key: &Self::Key, request: &R) -> u64;

    /// Returns the maximum of calls in flight with this key, where it is less than that of the layer. Default: no limit.
    fn max_in_flight(&self, key: &Self::Key) -> usize {
        let _ = key;
        usize::MAX
    }
}

/// All requests may share a call, and none has a weight.
#[derive(Clone, Copy, Debug, Default)]
pub struct SingleKey;

impl<R> BatchPolicy<R> for SingleKey {
    type Key = ();

    fn key(&self, _: &mut R) -> Option<()> {
        Some(())
    }

    fn weight(&self, (): &(), _: &R) -> u64 {
        0
    }
}

/// Requests for which a closure returns the same key may share a call.
#[derive(Clone, Copy)]
pub struct ByKey<F>(pub(super) F);

impl<R, K, F> BatchPolicy<R> for ByKey<F>
where
    F: Fn(&R) -> Option<K>,
    K: Hash + Eq + Clone,
{
    type Key = K;

    fn key(&self, request: &mut R) -> Option<K> {
        (self.0)(request)
    }

    fn weight(&self, _: &K, _: &R) -> u64 {
        0
    }
}

derive_debug!(ByKey::<F> {});
