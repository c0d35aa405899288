use std::sync::Arc;
use std::time::Instant;

use super::circuits::PerOperation;
use super::machine::{Ticket, Verdict};
use super::terms::Terms;
use crate::error::ErrorKind;
use crate::middleware::clock;
use crate::request::operation_table::to_keep;

/// A call of an operation that has no circuit yet, and makes it if it counts. A name that the service does not know ends in
/// nothing that counts, and so takes no place.
#[derive(Debug)]
pub struct First {
    circuits: Arc<PerOperation>,
    operation: Box<str>,
    tenant: Option<Arc<str>>,
    terms: Terms,
    ended: bool,
}

impl First {
    pub(super) fn new(
        circuits: Arc<PerOperation>,
        operation: &str,
        callers_deadline: Option<Instant>,
        tenant: Option<Arc<str>>,
    ) -> Self {
        let terms = Terms::of(circuits.settings(), callers_deadline);
        Self { circuits, operation: to_keep(operation).into(), tenant, terms, ended: false }
    }

    /// `kind` is of the failure, if it is one.
    #[cold]
    #[inline(never)]
    pub(super) fn end(&mut self, kind: Option<ErrorKind>) {
        self.ended = true;
        let now = clock::read();
        self.count(self.terms.verdict(self.circuits.settings(), kind, now), now);
    }

    fn count(&self, verdict: Verdict, now: Instant) {
        if verdict == Verdict::Nothing {
            return;
        }
        // The call began before the circuit did, so what it brings is of its first generation. Where calls that ended
        // sooner have opened it, that is over.
        if let Some(circuit) = self.circuits.make(&self.operation) {
            circuit.end_of_tenant(self.tenant.as_ref(), Ticket::FIRST, verdict, now);
        }
    }
}

impl Drop for First {
    #[cold]
    #[inline(never)]
    fn drop(&mut self) {
        if !self.ended {
            let now = clock::read();
            self.count(self.terms.left(self.circuits.settings(), now), now);
        }
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::First;
    use crate::error::ErrorKind;
    use crate::middleware::circuit_breaker::circuits::{PerOperation, Statuses};
    use crate::middleware::circuit_breaker::settings::Settings;
    use crate::middleware::circuit_breaker::status::CircuitState;
    use std::sync::Arc;

    #[test]
    fn loom_first_failures_at_once_count_in_one_circuit() {
        loom::model(|| {
            let settings = Settings { consecutive: Some(2), ..Settings::default() };
            let circuits = Arc::new(PerOperation::new(settings, 2));
            let [mut here, mut there] = [(); 2].map(|()| First::new(Arc::clone(&circuits), "a", None, None));
            let thread = loom::thread::spawn(move || there.end(Some(ErrorKind::Unavailable)));
            here.end(Some(ErrorKind::Unavailable));
            thread.join().unwrap();
            let [a, _rest] = &circuits.statuses()[..] else { panic!("{circuits:?}") };
            assert_eq!((a.state, a.opened, a.failures), (CircuitState::Open, 1, 2));
        });
    }
}
