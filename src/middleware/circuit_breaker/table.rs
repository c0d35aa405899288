//! Circuits that are found by a name or a key, of which there are no more than were allowed for.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::Circuit;
use super::settings::Settings;
use super::status::CircuitStatus;
use crate::middleware::clock;
use crate::request::operation_table::OperationTable;

/// What circuits are kept in, up to a bound of its own.
pub(super) trait Store {
    fn is_full(&self) -> bool;
    fn retain(&mut self, keep: impl FnMut(&Arc<Circuit>) -> bool);
    fn circuits(&self) -> impl Iterator<Item = &Arc<Circuit>>;
}

/// The circuits, and the one that all requests without one of their own share.
#[derive(Debug)]
pub(super) struct Table<C> {
    circuits: RwLock<C>,
    pub(super) rest: Arc<Circuit>,
    settings: Settings,
    /// When circuits may next be looked through for some to forget.
    next_sweep: Mutex<Option<Instant>>,
}

const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

impl<C> Table<C> {
    pub(super) fn new(settings: Settings, circuits: C) -> Self {
        Self {
            circuits: RwLock::new(circuits),
            rest: Arc::new(Circuit::new("rest", settings)),
            settings,
            next_sweep: Mutex::new(None),
        }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    #[inline]
    pub(super) fn read(&self) -> RwLockReadGuard<'_, C> {
        self.circuits.read()
    }

    pub(super) fn write(&self) -> RwLockWriteGuard<'_, C> {
        self.circuits.write()
    }

    /// Whether it is on this caller to make room, which somebody does at most once a second.
    fn sweep_is_due(&self) -> bool {
        let Some(mut next) = self.next_sweep.try_lock() else { return false };
        let now = clock::now();
        let due = next.is_none_or(|next| now >= next);
        if due {
            *next = now.checked_add(SWEEP_INTERVAL);
        }
        due
    }
}

impl<C: Store> Table<C> {
    /// Whether there is room for one more. Where there is none it is made, if that is due and there are some to forget.
    #[cold]
    pub(super) fn has_room(&self) -> bool {
        if !self.read().is_full() {
            return true;
        }
        if !self.sweep_is_due() {
            return false;
        }
        let now = clock::now();
        let mut circuits = self.write();
        // A circuit whose calls are in flight is not forgotten; nobody can take a share of one meanwhile.
        circuits.retain(|circuit| Arc::strong_count(circuit) > 1 || !circuit.is_blank(now));
        !circuits.is_full()
    }

    pub(super) fn statuses(&self) -> Vec<CircuitStatus> {
        let mut statuses: Vec<_> = self.read().circuits().map(|circuit| circuit.status()).collect();
        statuses.sort_by(|a, b| a.circuit.cmp(&b.circuit));
        statuses.push(self.rest.status());
        statuses
    }
}

impl Store for OperationTable<Arc<Circuit>> {
    fn is_full(&self) -> bool {
        self.is_full()
    }

    fn retain(&mut self, keep: impl FnMut(&Arc<Circuit>) -> bool) {
        self.retain(keep);
    }

    fn circuits(&self) -> impl Iterator<Item = &Arc<Circuit>> {
        self.iter().map(|(_, circuit)| circuit)
    }
}

/// Of keys of whoever built the layer, which are to be hashed as they say themselves.
#[derive(Debug)]
pub(super) struct ByKey<K> {
    circuits: HashMap<K, Arc<Circuit>>,
    max: usize,
}

impl<K> ByKey<K> {
    pub(super) fn new(max: usize) -> Self {
        Self { circuits: HashMap::new(), max }
    }
}

impl<K: Hash + Eq> ByKey<K> {
    pub(super) fn get(&self, key: &K) -> Option<&Arc<Circuit>> {
        self.circuits.get(key)
    }

    /// The circuit of this key, made now if there is room for it.
    pub(super) fn get_or_insert(&mut self, key: K, make: impl FnOnce() -> Arc<Circuit>) -> Option<&Arc<Circuit>> {
        if self.is_full() && !self.circuits.contains_key(&key) {
            return None;
        }
        Some(self.circuits.entry(key).or_insert_with(make))
    }
}

impl<K> Store for ByKey<K> {
    fn is_full(&self) -> bool {
        self.circuits.len() >= self.max
    }

    fn retain(&mut self, mut keep: impl FnMut(&Arc<Circuit>) -> bool) {
        self.circuits.retain(|_, circuit| keep(circuit));
    }

    fn circuits(&self) -> impl Iterator<Item = &Arc<Circuit>> {
        self.circuits.values()
    }
}
