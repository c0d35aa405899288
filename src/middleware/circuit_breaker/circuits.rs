use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::call::CallGuard;
use super::circuit::Circuit;
use super::circuit_map::CircuitMap;
use super::settings::Settings;
use super::snapshot::CircuitSnapshot;
use super::tenants::Tenants;
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
    /// `None` if there is one circuit for all requests.
    by_key: Option<CircuitMap>,
    tenant_permits: Arc<Semaphore>,
}

impl Circuits {
    pub(super) fn new(settings: Settings) -> Self {
        let tenant_permits = Arc::new(Semaphore::new(MAX_TENANT_CIRCUITS));
        let by_key =
            settings.max_keys.map(|max| CircuitMap::new(Arc::new(Semaphore::new(max.min(Semaphore::MAX_PERMITS)))));
        let name = if by_key.is_some() { "rest" } else { "all" };
        let shared = Arc::new(Circuit::new(name, settings, Tenants::new(&settings, &tenant_permits)));
        Self { settings, shared, by_key, tenant_permits }
    }

    /// Returns the circuit of all requests, if there is only one. It takes part in readiness, which knows no request.
    pub(super) fn single(&self) -> Option<&Arc<Circuit>> {
        self.by_key.is_none().then_some(&self.shared)
    }

    /// Admits a call, or returns the time until one can be.
    pub(super) fn admit(self: &Arc<Self>, key: Option<&str>, tenant: Option<&Arc<str>>) -> Result<CallGuard, Duration> {
        let (now, tenant) = (clock::now(), tenant.filter(|_| self.settings.min_open_tenants.is_some()));
        if let (Some(key), Some(circuits)) = (key, &self.by_key) {
            if let Some(circuit) = circuits.get(key) {
                return circuit.admit(tenant, now);
            }
            if key.len() <= MAX_NAME_BYTES && circuits.reserve(now).is_some() {
                return Ok(CallGuard::new_key(Arc::clone(self), key, tenant.cloned()));
            }
        }
        self.shared.admit(tenant, now)
    }

    /// Returns the circuit of a key, which is created if there is a permit for it.
    pub(super) fn get_or_create(&self, key: &str, now: Instant) -> Option<Arc<Circuit>> {
        let circuits = self.by_key.as_ref()?;
        if let Some(circuit) = circuits.get(key) {
            return Some(circuit);
        }
        let permit = circuits.reserve(now)?;
        let create = || Circuit::new(key, self.settings, Tenants::new(&self.settings, &self.tenant_permits));
        Some(circuits.get_or_insert(key, Some(permit), create))
    }

    /// Returns the current state of all circuits, by name; the shared one is last.
    pub(super) fn snapshots(&self) -> Vec<CircuitSnapshot> {
        let circuits = self.by_key.as_ref().map(CircuitMap::all).unwrap_or_default();
        let mut snapshots: Vec<_> = circuits.iter().map(|circuit| circuit.snapshot()).collect();
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
    use std::sync::Arc;

    #[test]
    fn loom_concurrent_first_failures_of_an_operation_count_in_one_circuit() {
        loom::model(|| {
            let settings = Settings { consecutive_failures: Some(2), max_keys: Some(2), ..Settings::default() };
            let circuits = Arc::new(Circuits::new(settings));
            let [here, there] = [(); 2].map(|()| {
                let mut call = CallGuard::new_key(Arc::clone(&circuits), "a", None);
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
}
