use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::flight::Flight;
use crate::request::Priority;
use crate::sync::Mutex;

type Table<K, F, T, E> = HashMap<u128, Arc<Flight<K, F, T, E>>>;

/// The runs in flight of a [`CoalesceLayer`](super::CoalesceLayer), which its clones and their services share.
pub struct Flights<K, F, T, E> {
    by_digest: Mutex<Table<K, F, T, E>>,
    pub(super) counts: Arc<Counts>,
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) in_flight: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) led: AtomicU64,
    pub(super) joined: AtomicU64,
}

/// The state of a [`CoalesceLayer`](super::CoalesceLayer).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "kernels", derive(serde::Serialize))]
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

impl Counts {
    pub(super) fn snapshot(&self) -> CoalesceSnapshot {
        CoalesceSnapshot {
            in_flight: self.in_flight.load(Ordering::Relaxed),
            waiting: self.waiting.load(Ordering::Relaxed),
            led: self.led.load(Ordering::Relaxed),
            joined: self.joined.load(Ordering::Relaxed),
        }
    }
}

/// The flight of a call.
pub(super) enum Membership<K, F, T, E> {
    /// A new flight, which this call is to start.
    Lead(Arc<Flight<K, F, T, E>>),
    /// A flight of another call, and the index of this caller in it.
    Join(Arc<Flight<K, F, T, E>>, usize),
}

impl<K, F, T, E> Flights<K, F, T, E> {
    pub(super) fn new(counts: Arc<Counts>) -> Self {
        Self { by_digest: Mutex::new(HashMap::new()), counts }
    }

    /// Joins the flight of the key that `is_equal` compares with, or adds a new one. `None` if another key has the same
    /// digest.
    pub(super) fn join_or_lead<Q>(
        &self,
        digest: u128,
        priority: Priority,
        key: Q,
        is_equal: impl FnOnce(&K, &Q) -> bool,
        to_owned_key: impl FnOnce(Q) -> K,
    ) -> Option<Membership<K, F, T, E>> {
        let mut flights = self.by_digest.lock();
        let replaced = match flights.entry(digest) {
            Entry::Occupied(entry) => {
                let flight = entry.get();
                if !is_equal(&flight.key, &key) {
                    return None;
                }
                if flight.priority >= priority
                    && let Some(caller) = flight.join()
                {
                    self.counts.waiting.fetch_add(1, Ordering::Relaxed);
                    self.counts.joined.fetch_add(1, Ordering::Relaxed);
                    return Some(Membership::Join(Arc::clone(flight), caller));
                }
                // It is less urgent, or has ended and is about to be removed. Later calls join the new one.
                Some(entry.remove())
            }
            Entry::Vacant(_) => None,
        };
        let flight = Arc::new(Flight::new(to_owned_key(key), priority));
        flights.insert(digest, Arc::clone(&flight));
        drop(flights);
        drop(replaced);
        self.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        self.counts.led.fetch_add(1, Ordering::Relaxed);
        Some(Membership::Lead(flight))
    }

    /// Removes a flight that has ended, so that the next call starts another.
    pub(super) fn remove(&self, digest: u128, flight: &Arc<Flight<K, F, T, E>>) {
        self.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        let mut flights = self.by_digest.lock();
        // Another flight may have replaced it.
        let is_listed = flights.get(&digest).is_some_and(|listed| Arc::ptr_eq(listed, flight));
        let removed = if is_listed { flights.remove(&digest) } else { None };
        drop(flights);
        drop(removed);
    }
}

impl<K, F, T, E> fmt::Debug for Flights<K, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Flights").field(&self.counts.snapshot()).finish()
    }
}
