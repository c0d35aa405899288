//! A call from its admission to its outcome.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::Circuit;
use super::circuits::PerOperation;
use super::settings::Settings;
use super::state_machine::{Generation, Outcome};
use crate::error::ErrorKind;
use crate::middleware::clock;

/// A call that was admitted. Dropping it before its [`end`](Self::end) counts as a cancelled call.
#[derive(Debug)]
pub struct CallGuard {
    counted_in: CountedIn,
    terms: CallTerms,
    /// Set if tenants have circuits of their own.
    tenant: Option<Arc<str>>,
}

/// Where the outcome of a call counts.
#[derive(Debug)]
enum CountedIn {
    Circuit {
        circuit: Arc<Circuit>,
        generation: Generation,
        /// Not set while `poll_ready` has reserved the permit of a probe.
        started: bool,
    },
    /// The operation has no circuit: an outcome that is a success or a failure creates it. A name that the service does not
    /// know gets neither, so made-up names take no memory.
    NewOperation(Box<(Arc<PerOperation>, Box<str>)>),
    /// It has been counted.
    Ended,
}

impl CallGuard {
    pub(super) fn new(circuit: Arc<Circuit>, generation: Generation, tenant: Option<Arc<str>>) -> Self {
        let counted_in = CountedIn::Circuit { circuit, generation, started: false };
        Self { counted_in, terms: CallTerms::NONE, tenant }
    }

    pub(super) fn new_operation(circuits: Arc<PerOperation>, operation: &str, tenant: Option<Arc<str>>) -> Self {
        let counted_in = CountedIn::NewOperation(Box::new((circuits, operation.into())));
        Self { counted_in, terms: CallTerms::NONE, tenant }
    }

    /// The generation of the circuit that admitted it, if a circuit did.
    pub(super) fn generation(&self) -> Option<Generation> {
        match self.counted_in {
            CountedIn::Circuit { generation, .. } => Some(generation),
            CountedIn::NewOperation(_) | CountedIn::Ended => None,
        }
    }

    /// Whether the circuit is still in the generation that admitted it.
    pub(super) fn is_current(&self) -> bool {
        matches!(
            &self.counted_in,
            CountedIn::Circuit { circuit, generation, .. } if circuit.generation() == *generation
        )
    }

    /// Begins the call of the inner service, with the deadline if its caller chose it.
    pub(super) fn start(&mut self, caller_deadline: Option<Instant>) {
        if let CountedIn::Circuit { started, .. } = &mut self.counted_in {
            *started = true;
        }
        if let Some(settings) = self.settings() {
            self.terms = CallTerms::new(settings, caller_deadline);
        }
    }

    /// Ends a call that succeeded, or failed with the given kind of error.
    pub(super) fn end(&mut self, failure: Option<ErrorKind>) {
        if let Some(settings) = self.settings() {
            let now = clock::read();
            let outcome = self.terms.outcome(settings, failure, now);
            self.count(outcome, now);
        }
    }

    fn settings(&self) -> Option<&Settings> {
        match &self.counted_in {
            CountedIn::Circuit { circuit, .. } => Some(&circuit.settings),
            CountedIn::NewOperation(new) => Some(&new.0.settings),
            CountedIn::Ended => None,
        }
    }

    fn count(&mut self, outcome: Outcome, now: Instant) {
        match std::mem::replace(&mut self.counted_in, CountedIn::Ended) {
            CountedIn::Circuit { circuit, generation, .. } => {
                circuit.end(generation, self.tenant.as_ref(), outcome, now);
            }
            CountedIn::NewOperation(new) if outcome != Outcome::Ignored => {
                if let Some(circuit) = new.0.get_or_create(&new.1) {
                    circuit.end(circuit.admit_first(), self.tenant.as_ref(), outcome, now);
                }
            }
            CountedIn::NewOperation(_) | CountedIn::Ended => {}
        }
    }
}

impl Drop for CallGuard {
    fn drop(&mut self) {
        let Some(settings) = self.settings() else { return };
        let now = clock::read();
        let outcome = match self.counted_in {
            CountedIn::Circuit { started: false, .. } => Outcome::Ignored,
            _ => self.terms.outcome_if_dropped(settings, now),
        };
        self.count(outcome, now);
    }
}

/// What decides the outcome of a call, as known when it begins. Times are in nanoseconds since the
/// [epoch](Settings::epoch), as an `Instant` would take twice the memory in each future.
#[derive(Clone, Copy, Debug)]
struct CallTerms {
    /// When the call becomes slow.
    slow_after: u64,
    /// From when on an exceeded deadline is ignored, as the caller chose it.
    deadline_ignored_from: u64,
}

const NEVER: u64 = u64::MAX;

/// An expired deadline of the caller's that allowed less than this is ignored, whoever reports it.
const SHORT_TIMEOUT: Duration = Duration::from_secs(1);

impl CallTerms {
    const NONE: Self = Self { slow_after: NEVER, deadline_ignored_from: NEVER };

    fn new(settings: &Settings, caller_deadline: Option<Instant>) -> Self {
        let mut terms = Self::NONE;
        let now = clock::now();
        if let Some(slow_calls) = settings.slow_calls {
            terms.slow_after = settings.nanos(now).saturating_add(nanos(slow_calls.over));
        }
        if let Some(deadline) = caller_deadline {
            let min_timeout = settings.min_caller_timeout.unwrap_or(SHORT_TIMEOUT);
            if now.checked_add(min_timeout).is_none_or(|shortest| deadline < shortest) {
                terms.deadline_ignored_from = settings.nanos(now);
            } else if settings.min_caller_timeout.is_none() {
                // Before the deadline it is a timeout of the server's that has expired.
                terms.deadline_ignored_from = settings.nanos(deadline);
            }
        }
        terms
    }

    fn outcome(self, settings: &Settings, failure: Option<ErrorKind>, now: Instant) -> Outcome {
        let slow = self.is_slow(settings, now);
        match failure {
            None => Outcome::Success { slow },
            Some(ErrorKind::DeadlineExceeded) if settings.nanos(now) >= self.deadline_ignored_from => Outcome::Ignored,
            Some(kind) if settings.failures.contains(kind) => Outcome::Failure { slow },
            Some(_) => Outcome::Ignored,
        }
    }

    /// A panic is an internal error, and a call that was slow when it was cancelled is slow however it would have ended.
    fn outcome_if_dropped(self, settings: &Settings, now: Instant) -> Outcome {
        if std::thread::panicking() {
            self.outcome(settings, Some(ErrorKind::Internal), now)
        } else if self.is_slow(settings, now) {
            Outcome::Success { slow: true }
        } else {
            Outcome::Ignored
        }
    }

    fn is_slow(self, settings: &Settings, now: Instant) -> bool {
        settings.nanos(now) > self.slow_after
    }
}

pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(NEVER)
}
