use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::circuit::Circuit;
use crate::sync::{Mutex, RwLock};

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Circuits by name, as many as there are permits. Several maps may share the permits.
#[derive(Debug)]
pub(super) struct CircuitMap {
    circuits: RwLock<HashMap<Box<str>, Entry, RandomState>>,
    pub(super) permits: Arc<Semaphore>,
    next_sweep: Mutex<Option<Instant>>,
}

#[derive(Debug)]
struct Entry {
    circuit: Arc<Circuit>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl CircuitMap {
    pub(super) fn new(permits: Arc<Semaphore>) -> Self {
        Self { circuits: RwLock::default(), permits, next_sweep: Mutex::default() }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.circuits.read().is_empty()
    }

    pub(super) fn get(&self, name: &str) -> Option<Arc<Circuit>> {
        self.circuits.read().get(name).map(|entry| Arc::clone(&entry.circuit))
    }

    pub(super) fn all(&self) -> Vec<Arc<Circuit>> {
        self.circuits.read().values().map(|entry| Arc::clone(&entry.circuit)).collect()
    }

    /// Returns a permit for another circuit, if there is one. If not, idle circuits are removed first.
    pub(super) fn reserve(&self, now: Instant) -> Option<OwnedSemaphorePermit> {
        if self.permits.available_permits() == 0 {
            self.sweep(now);
        }
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Returns the circuit of this name. If there is none, adds the given one.
    pub(super) fn get_or_add(
        &self,
        name: &str,
        permit: Option<OwnedSemaphorePermit>,
        circuit: Arc<Circuit>,
    ) -> Arc<Circuit> {
        let entry = Entry { circuit, _permit: permit };
        Arc::clone(&self.circuits.write().entry(name.into()).or_insert(entry).circuit)
    }

    /// Removes idle circuits, at most once a second.
    ///
    /// A call that has found a circuit and is not admitted yet does not keep it. Its outcome then counts in a circuit that
    /// nobody else finds, which is no loss as the circuit was idle.
    pub(super) fn sweep(&self, now: Instant) {
        let mut next_sweep = self.next_sweep.lock();
        if next_sweep.is_none_or(|next| now >= next) {
            *next_sweep = Some(now + SWEEP_INTERVAL);
            self.circuits.write().retain(|_, entry| !entry.circuit.is_idle(now));
        }
    }
}
