use std::fmt;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::machine::{Machine, Ticket, Transition, Verdict};
use super::settings::Settings;
use super::status::{CircuitState, CircuitStatus};
use super::tenants::{TenantLimits, Tenants};
use super::terms::Terms;
use super::waiting::Waiters;
use crate::error::ErrorKind;
use crate::middleware::clock;
use crate::middleware::jitter::Jitter;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What a layer, its clones and their services share of one circuit.
pub struct Circuit {
    name: Box<str>,
    settings: Settings,
    /// The machine's [`Word`], so that a closed circuit lets calls through without the lock. It is written under the lock.
    word: AtomicU64,
    machine: Mutex<Machine>,
    jitter: Jitter,
    refused: Count,
    waiters: Arc<Waiters>,
    /// The circuits of tenants, where this is one of an operation and they have their own.
    tenants: Option<Tenants>,
    /// The circuit of the operation, where this is a tenant's.
    operation: Option<Weak<Circuit>>,
}

/// The ticket of the generation that a circuit is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Word(u64);

impl Word {
    fn of(machine: &Machine) -> Self {
        Self(machine.ticket().to_bits())
    }

    /// The ticket of a call, where the circuit is closed.
    #[inline]
    pub(super) fn closed(self) -> Option<Ticket> {
        Ticket::closed(self.0)
    }

    fn is_of(self, ticket: Ticket) -> bool {
        self.0 == ticket.to_bits()
    }
}

impl Circuit {
    pub(super) fn new(name: impl Into<Box<str>>, settings: Settings) -> Self {
        let machine = Machine::new(&settings, clock::now());
        Self {
            name: name.into(),
            word: AtomicU64::new(Word::of(&machine).0),
            machine: Mutex::new(machine),
            settings,
            jitter: Jitter::new(),
            refused: Count::new(0),
            waiters: Arc::default(),
            tenants: None,
            operation: None,
        }
    }

    /// With circuits of tenants beside it, where they are to have their own.
    pub(super) fn with_tenants(self, limits: Option<&TenantLimits>) -> Self {
        Self { tenants: limits.map(Tenants::new), ..self }
    }

    /// Whether any tenant has a circuit of its own here.
    #[inline]
    pub(super) fn has_tenants(&self) -> bool {
        self.tenants.as_ref().is_some_and(Tenants::has_some)
    }

    /// The circuit of a tenant, where it has one and this one, of the operation, is closed.
    #[cold]
    #[inline(never)]
    pub(super) fn of_tenant(&self, tenant: &Arc<str>) -> Option<Arc<Self>> {
        self.word().closed()?;
        self.tenants.as_ref()?.get(tenant, clock::now())
    }

    /// Counts how a call ended that this circuit, of an operation, let through. What a tenant's call says against the
    /// operation counts in a circuit of the tenant's own, unless it was a probe.
    pub(super) fn end_of_tenant(
        self: &Arc<Self>,
        tenant: Option<&Arc<str>>,
        ticket: Ticket,
        verdict: Verdict,
        now: Instant,
    ) {
        let bad = matches!(verdict, Verdict::Failure { .. } | Verdict::Success { slow: true });
        match (tenant, &self.tenants) {
            (Some(tenant), Some(tenants)) if bad && self.word().closed() == Some(ticket) => {
                let make = || {
                    let own = Self::new(&*self.name, self.settings);
                    Arc::new(Self { operation: Some(Arc::downgrade(self)), ..own })
                };
                // The call began before the circuit did, so what it brings is of its first generation.
                tenants.get_or_make(tenant, make, now).end(Ticket::FIRST, verdict, now);
            }
            _ => self.end(ticket, verdict, now),
        }
    }

    /// A tenant's circuit of this operation has opened: so does the operation's own where those of enough tenants are open.
    #[cold]
    fn tenant_opened(&self) {
        let now = clock::now();
        if self.tenants.as_ref().is_some_and(|tenants| tenants.agree(now)) {
            let because = "the circuits of several tenants are open";
            self.change(self.lock(), |machine| ((), machine.open_for_all(&self.settings, &self.jitter, because, now)));
        }
    }

    #[inline]
    pub(super) fn word(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) fn waiters(&self) -> &Arc<Waiters> {
        &self.waiters
    }

    /// Lets a call through, or says how long until one can be. Where it is closed its [`word`](Self::word) says so sooner.
    pub(super) fn admit(&self, now: Instant) -> Result<Ticket, Duration> {
        self.change(self.lock(), |machine| machine.admit(&self.settings, now))
    }

    /// Counts how a call ended.
    pub(super) fn end(&self, ticket: Ticket, verdict: Verdict, now: Instant) {
        self.end_locked(self.lock(), ticket, verdict, now);
    }

    /// Counts a call that succeeded in time, which in a closed circuit changes a count and nothing else, mostly.
    #[inline(always)]
    fn end_well(&self, ticket: Ticket, now: Instant) {
        let mut machine = self.lock();
        if !machine.count_success(ticket, now) {
            self.end_locked(machine, ticket, Verdict::Success { slow: false }, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_locked(&self, machine: MutexGuard<'_, Machine>, ticket: Ticket, verdict: Verdict, now: Instant) {
        let end = |machine: &mut Machine| ((), machine.end(&self.settings, &self.jitter, ticket, verdict, now));
        self.change(machine, end);
        // A probe has given its place back.
        if self.settings.hold && self.word().closed().is_none() {
            self.waiters.wake();
        }
    }

    /// The time until the next probe.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        self.lock().retry_after(&self.settings, now)
    }

    /// Counts a call that was refused.
    #[cold]
    pub(super) fn count_refusal(&self) {
        let operation = self.operation.as_ref().and_then(Weak::upgrade);
        operation.as_deref().unwrap_or(self).refused.fetch_add(1, Ordering::Relaxed);
    }

    /// How it is, as of now.
    pub fn status(&self) -> CircuitStatus {
        let now = clock::now();
        let refused = self.refused.load(Ordering::Relaxed);
        let tenants_open = self.tenants.as_ref().map_or(0, |tenants| tenants.open(now));
        let tenants_opened = self.tenants.as_ref().map_or(0, Tenants::opened);
        let mut machine = self.lock();
        let counts = machine.counts(now);
        CircuitStatus {
            circuit: self.name.to_string(),
            state: machine.state(),
            consecutive_failures: machine.consecutive(),
            calls: saturate(counts.calls),
            failures: saturate(counts.failures),
            slow: saturate(counts.slow),
            opened: machine.opened(),
            refused,
            tenants_open,
            tenants_opened,
            retry_in_ms: u64::try_from(machine.retry_after(&self.settings, now).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whether it is not closed, and somebody still asks for it.
    pub(super) fn is_kept_open(&self, now: Instant) -> bool {
        let mut machine = self.lock();
        machine.state() != CircuitState::Closed && !machine.is_blank(now)
    }

    /// Whether to forget it loses nothing that matters now.
    pub(super) fn is_blank(&self, now: Instant) -> bool {
        !self.has_tenants() && self.lock().is_blank(now)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Machine> {
        self.machine.lock()
    }

    fn change<T>(
        &self,
        mut machine: MutexGuard<'_, Machine>,
        change: impl FnOnce(&mut Machine) -> (T, Option<Transition>),
    ) -> T {
        let (value, transition) = change(&mut machine);
        if transition.is_some() {
            self.word.store(Word::of(&machine).0, Ordering::Release);
        }
        drop(machine);
        if let Some(transition) = transition {
            self.tell(transition);
        }
        value
    }

    /// Tells the log, and those that wait for an inner service that is now another matter.
    #[cold]
    #[inline(never)]
    fn tell(&self, Transition { from, to, because, open_for }: Transition) {
        let (circuit, open_for) = (&*self.name, open_for.map(tracing::field::debug));
        let of_one_tenant = self.operation.is_some();
        match to {
            CircuitState::Open if of_one_tenant => {
                tracing::warn!(circuit, %from, %to, because, open_for, "circuit opened for one tenant");
            }
            CircuitState::Open => tracing::warn!(circuit, %from, %to, because, open_for, "circuit opened"),
            CircuitState::HalfOpen => tracing::info!(circuit, %from, %to, because, "circuit half open"),
            CircuitState::Closed => tracing::info!(circuit, %from, %to, because, "circuit closed"),
        }
        if to == CircuitState::Open
            && let Some(operation) = self.operation.as_ref().and_then(Weak::upgrade)
        {
            operation.tenants.as_ref().inspect(|tenants| tenants.count_opened());
            operation.tenant_opened();
        }
        self.waiters.wake();
    }
}

fn saturate(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

impl fmt::Debug for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Circuit").field("name", &self.name).field("word", &self.word()).finish_non_exhaustive()
    }
}

/// A call that a circuit let through. Dropped before its end, it gives back the place of a probe.
#[derive(Debug)]
pub(super) struct Pass {
    circuit: Arc<Circuit>,
    /// `None` once the call has ended.
    ticket: Option<Ticket>,
    terms: Terms,
    /// Whose call it is, where tenants have circuits of their own.
    tenant: Option<Arc<str>>,
    /// Not so for as long as the place of a probe is only reserved.
    called: bool,
}

impl Pass {
    /// Of a call that is yet to be made.
    pub(super) fn reserved(circuit: Arc<Circuit>, ticket: Ticket) -> Self {
        Self { circuit, ticket: Some(ticket), terms: Terms::NONE, tenant: None, called: false }
    }

    /// Of a call that begins now.
    // Always, so that it is made where the call keeps it.
    #[inline(always)]
    pub(super) fn begun(
        circuit: Arc<Circuit>,
        ticket: Ticket,
        callers_deadline: Option<Instant>,
        tenant: Option<Arc<str>>,
    ) -> Self {
        let terms = Terms::of(circuit.settings(), callers_deadline);
        Self { circuit, ticket: Some(ticket), terms, tenant, called: true }
    }

    /// The place alone, for a call that is made now, where the circuit is still in the generation that gave it.
    pub(super) fn into_current(mut self) -> Option<Ticket> {
        if self.is_current() { self.ticket.take() } else { None }
    }

    /// Whether the circuit is still in the generation that let it through.
    pub(super) fn is_of(&self, word: Word) -> bool {
        self.ticket.is_some_and(|ticket| word.is_of(ticket))
    }

    fn is_current(&self) -> bool {
        self.is_of(self.circuit.word())
    }

    /// `kind` is of the failure, if it is one.
    // Always: what most calls come to is counted in a few instructions, and a frame of its own takes twice as many.
    #[inline(always)]
    pub(super) fn end(&mut self, kind: Option<ErrorKind>) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::read();
        if kind.is_none() && !self.terms.is_slow(self.circuit.settings(), now) {
            self.circuit.end_well(ticket, now);
        } else {
            self.end_otherwise(ticket, kind, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn end_otherwise(&self, ticket: Ticket, kind: Option<ErrorKind>, now: Instant) {
        self.count(ticket, self.terms.verdict(self.circuit.settings(), kind, now), now);
    }

    #[cold]
    #[inline(never)]
    fn leave(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::read();
        let verdict = if self.called { self.terms.left(self.circuit.settings(), now) } else { Verdict::Nothing };
        self.count(ticket, verdict, now);
    }

    /// A call that says nothing still gives back the place of a probe.
    fn count(&self, ticket: Ticket, verdict: Verdict, now: Instant) {
        if verdict != Verdict::Nothing || self.circuit.word().closed().is_none() {
            self.circuit.end_of_tenant(self.tenant.as_ref(), ticket, verdict, now);
        }
    }
}

impl Drop for Pass {
    #[inline]
    fn drop(&mut self) {
        if self.ticket.is_some() {
            self.leave();
        }
    }
}

#[cfg(all(test, tower_kernels_loom))]
mod loom_tests {
    use super::{Circuit, Pass, Settings};
    use crate::middleware::circuit_breaker::machine::{Ticket, Verdict};
    use crate::middleware::circuit_breaker::status::CircuitState;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const FAILURE: Verdict = Verdict::Failure { slow: false };
    const SUCCESS: Verdict = Verdict::Success { slow: false };

    /// A circuit that opens at the first failure, and a time at which it is due for a probe if it opened now.
    fn circuit(probes: u32, successes: u32) -> (Arc<Circuit>, Instant, Instant) {
        let settings = Settings { consecutive: Some(1), probes, successes, ..Settings::default() };
        let now = Instant::now();
        (Arc::new(Circuit::new("all", settings)), now, now + Duration::from_secs(2))
    }

    fn open(circuit: &Circuit, now: Instant) -> Ticket {
        let ticket = circuit.admit(now).unwrap();
        circuit.end(ticket, FAILURE, now);
        ticket
    }

    #[test]
    fn loom_of_two_callers_one_is_the_probe() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || other.admit(due).is_ok());
            let here = circuit.admit(due).is_ok();
            assert!(here != thread.join().unwrap());
            assert_eq!(circuit.lock().state(), CircuitState::HalfOpen);
        });
    }

    #[test]
    fn loom_a_probe_that_is_dropped_gives_its_place_back() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                if let Ok(ticket) = other.admit(due) {
                    drop(Pass::reserved(Arc::clone(&other), ticket));
                }
            });
            if let Ok(ticket) = circuit.admit(due) {
                drop(Pass::reserved(Arc::clone(&circuit), ticket));
            }
            thread.join().unwrap();
            assert_eq!(circuit.lock().state(), CircuitState::HalfOpen);
            assert!(circuit.admit(due).is_ok(), "the place is lost");
            assert!(circuit.admit(due).is_err(), "there is a place too many");
        });
    }

    #[test]
    fn loom_the_word_is_the_machines_whatever_two_probes_bring() {
        loom::model(|| {
            let (circuit, now, due) = circuit(2, 1);
            open(&circuit, now);
            let [first, second] = [circuit.admit(due).unwrap(), circuit.admit(due).unwrap()];
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || other.end(first, FAILURE, due));
            circuit.end(second, SUCCESS, due);
            thread.join().unwrap();
            // Whoever came first decided; the other was of a generation that is over.
            let state = circuit.lock().state();
            assert!(matches!(state, CircuitState::Open | CircuitState::Closed), "{state:?}");
            assert_eq!(circuit.word().closed().is_some(), state == CircuitState::Closed);
        });
    }

    #[test]
    fn loom_a_late_failure_of_before_does_not_open_it_again() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            let late = circuit.admit(now).unwrap();
            open(&circuit, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || other.end(late, FAILURE, due));
            let probe = circuit.admit(due).unwrap();
            circuit.end(probe, SUCCESS, due);
            thread.join().unwrap();
            assert!(circuit.word().closed().is_some());
            assert_eq!(circuit.lock().opened(), 1);
        });
    }

    #[test]
    fn loom_successes_and_failures_at_once_are_each_counted_once() {
        loom::model(|| {
            let settings = Settings { consecutive: None, failure_rate: None, ..Settings::default() };
            let now = Instant::now();
            let circuit = Arc::new(Circuit::new("all", settings));
            let ticket = circuit.word().closed().unwrap();
            // The window's first step begins with this one, so that what follows finds it there.
            circuit.end(ticket, SUCCESS, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || {
                other.end(ticket, SUCCESS, now);
                other.end(ticket, SUCCESS, now + Duration::from_secs(2));
            });
            circuit.end(ticket, FAILURE, now);
            circuit.end(ticket, SUCCESS, now);
            thread.join().unwrap();
            let counts = circuit.lock().counts(now);
            assert_eq!((counts.calls, counts.failures), (5, 1));
        });
    }

    #[test]
    fn loom_a_late_success_of_before_counts_in_no_other_generation() {
        loom::model(|| {
            let (circuit, now, due) = circuit(1, 1);
            let late = circuit.word().closed().unwrap();
            circuit.end(late, SUCCESS, now);
            let other = Arc::clone(&circuit);
            let thread = loom::thread::spawn(move || other.end(late, SUCCESS, now));
            circuit.end(late, FAILURE, now);
            let probe = circuit.admit(due).unwrap();
            circuit.end(probe, SUCCESS, due);
            let ticket = circuit.word().closed().unwrap();
            circuit.end(ticket, SUCCESS, due);
            thread.join().unwrap();
            assert_eq!(circuit.lock().counts(due).calls, 1);
        });
    }
}
