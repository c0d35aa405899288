use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::caller::Caller;
use super::flight::Flight;
use crate::middleware::cache_key::CacheKey;
use crate::middleware::clock;
use crate::middleware::derive::derive_debug;
use crate::request::RequestContext;
use crate::sync::Mutex;

/// Each is held by its callers as well, until it has been removed.
type Table<K, T, E> = HashMap<u128, Arc<Flight<K, T, E>>>;

/// The runs in flight of a [`CoalesceLayer`](super::CoalesceLayer), which its clones and their services share.
///
/// `K` is the key of the requests, and `T` and `E` are the response and the error of the inner service.
pub struct Flights<K, T, E> {
    by_digest: Mutex<Table<K, T, E>>,
    min_run_time: Option<Duration>,
    pub(super) counts: Arc<Mutex<CoalesceSnapshot>>,
}

/// The state of a [`CoalesceLayer`](super::CoalesceLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "service", derive(serde::Serialize))]
#[non_exhaustive]
pub struct CoalesceSnapshot {
    /// Runs in flight.
    pub in_flight: usize,
    /// Calls that wait for the run of another call.
    pub waiting: usize,
    /// Runs that were started.
    pub led: u64,
    /// Times that a call joined the run of another call.
    pub joined: u64,
}

impl<K, T, E> Flights<K, T, E> {
    pub(super) fn new(min_run_time: Option<Duration>, counts: Arc<Mutex<CoalesceSnapshot>>) -> Self {
        Self { by_digest: Mutex::default(), min_run_time, counts }
    }

    /// Joins the flight of an equal request, or leads a new one. `None` if the request has no key, or if another key in
    /// flight has the same digest.
    pub(super) fn join_or_lead<R, P>(self: &Arc<Self>, cache_key: &P, request: &R) -> Option<Caller<K, T, E>>
    where
        R: RequestContext,
        P: CacheKey<R, OwnedKey = K>,
    {
        let key = cache_key.key(request)?;
        let (digest, priority) = (cache_key.digest(&key), request.priority());
        let mut flights = self.by_digest.lock();
        if let Some(flight) = flights.get(&digest) {
            if !cache_key.is_equal(&flight.key, &key) {
                return None;
            }
            if flight.priority >= priority
                && let Some(index) = flight.join()
            {
                let mut counts = self.counts.lock();
                counts.waiting += 1;
                counts.joined += 1;
                return Some(Caller::new(self, flight, index));
            }
        }
        // Replaces a flight that is less urgent, or has ended and is about to be removed: later calls join the new one.
        let flight = Arc::new(Flight::new(cache_key.to_owned_key(key), digest, priority));
        flights.insert(digest, Arc::clone(&flight));
        let mut counts = self.counts.lock();
        counts.in_flight += 1;
        counts.led += 1;
        Some(Caller::new(self, &flight, 0))
    }

    /// Removes a flight that has ended, so that the next call starts another.
    pub(super) fn remove(&self, flight: &Arc<Flight<K, T, E>>) {
        self.counts.lock().in_flight -= 1;
        let mut flights = self.by_digest.lock();
        // Another flight may have replaced it.
        if flights.get(&flight.digest).is_some_and(|listed| Arc::ptr_eq(listed, flight)) {
            flights.remove(&flight.digest);
        }
    }

    /// Gives the request that leads a run the time that a run has at least.
    pub(super) fn extend_deadline<R: RequestContext>(&self, request: &mut R) {
        if let Some(min_run_time) = self.min_run_time
            && let Some(deadline) = request.deadline()
            && let Some(min_deadline) = clock::now().checked_add(min_run_time)
        {
            request.set_deadline(deadline.max(min_deadline));
        }
    }
}

derive_debug!(Flights::<K, T, E> { counts });
