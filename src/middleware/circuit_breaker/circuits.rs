use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::circuit::Circuit;
use super::future::CallGuard;
use super::settings::Settings;
use super::snapshot::CircuitSnapshot;
use crate::middleware::clock;
use crate::request::limits::MAX_NAME_BYTES;
use crate::sync::{Mutex, RwLock};

/// Circuits of tenants, for all operations together.
const MAX_TENANT_CIRCUITS: usize = 4096;

/// How often idle circuits are removed at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The circuits of a layer.
#[derive(Debug)]
pub(super) struct Circuits {
    pub(super) settings: Settings,
    /// The circuit of all requests, or of those without one of their own.
    pub(super) shared: Arc<Circuit>,
    /// Empty if there is one circuit for all requests.
    by_key: CircuitMap,
    tenant_permits: Arc<Semaphore>,
}

impl Circuits {
    pub(super) fn new(settings: Settings) -> Self {
        let max_keys = settings.max_keys.unwrap_or(0).min(Semaphore::MAX_PERMITS);
        let tenant_permits = Arc::new(Semaphore::new(MAX_TENANT_CIRCUITS));
        let name = if settings.max_keys.is_some() { "rest" } else { "all" };
        let shared = Arc::new(Circuit::new(name, settings, &tenant_permits));
        Self { settings, shared, by_key: CircuitMap::new(Arc::new(Semaphore::new(max_keys))), tenant_permits }
    }

    /// Returns the circuit of all requests, if there is only one. It takes part in readiness, which knows no request.
    pub(super) fn single(&self) -> Option<&Arc<Circuit>> {
        self.settings.max_keys.is_none().then_some(&self.shared)
    }

    /// Admits a call, or returns the time until one can be.
    pub(super) fn admit(self: &Arc<Self>, key: Option<&str>, tenant: Option<&Arc<str>>) -> Result<CallGuard, Duration> {
        let (now, tenant) = (clock::now(), tenant.filter(|_| self.settings.min_open_tenants.is_some()));
        let Some(key) = key.filter(|key| key.len() <= MAX_NAME_BYTES) else { return self.shared.admit(tenant, now) };
        match self.by_key.get(key) {
            Some(circuit) => circuit.admit(tenant, now),
            None if self.by_key.reserve(now).is_some() => {
                Ok(CallGuard::new_key(self.new_circuit(key), tenant.cloned()))
            }
            None => self.shared.admit(tenant, now),
        }
    }

    /// Returns a circuit that is not one of these yet.
    pub(super) fn new_circuit(self: &Arc<Self>, key: &str) -> Arc<Circuit> {
        let mut circuit = Circuit::new(key, self.settings, &self.tenant_permits);
        circuit.circuits = Arc::downgrade(self);
        Arc::new(circuit)
    }

    /// Returns the circuit of the same key. If there is none, adds the given one if there is a permit for it.
    pub(super) fn get_or_add(&self, circuit: &Arc<Circuit>, now: Instant) -> Option<Arc<Circuit>> {
        self.by_key.get(&circuit.name).or_else(|| {
            let permit = self.by_key.reserve(now)?;
            Some(self.by_key.get_or_add(&circuit.name, Some(permit), Arc::clone(circuit)))
        })
    }

    /// Returns the current state of all circuits, by name; the shared one is last.
    pub(super) fn snapshots(&self) -> Vec<CircuitSnapshot> {
        let mut snapshots: Vec<_> = self.by_key.all().iter().map(|circuit| circuit.snapshot()).collect();
        snapshots.sort_unstable_by(|a, b| a.circuit.cmp(&b.circuit));
        snapshots.push(self.shared.snapshot());
        snapshots
    }
}

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

    /// Removes idle circuits, at most once in a [`SWEEP_INTERVAL`].
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

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::Circuits;
    use crate::error::ErrorKind;
    use crate::middleware::circuit_breaker::future::CallGuard;
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::snapshot::CircuitState;
    use crate::middleware::circuit_breaker::state_machine::Outcome;
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Instant;

    #[test]
    fn loom_concurrent_first_failures_of_an_operation_count_in_one_circuit() {
        loom::model(|| {
            let settings = Settings { consecutive_failures: Some(2), max_keys: Some(2), ..Settings::default() };
            let circuits = Arc::new(Circuits::new(settings));
            let [here, there] = [(); 2].map(|()| {
                let mut call = CallGuard::new_key(circuits.new_circuit("a"), None);
                call.start(None);
                call
            });
            let thread = loom::thread::spawn(move || there.end(Some(ErrorKind::Unavailable)));
            here.end(Some(ErrorKind::Unavailable));
            thread.join().unwrap();
            let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.failures), (CircuitState::Open, 1, 2));
        });
    }

    #[test]
    fn loom_the_last_of_enough_open_tenant_circuits_opens_that_of_the_operation() {
        loom::model(|| {
            let settings = Settings {
                consecutive_failures: Some(1),
                max_keys: Some(2),
                min_open_tenants: NonZeroU32::new(2),
                ..Settings::default()
            };
            let (circuits, now) = (Arc::new(Circuits::new(settings)), Instant::now());
            let circuit = circuits.get_or_add(&circuits.new_circuit("a"), now).unwrap();
            let failure = Some(Outcome { failed: true, slow: false });
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                other.end_first(Some(&"one".into()), failure, now);
            });
            circuit.end_first(Some(&"two".into()), failure, now);
            thread.join().unwrap();
            let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.tenants_opened), (CircuitState::Open, 1, 2));
        });
    }
}
