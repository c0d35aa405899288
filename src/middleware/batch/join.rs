//! Which requests may share a call.

use std::fmt;
use std::hash::Hash;

/// Decides which requests may share a call, and how much of a batch each takes up.
///
/// [`BatchLayer::by_key`](super::BatchLayer::by_key) and [`BatchLayer::weigh`](super::BatchLayer::weigh) make one of closures.
pub trait Join<R> {
    /// Requests of one key may share a call. It is kept while a batch of it waits or runs.
    type Key: Hash + Eq + Clone;

    /// The key of a request; `None` where it is to be run by itself. Asked once, in `call`, so it must not take long.
    fn key(&self, request: &mut R) -> Option<Self::Key>;

    /// How much of a batch's weight the request takes up. Asked after its key.
    fn weight(&self, request: &R) -> u64;
}

/// All requests may share a call, and none weighs anything.
#[derive(Clone, Copy, Debug, Default)]
pub struct Together;

impl<R> Join<R> for Together {
    type Key = ();

    fn key(&self, _: &mut R) -> Option<()> {
        Some(())
    }

    fn weight(&self, _: &R) -> u64 {
        0
    }
}

/// Requests of one key, as a closure tells it, may share a call.
#[derive(Clone, Copy)]
pub struct ByKey<F>(pub(super) F);

impl<R, K, F> Join<R> for ByKey<F>
where
    F: Fn(&R) -> Option<K>,
    K: Hash + Eq + Clone,
{
    type Key = K;

    fn key(&self, request: &mut R) -> Option<K> {
        (self.0)(request)
    }

    fn weight(&self, _: &R) -> u64 {
        0
    }
}

/// As another decides, with the weight that a closure tells.
#[derive(Clone, Copy)]
pub struct Weighed<J, F>(pub(super) J, pub(super) F);

impl<R, J, F> Join<R> for Weighed<J, F>
where
    J: Join<R>,
    F: Fn(&R) -> u64,
{
    type Key = J::Key;

    fn key(&self, request: &mut R) -> Option<J::Key> {
        self.0.key(request)
    }

    fn weight(&self, request: &R) -> u64 {
        (self.1)(request)
    }
}

impl<F> fmt::Debug for ByKey<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ByKey")
    }
}

impl<J: fmt::Debug, F> fmt::Debug for Weighed<J, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Weighed").field(&self.0).finish_non_exhaustive()
    }
}
