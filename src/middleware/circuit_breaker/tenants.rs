use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Instant;

use super::Circuit;
use super::circuit_map::{CircuitMap, Limit};

/// What bounds the circuits of tenants, for all operations together.
#[derive(Clone, Debug)]
pub(super) struct TenantLimits {
    pub(super) min_open: NonZeroU32,
    circuits: Limit,
}

const MAX_CIRCUITS: usize = 4096;

/// The key of the circuit that the tenants past the limit share.
const SHARED: &str = "";

impl TenantLimits {
    pub(super) fn new(min_open: NonZeroU32) -> Self {
        Self { min_open, circuits: Limit::new(MAX_CIRCUITS) }
    }
}

/// The circuits of tenants for which calls of one operation have failed.
#[derive(Debug)]
pub(super) struct TenantCircuits {
    /// Tenants whose open circuits open the operation's.
    pub(super) min_open: NonZeroU32,
    circuits: CircuitMap<Arc<str>>,
    /// How often one of them has opened.
    pub(super) opened: u64,
}

impl TenantCircuits {
    pub(super) fn new(limits: &TenantLimits) -> Self {
        Self { min_open: limits.min_open, circuits: CircuitMap::new(limits.circuits.clone()), opened: 0 }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.circuits.is_empty()
    }

    pub(super) fn get(&mut self, tenant: &str, now: Instant) -> Option<Arc<Circuit>> {
        self.circuits.sweep(now);
        self.circuits.get(tenant).or_else(|| self.circuits.get(SHARED))
    }

    pub(super) fn get_or_create(
        &mut self,
        tenant: &Arc<str>,
        create: impl FnOnce() -> Circuit,
        now: Instant,
    ) -> Arc<Circuit> {
        if let Some(own) = self.circuits.get(&**tenant) {
            return own;
        }
        let key = if self.circuits.has_room(now) { Arc::clone(tenant) } else { SHARED.into() };
        self.circuits.get_or_create(key, create)
    }

    /// How many are open, without those whose tenants no longer call.
    pub(super) fn open(&self, now: Instant) -> u64 {
        self.circuits.values().filter(|circuit| circuit.is_open_and_in_use(now)).count() as u64
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use std::num::NonZeroU32;
    use std::sync::Arc;
    use std::time::Instant;

    use crate::middleware::circuit_breaker::circuits::{PerOperation, Snapshots};
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::snapshot::CircuitState;
    use crate::middleware::circuit_breaker::state_machine::Outcome;

    #[test]
    fn loom_the_last_of_enough_open_tenant_circuits_opens_that_of_the_operation() {
        loom::model(|| {
            let settings = Settings { consecutive_failures: Some(1), ..Settings::default() };
            let circuits = PerOperation::new(settings, 2, NonZeroU32::new(2));
            let (circuit, now) = (circuits.get_or_create("a").unwrap(), Instant::now());
            let failure = Outcome::Failure { slow: false };
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                other.end(other.admit_first(), Some(&"one".into()), failure, now);
            });
            circuit.end(circuit.admit_first(), Some(&"two".into()), failure, now);
            thread.join().unwrap();
            let [a, _shared] = &circuits.snapshots()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.tenants_opened), (CircuitState::Open, 1, 2));
        });
    }
}
