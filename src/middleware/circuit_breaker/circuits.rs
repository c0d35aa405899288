use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::call::CallGuard;
use super::circuit::Circuit;
use super::circuit_map::CircuitMap;
use super::settings::Settings;
use super::snapshot::CircuitSnapshot;
use crate::middleware::clock;
use crate::request::limits::MAX_NAME_BYTES;

/// Circuits of tenants, for all operations together.
const MAX_TENANT_CIRCUITS: usize = 4096;

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
            None if self.by_key.reserve(now).is_some() => Ok(CallGuard::new_key(self, key, tenant.cloned())),
            None => self.shared.admit(tenant, now),
        }
    }

    /// Returns a circuit that is not one of these yet.
    pub(super) fn new_circuit(&self, key: &str) -> Circuit {
        Circuit::new(key, self.settings, &self.tenant_permits)
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

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::Circuits;
    use crate::error::ErrorKind;
    use crate::middleware::circuit_breaker::call::CallGuard;
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
                let mut call = CallGuard::new_key(&circuits, "a", None);
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
            let (circuits, now) = (Circuits::new(settings), Instant::now());
            let circuit = circuits.get_or_add(&Arc::new(circuits.new_circuit("a")), now).unwrap();
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
