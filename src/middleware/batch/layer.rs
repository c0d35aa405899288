use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_layer::Layer;

use super::policy::{BatchPolicy, ByKey, SingleKey};
use super::queue::Limits;
use super::service::{Batch, BatchService};
use crate::middleware::derive::{derive_clone, derive_debug};
use crate::sync::Mutex;

/// Merges requests into calls of a service of batches. See the [module](super).
///
/// Clones share the capacity and the counts; each service that is made has batches of its own. The methods that configure the
/// layer reset them, so configure first and clone after.
#[must_use]
pub struct BatchLayer<R, P = SingleKey> {
    pub(super) limits: Limits,
    pub(super) policy: Arc<P>,
    /// One for each request that waits, and for each service that is ready.
    pub(super) permits: Arc<Semaphore>,
    /// All but `waiting`.
    pub(super) totals: Arc<Mutex<BatchSnapshot>>,
    request: PhantomData<fn(R)>,
}

/// The state of a [`BatchLayer`]: what waits now, and counts since it was created.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchSnapshot {
    /// Requests that wait for their batch to be sent, and services that are ready and have not been called.
    pub waiting: usize,
    /// Batches that were sent. Requests that did not have to wait are called without one.
    pub batches: u64,
    /// Requests in them.
    pub requests: u64,
    /// Requests whose deadline passed before their batch was sent.
    pub expired: u64,
    /// Requests that were cancelled before their batch was sent.
    pub cancelled: u64,
}

/// Below what a semaphore can count.
const MAX_CAPACITY: usize = 1 << 24;

impl<R> BatchLayer<R> {
    /// Lets up to `requests` requests share a call, whatever they are. 0 counts as 1.
    pub fn new(requests: usize) -> Self {
        let requests = requests.max(1);
        let capacity = requests.saturating_mul(64).min(MAX_CAPACITY);
        let limits = Limits { requests, weight: u64::MAX, in_flight: usize::MAX, delay: Duration::ZERO, capacity };
        Self::with(limits, Arc::new(SingleKey))
    }

    /// Lets only requests with the same key share a call. A request without a key is called by itself.
    pub fn by_key<K, F>(self, key: F) -> BatchLayer<R, ByKey<F>>
    where
        F: Fn(&R) -> Option<K>,
        K: Hash + Eq + Clone,
    {
        self.with_policy(ByKey(key))
    }
}

impl<R, P> BatchLayer<R, P> {
    fn with(limits: Limits, policy: Arc<P>) -> Self {
        let permits = Arc::new(Semaphore::new(limits.capacity));
        Self { limits, policy, permits, totals: Arc::default(), request: PhantomData }
    }

    fn with_limits(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        Self::with(self.limits, self.policy)
    }

    /// Decides by `policy` which requests may share a call.
    pub fn with_policy<N: BatchPolicy<R>>(self, policy: N) -> BatchLayer<R, N> {
        BatchLayer::with(self.limits, Arc::new(policy))
    }

    /// Sets the largest number of requests that share a call. 0 counts as 1.
    pub fn max_requests(self, requests: usize) -> Self {
        self.with_limits(|limits| limits.requests = requests.max(1))
    }

    /// Sets the largest total [weight](BatchPolicy::weight) of a batch. A request of a greater weight is called by itself.
    pub fn max_weight(self, max: u64) -> Self {
        self.with_limits(|limits| limits.weight = max)
    }

    /// Holds a batch that is not full back for up to `delay` from its first request, even while the inner service is ready. The
    /// default is no delay, which is best in most cases: batches form only while the inner service is not ready.
    pub fn max_delay(self, delay: Duration) -> Self {
        self.with_limits(|limits| limits.delay = delay)
    }

    /// Limits the calls in flight of one key. 0 counts as 1. By default there are as many as the inner service is ready for.
    ///
    /// Set it if the inner service has a queue of its own: it is ready while there is room in that queue, and only requests for
    /// which it is not ready are merged. A little more than it works on at a time keeps it busy.
    pub fn max_in_flight(self, calls: usize) -> Self {
        self.with_limits(|limits| limits.in_flight = calls.max(1))
    }

    /// Sets how many requests may wait, of all keys together. 0 counts as 1, and the default is 64 full batches. The service is
    /// pending while so many wait.
    pub fn capacity(self, requests: usize) -> Self {
        self.with_limits(|limits| limits.capacity = requests.clamp(1, MAX_CAPACITY))
    }

    /// Returns the same layer, with its capacity and counts, for another limit and policy.
    pub(crate) fn fitted<N: BatchPolicy<R>>(&self, max_in_flight: usize, policy: N) -> BatchLayer<R, N> {
        let limits = Limits { in_flight: max_in_flight.max(1), ..self.limits };
        let (permits, totals) = (Arc::clone(&self.permits), Arc::clone(&self.totals));
        BatchLayer { limits, policy: Arc::new(policy), permits, totals, request: PhantomData }
    }

    /// Returns what waits now, and the counts since the layer was created.
    pub fn snapshot(&self) -> BatchSnapshot {
        BatchSnapshot { waiting: self.limits.capacity - self.permits.available_permits(), ..*self.totals.lock() }
    }
}

impl<S, R, P> Layer<S> for BatchLayer<R, P>
where
    S: BatchService<R>,
    P: BatchPolicy<R>,
{
    type Service = Batch<S, R, P>;

    fn layer(&self, inner: S) -> Self::Service {
        Batch::new(inner, self)
    }
}

derive_clone!(BatchLayer::<R, P> { limits, policy, permits, totals, request });
derive_debug!(BatchLayer::<R, P> { limits, policy, totals } where P: Debug);
