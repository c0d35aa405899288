use std::borrow::Borrow;
use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::Circuit;

/// The number of circuits that one or several maps may hold.
#[derive(Clone, Debug)]
pub(super) struct Limit {
    pub(super) max: usize,
    len: Arc<AtomicUsize>,
}

impl Limit {
    pub(super) fn new(max: usize) -> Self {
        Self { max, len: Arc::default() }
    }

    fn is_reached(&self) -> bool {
        self.len.load(Ordering::Relaxed) >= self.max
    }
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Circuits by key, up to a limit.
#[derive(Debug)]
pub(super) struct CircuitMap<K> {
    circuits: HashMap<K, Arc<Circuit>>,
    limit: Limit,
    next_sweep: Option<Instant>,
}

impl<K> CircuitMap<K> {
    pub(super) fn new(limit: Limit) -> Self {
        Self { circuits: HashMap::new(), limit, next_sweep: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    pub(super) fn values(&self) -> impl Iterator<Item = &Arc<Circuit>> {
        self.circuits.values()
    }

    /// Whether another circuit can be inserted. If not, idle ones are removed first.
    pub(super) fn has_room(&mut self, now: Instant) -> bool {
        if self.limit.is_reached() {
            self.sweep(now);
        }
        !self.limit.is_reached()
    }

    /// Removes idle circuits, at most once a second.
    ///
    /// A call that has found a circuit and is not admitted yet does not keep it. Its outcome then counts in a circuit that
    /// nobody else finds, which is no loss as the circuit was idle.
    pub(super) fn sweep(&mut self, now: Instant) {
        if self.next_sweep.is_none_or(|next| now >= next) {
            self.next_sweep = Some(now + SWEEP_INTERVAL);
            let before = self.circuits.len();
            self.circuits.retain(|_, circuit| !circuit.is_idle(now));
            self.limit.len.fetch_sub(before - self.circuits.len(), Ordering::Relaxed);
        }
    }
}

impl<K: Hash + Eq> CircuitMap<K> {
    pub(super) fn get<Q: Hash + Eq + ?Sized>(&self, key: &Q) -> Option<Arc<Circuit>>
    where
        K: Borrow<Q>,
    {
        self.circuits.get(key).cloned()
    }

    /// Returns the circuit of `key`, which is created even past the limit.
    pub(super) fn get_or_create(&mut self, key: K, create: impl FnOnce() -> Circuit) -> Arc<Circuit> {
        let circuit = self.circuits.entry(key).or_insert_with(|| {
            self.limit.len.fetch_add(1, Ordering::Relaxed);
            Arc::new(create())
        });
        Arc::clone(circuit)
    }
}

impl<K> Drop for CircuitMap<K> {
    fn drop(&mut self) {
        self.limit.len.fetch_sub(self.circuits.len(), Ordering::Relaxed);
    }
}
