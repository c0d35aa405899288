use std::fmt;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tower_layer::Layer;
use tower_service::Service;

use super::join::{ByKey, Join, Together, Weighed};
use super::queue::Limits;
use super::service::{Answers, Batch};

/// Turns a service of batches into a service of requests. See the [module](super).
///
/// Clones share the places to wait and the counts; each service that is made has batches of its own. The methods that
/// configure the layer begin new ones, so configure first and clone after.
pub struct BatchLayer<R, J = Together> {
    pub(super) limits: Limits,
    pub(super) capacity: usize,
    pub(super) join: Arc<J>,
    pub(super) common: Arc<Common>,
    request: PhantomData<fn(R)>,
}

/// What all services of a layer share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) places: Arc<Semaphore>,
    capacity: usize,
    pub(super) batches: AtomicU64,
    pub(super) requests: AtomicU64,
    pub(super) expired: AtomicU64,
    pub(super) left: AtomicU64,
}

impl Common {
    fn new(capacity: usize) -> Arc<Self> {
        let [batches, requests, expired, left] = [const { AtomicU64::new(0) }; 4];
        Arc::new(Self { places: Arc::new(Semaphore::new(capacity)), capacity, batches, requests, expired, left })
    }
}

/// What the services of a [`BatchLayer`] have done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct BatchStats {
    /// Places that are taken just now: by requests that wait for their batch to be sent, and by services that are ready.
    pub waiting: usize,
    /// Batches that have been sent, of requests that had to wait. Calls of requests that had not are not counted.
    pub batches: u64,
    /// Requests that were in them.
    pub requests: u64,
    /// Requests whose deadline passed before their batch was sent.
    pub expired: u64,
    /// Requests whose caller left before their batch was sent.
    pub left: u64,
}

impl<R> BatchLayer<R> {
    /// Lets up to `requests` requests share a call; all may, if nothing else is said. 0 counts as 1.
    pub fn new(requests: usize) -> Self {
        let requests = requests.max(1);
        let limits = Limits { requests, weight: u64::MAX, in_flight: usize::MAX, delay: Duration::ZERO };
        let capacity = requests.saturating_mul(64).min(MOST);
        Self { limits, capacity, join: Arc::new(Together), common: Common::new(capacity), request: PhantomData }
    }

    /// Lets only those requests share a call of which `key` says the same. One of which it says `None` runs by itself.
    #[must_use]
    pub fn by_key<K, F>(self, key: F) -> BatchLayer<R, ByKey<F>>
    where
        F: Fn(&R) -> Option<K>,
        K: Hash + Eq + Clone,
    {
        self.with_join(ByKey(key))
    }
}

/// What a semaphore can count is more, and so is what memory can hold.
const MOST: usize = 1 << 24;

impl<R, J> BatchLayer<R, J> {
    /// Lets those requests share a call of which `join` says so.
    #[must_use]
    pub fn with_join<N: Join<R>>(self, join: N) -> BatchLayer<R, N> {
        let Self { limits, capacity, .. } = self;
        BatchLayer { limits, capacity, join: Arc::new(join), common: Common::new(capacity), request: PhantomData }
    }

    /// Lets the requests of a batch weigh at most `most` together: bytes, elements, whatever `weight` counts. A request
    /// that weighs more by itself runs by itself.
    #[must_use]
    pub fn weigh<F>(self, most: u64, weight: F) -> BatchLayer<R, Weighed<J, F>>
    where
        J: Join<R> + Clone,
        F: Fn(&R) -> u64,
    {
        let join = Weighed(J::clone(&self.join), weight);
        self.max_weight(most).with_join(join)
    }

    /// Sets how many requests share a call at most. 0 counts as 1.
    #[must_use]
    pub fn max_requests(self, requests: usize) -> Self {
        self.limited(|limits| limits.requests = requests.max(1))
    }

    /// Sets the most that the requests of a batch weigh together.
    #[must_use]
    pub fn max_weight(self, most: u64) -> Self {
        self.limited(|limits| limits.weight = most)
    }

    /// Has a batch that is not full wait for more, for up to `delay` from its first request, though the inner service
    /// could take it. Without this, and in most cases that is best, batches form only while it could not.
    #[must_use]
    pub fn max_delay(self, delay: Duration) -> Self {
        self.limited(|limits| limits.delay = delay)
    }

    /// Has at most so many calls of one key in flight; as many as the inner service is ready for if nothing is said. 0
    /// counts as 1.
    ///
    /// Say it where that service has a queue of its own: it is ready while there are places in it, and only what it is not
    /// ready for is merged. A little more than it works on at one time keeps it busy.
    #[must_use]
    pub fn in_flight(self, calls: usize) -> Self {
        self.limited(|limits| limits.in_flight = calls.max(1))
    }

    /// Sets how many requests can wait at one time, for all keys together; 64 batches full if nothing is said. A service
    /// is not ready while so many do. 0 counts as 1.
    #[must_use]
    pub fn capacity(self, requests: usize) -> Self {
        let capacity = requests.clamp(1, MOST);
        Self { capacity, common: Common::new(capacity), ..self }
    }

    /// The same layer, with its places and counts, for an inner service of another size.
    pub(crate) fn fitted<N: Join<R>>(&self, in_flight: usize, join: N) -> BatchLayer<R, N> {
        let limits = Limits { in_flight: in_flight.max(1), ..self.limits };
        let (capacity, common) = (self.capacity, Arc::clone(&self.common));
        BatchLayer { limits, capacity, join: Arc::new(join), common, request: PhantomData }
    }

    fn limited(mut self, change: impl FnOnce(&mut Limits)) -> Self {
        change(&mut self.limits);
        Self { common: Common::new(self.capacity), ..self }
    }

    /// What waits and what has been sent.
    pub fn stats(&self) -> BatchStats {
        let Common { places, capacity, batches, requests, expired, left } = &*self.common;
        BatchStats {
            waiting: capacity - places.available_permits(),
            batches: batches.load(Ordering::Relaxed),
            requests: requests.load(Ordering::Relaxed),
            expired: expired.load(Ordering::Relaxed),
            left: left.load(Ordering::Relaxed),
        }
    }
}

impl<S, R, J> Layer<S> for BatchLayer<R, J>
where
    S: Service<Vec<R>>,
    S::Response: Answers<Error = S::Error>,
    J: Join<R>,
{
    type Service = Batch<S, R, J>;

    fn layer(&self, inner: S) -> Self::Service {
        Batch::new(inner, self)
    }
}

// By hand: a clone needs no `R: Clone`, nor a `J: Clone`, which is shared.
impl<R, J> Clone for BatchLayer<R, J> {
    fn clone(&self) -> Self {
        Self {
            limits: self.limits,
            capacity: self.capacity,
            join: Arc::clone(&self.join),
            common: Arc::clone(&self.common),
            request: PhantomData,
        }
    }
}

impl<R, J: fmt::Debug> fmt::Debug for BatchLayer<R, J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { limits, capacity, join, .. } = self;
        f.debug_struct("BatchLayer")
            .field("limits", limits)
            .field("capacity", capacity)
            .field("join", join)
            .field("stats", &self.stats())
            .finish()
    }
}
