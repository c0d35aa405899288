use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;

use super::circuit::Circuit;
use super::circuit_map::CircuitMap;
use super::settings::Settings;
use crate::sync::{AtomicU64, Ordering};

/// The circuits of tenants for which calls of one operation have failed.
#[derive(Debug)]
pub(super) struct Tenants {
    /// Tenants whose open circuits open the operation's.
    min_open: NonZeroU32,
    circuits: CircuitMap,
    /// How often one of them has opened.
    opened: AtomicU64,
}

/// The name of the circuit that the tenants past the limit share.
const SHARED: &str = "";

impl Tenants {
    /// `None` if tenants have no circuits of their own.
    pub(super) fn new(settings: &Settings, permits: &Arc<Semaphore>) -> Option<Self> {
        let min_open = settings.min_open_tenants?;
        Some(Self { min_open, circuits: CircuitMap::new(Arc::clone(permits)), opened: AtomicU64::new(0) })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    /// Returns the circuit of a tenant, if it has one.
    pub(super) fn get(&self, tenant: &str, now: Instant) -> Option<Arc<Circuit>> {
        if self.circuits.is_empty() {
            return None;
        }
        self.circuits.sweep(now);
        self.circuits.get(tenant).or_else(|| self.circuits.get(SHARED))
    }

    pub(super) fn get_or_create(&self, tenant: &str, now: Instant, create: impl FnOnce() -> Circuit) -> Arc<Circuit> {
        if let Some(own) = self.circuits.get(tenant) {
            return own;
        }
        let permit = self.circuits.reserve(now);
        let name = if permit.is_some() { tenant } else { SHARED };
        self.circuits.get_or_insert(name, permit, create)
    }

    /// Returns how many are open, without those whose tenants no longer call.
    pub(super) fn open(&self, now: Instant) -> u64 {
        self.circuits.count(|circuit| circuit.is_open_and_in_use(now))
    }

    /// Returns how often one of them has opened.
    pub(super) fn opened(&self) -> u64 {
        self.opened.load(Ordering::Relaxed)
    }

    /// Counts that one of them has opened. Returns whether enough are open to open the operation's.
    pub(super) fn count_opened(&self, now: Instant) -> bool {
        self.opened.fetch_add(1, Ordering::Relaxed);
        self.open(now) >= u64::from(self.min_open.get())
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Instant;

    use crate::middleware::circuit_breaker::circuits::Circuits;
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::snapshot::CircuitState;
    use crate::middleware::circuit_breaker::state_machine::{Generation, Outcome};

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
            let circuit = circuits.get_or_create("a", now).unwrap();
            let failure = Some(Outcome { failed: true, slow: false });
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                other.end(Generation::FIRST, Some(&"one".into()), failure, now);
            });
            circuit.end(Generation::FIRST, Some(&"two".into()), failure, now);
            thread.join().unwrap();
            let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.tenants_opened), (CircuitState::Open, 1, 2));
        });
    }
}
