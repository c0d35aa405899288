use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::flight::{Flight, Run};
use crate::request::Priority;
use crate::sync::{Mutex, MutexGuard};

/// The runs that a [`CoalesceLayer`](super::CoalesceLayer), its clones and their services have in flight.
pub struct Flights<K, F, T, E> {
    parts: [Mutex<Part<K, F, T, E>>; PARTS],
    pub(super) gauges: Arc<Gauges>,
}

/// By the digests of their questions.
type Listed<F> = HashMap<u128, Arc<F>>;

/// The table is cut into so many, each with a lock of its own.
const PARTS: usize = 16;

/// How many boxes each part keeps for the next runs.
const SPARE: usize = 4;

struct Part<K, F, T, E> {
    flights: Listed<Flight<K, F, T, E>>,
    spare: Vec<Run<F>>,
}

#[derive(Debug, Default)]
pub(super) struct Gauges {
    pub(super) runs: AtomicUsize,
    pub(super) waiting: AtomicUsize,
    pub(super) led: AtomicU64,
    pub(super) joined: AtomicU64,
}

/// What comes of a question.
pub(super) enum Boarded<K, F, T, E> {
    /// A new run, to be begun, and the box for it.
    Leads(Arc<Flight<K, F, T, E>>, Option<Run<F>>),
    /// A place in a run that is in flight.
    Joins(Arc<Flight<K, F, T, E>>, usize),
    /// Another question has the same digest.
    Collides,
}

impl<K, F, T, E> Flights<K, F, T, E> {
    pub(super) fn new(gauges: Arc<Gauges>) -> Self {
        let part = |_| Mutex::new(Part { flights: HashMap::new(), spare: Vec::new() });
        Self { parts: std::array::from_fn(part), gauges }
    }

    fn part(&self, digest: u128) -> MutexGuard<'_, Part<K, F, T, E>> {
        // Other bits than the table goes by.
        let part = &self.parts[(digest >> 124) as usize % PARTS];
        part.lock()
    }

    /// A place in the run of the question that `is_same` knows, or a new run of it.
    pub(super) fn board(
        &self,
        digest: u128,
        priority: Priority,
        is_same: impl FnOnce(&K) -> bool,
        hold: impl FnOnce() -> K,
    ) -> Boarded<K, F, T, E> {
        let mut part = self.part(digest);
        let Part { flights, spare } = &mut *part;
        let (flight, replaced) = match flights.entry(digest) {
            Entry::Vacant(vacant) => {
                let flight = Arc::new(Flight::new(hold(), priority));
                (Arc::clone(vacant.insert(flight)), None)
            }
            Entry::Occupied(mut occupied) => {
                let flight = occupied.get();
                if !is_same(&flight.question) {
                    return Boarded::Collides;
                }
                if flight.priority >= priority
                    && let Some(place) = flight.join()
                {
                    let flight = Arc::clone(flight);
                    drop(part);
                    self.gauges.waiting.fetch_add(1, Ordering::Relaxed);
                    self.gauges.joined.fetch_add(1, Ordering::Relaxed);
                    return Boarded::Joins(flight, place);
                }
                // Less urgent, or over and about to be taken off: those after this one join this one.
                let flight = Arc::new(Flight::new(hold(), priority));
                (Arc::clone(&flight), Some(occupied.insert(flight)))
            }
        };
        let spare = spare.pop();
        drop(part);
        drop(replaced);
        self.gauges.runs.fetch_add(1, Ordering::Relaxed);
        self.gauges.led.fetch_add(1, Ordering::Relaxed);
        Boarded::Leads(flight, spare)
    }

    /// Takes a run that is over off the table, so that who asks from now on begins another. The box, empty, is kept for it.
    pub(super) fn take_off(&self, digest: u128, flight: &Arc<Flight<K, F, T, E>>, spare: Option<Run<F>>) {
        self.gauges.runs.fetch_sub(1, Ordering::Relaxed);
        let mut part = self.part(digest);
        // Another may have taken its place.
        let removed = match part.flights.entry(digest) {
            Entry::Occupied(listed) if Arc::ptr_eq(listed.get(), flight) => Some(listed.remove()),
            Entry::Occupied(_) | Entry::Vacant(_) => None,
        };
        let rest = match spare {
            Some(spare) if part.spare.len() < SPARE => {
                part.spare.push(spare);
                None
            }
            rest => rest,
        };
        drop(part);
        drop((removed, rest));
    }
}

impl<K, F, T, E> fmt::Debug for Flights<K, F, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Flights").field("gauges", &self.gauges).finish_non_exhaustive()
    }
}
