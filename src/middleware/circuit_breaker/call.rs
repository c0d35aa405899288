//! A call from its admission to its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::circuit::Circuit;
use super::circuits::Circuits;
use super::settings::Settings;
use super::state_machine::{Generation, Outcome};
use crate::error::ErrorKind;
use crate::middleware::clock;
use crate::sync::Ordering;

/// A call that was admitted. Dropping it before its [`end`](Self::end) counts as a cancelled call.
#[derive(Debug)]
pub(super) struct CallGuard {
    /// `None` once the outcome has been counted.
    counted_in: Option<CountedIn>,
    /// Set if tenants have circuits of their own.
    tenant: Option<Arc<str>>,
    /// `None` until the call begins: `poll_ready` may have reserved the permit of a probe for it.
    terms: Option<CallTerms>,
}

/// Where the outcome of a call counts.
#[derive(Debug)]
enum CountedIn {
    Circuit {
        circuit: Arc<Circuit>,
        generation: Generation,
    },
    /// There is no circuit for the key: an outcome that is a success or a failure creates it. A name that the service does
    /// not know gets neither, so made-up names take no memory.
    NewKey(Box<(Arc<Circuits>, Box<str>)>),
}

impl CallGuard {
    pub(super) fn new(circuit: Arc<Circuit>, generation: Generation, tenant: Option<Arc<str>>) -> Self {
        circuit.calls_in_flight.fetch_add(1, Ordering::Relaxed);
        Self { counted_in: Some(CountedIn::Circuit { circuit, generation }), tenant, terms: None }
    }

    pub(super) fn new_key(circuits: Arc<Circuits>, key: &str, tenant: Option<Arc<str>>) -> Self {
        Self { counted_in: Some(CountedIn::NewKey(Box::new((circuits, key.into())))), tenant, terms: None }
    }

    /// Whether the circuit is still in the generation that admitted the call.
    pub(super) fn is_current(&self) -> bool {
        matches!(
            &self.counted_in,
            Some(CountedIn::Circuit { circuit, generation }) if circuit.is_in_generation(*generation)
        )
    }

    /// Begins the call of the inner service, with the deadline if its caller chose it.
    pub(super) fn start(&mut self, caller_deadline: Option<Instant>) {
        self.terms = self.counted_in.as_ref().map(|counted_in| CallTerms::new(counted_in.settings(), caller_deadline));
    }

    /// Ends a call that succeeded, or failed with the given kind of error.
    pub(super) fn end(mut self, failure: Option<ErrorKind>) {
        self.count(|terms, settings, now| terms.outcome(settings, failure, now));
    }

    fn count(&mut self, outcome: impl FnOnce(CallTerms, &Settings, Instant) -> Option<Outcome>) {
        let Some(counted_in) = self.counted_in.take() else { return };
        let now = clock::read();
        let outcome = self.terms.and_then(|terms| outcome(terms, counted_in.settings(), now));
        match counted_in {
            CountedIn::Circuit { circuit, generation } => {
                circuit.end(generation, self.tenant.as_ref(), outcome, now);
                circuit.calls_in_flight.fetch_sub(1, Ordering::Relaxed);
            }
            CountedIn::NewKey(new) if outcome.is_some() => {
                if let Some(circuit) = new.0.get_or_create(&new.1, now) {
                    circuit.end(Generation::FIRST, self.tenant.as_ref(), outcome, now);
                }
            }
            CountedIn::NewKey(_) => {}
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        self.count(CallTerms::outcome_if_dropped);
    }
}

impl CountedIn {
    fn settings(&self) -> &Settings {
        match self {
            Self::Circuit { circuit, .. } => &circuit.settings,
            Self::NewKey(new) => &new.0.settings,
        }
    }
}

/// What decides the outcome of a call, as known when it begins.
#[derive(Clone, Copy, Debug)]
struct CallTerms {
    /// When the call becomes slow.
    slow_after: Option<Instant>,
    /// From when on an exceeded deadline is ignored, as the caller chose it.
    deadline_ignored_from: Option<Instant>,
}

/// An expired deadline of the caller's that allowed less than this is ignored, whoever reports it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

impl CallTerms {
    fn new(settings: &Settings, caller_deadline: Option<Instant>) -> Self {
        let now = clock::now();
        let slow_after = settings.slow_calls.and_then(|slow_calls| now.checked_add(slow_calls.over));
        let deadline_ignored_from = caller_deadline.and_then(|deadline| {
            let min_timeout = settings.min_caller_timeout.unwrap_or(SHORT_TIMEOUT);
            if now.checked_add(min_timeout).is_none_or(|shortest| deadline < shortest) {
                return Some(now);
            }
            // Before the deadline it is a timeout of the server's that has expired.
            settings.min_caller_timeout.is_none().then_some(deadline)
        });
        Self { slow_after, deadline_ignored_from }
    }

    fn outcome(self, settings: &Settings, failure: Option<ErrorKind>, now: Instant) -> Option<Outcome> {
        let slow = self.is_slow(now);
        let Some(kind) = failure else { return Some(Outcome { failed: false, slow }) };
        let is_ignored =
            kind == ErrorKind::DeadlineExceeded && self.deadline_ignored_from.is_some_and(|from| now >= from);
        (settings.failures.contains(kind) && !is_ignored).then_some(Outcome { failed: true, slow })
    }

    /// A panic is an internal error, and a call that was slow when it was cancelled is slow however it would have ended.
    fn outcome_if_dropped(self, settings: &Settings, now: Instant) -> Option<Outcome> {
        if std::thread::panicking() {
            return self.outcome(settings, Some(ErrorKind::Internal), now);
        }
        self.is_slow(now).then_some(Outcome { failed: false, slow: true })
    }

    fn is_slow(self, now: Instant) -> bool {
        self.slow_after.is_some_and(|slow_after| now > slow_after)
    }
}
