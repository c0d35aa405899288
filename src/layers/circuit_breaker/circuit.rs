use std::fmt;
use std::sync::atomic::AtomicU64 as Count;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use super::machine::{Machine, Ticket, Transition, Verdict};
use super::settings::Settings;
use super::status::{CircuitState, CircuitStatus};
use super::waiting::Waiters;
use crate::error::ErrorKind;
use crate::layers::clock;
use crate::layers::jitter::Jitter;
use crate::sync::atomic::{AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};

/// What a layer, its clones and their services share of one circuit.
pub struct Circuit {
    name: Box<str>,
    settings: Arc<Settings>,
    /// The machine's [`Word`], so that a closed circuit lets calls through without the lock. It is written under the lock.
    word: AtomicU64,
    machine: Mutex<Machine>,
    jitter: Jitter,
    refused: Count,
    waiters: Arc<Waiters>,
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
    pub(super) fn new(name: impl Into<Box<str>>, settings: Arc<Settings>) -> Self {
        let machine = Machine::new(&settings, clock::now());
        Self {
            name: name.into(),
            word: AtomicU64::new(Word::of(&machine).0),
            machine: Mutex::new(machine),
            settings,
            jitter: Jitter::new(),
            refused: Count::new(0),
            waiters: Arc::default(),
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
        self.change(|machine| machine.admit(&self.settings, now))
    }

    #[inline]
    pub(super) fn end(&self, ticket: Ticket, verdict: Verdict, now: Instant) {
        let success = verdict == Verdict::Success { slow: false };
        let counted = success && self.lock().count_success(ticket, now);
        if !counted {
            self.change_by(ticket, verdict, now);
        }
    }

    #[cold]
    #[inline(never)]
    fn change_by(&self, ticket: Ticket, verdict: Verdict, now: Instant) {
        self.change(|machine| ((), machine.end(&self.settings, &self.jitter, ticket, verdict, now)));
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
        self.refused.fetch_add(1, Ordering::Relaxed);
    }

    /// What an error of this kind says, of a call or of the readiness for one.
    #[inline]
    pub(super) fn verdict(&self, kind: Option<ErrorKind>, slow: bool) -> Verdict {
        match kind {
            None => Verdict::Success { slow },
            Some(kind) if self.settings.failures.contains(kind) => Verdict::Failure { slow },
            Some(_) => Verdict::Nothing,
        }
    }

    /// How it is, as of now.
    pub fn status(&self) -> CircuitStatus {
        let now = clock::now();
        let refused = self.refused.load(Ordering::Relaxed);
        let mut machine = self.lock();
        let counts = machine.counts(now);
        CircuitStatus {
            circuit: self.name.to_string(),
            state: machine.state(),
            consecutive_failures: machine.consecutive(),
            calls: counts.calls,
            failures: counts.failures,
            slow: counts.slow,
            opened: machine.opened(),
            refused,
            retry_in_ms: u64::try_from(machine.retry_after(&self.settings, now).as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Whether to forget it loses nothing: it is closed, and nothing has failed lately.
    pub(super) fn is_blank(&self, now: Instant) -> bool {
        let mut machine = self.lock();
        let counts = machine.counts(now);
        machine.state() == CircuitState::Closed
            && machine.consecutive() == 0
            && counts.failures == 0
            && counts.slow == 0
            && !machine.has_just_closed(now)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Machine> {
        // What is done under the lock is counting, which does not panic half-way.
        self.machine.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change<T>(&self, change: impl FnOnce(&mut Machine) -> (T, Option<Transition>)) -> T {
        let mut machine = self.lock();
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
        match to {
            CircuitState::Open => tracing::warn!(circuit, %from, %to, because, open_for, "circuit opened"),
            CircuitState::HalfOpen => tracing::info!(circuit, %from, %to, because, "circuit half open"),
            CircuitState::Closed => tracing::info!(circuit, %from, %to, because, "circuit closed"),
        }
        self.waiters.wake();
    }
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
    /// When the call has taken so long that it is slow, where that matters.
    slow_after: Option<Instant>,
    /// The caller's own deadline leaves too little time to blame the service.
    hasty: bool,
    /// Not so for as long as the place of a probe is only reserved.
    called: bool,
}

impl Pass {
    /// Of a call that is yet to be made.
    pub(super) fn reserved(circuit: Arc<Circuit>, ticket: Ticket) -> Self {
        Self { circuit, ticket: Some(ticket), slow_after: None, hasty: false, called: false }
    }

    /// Of a call that begins now.
    // Always, so that it is made where the call keeps it.
    #[inline(always)]
    pub(super) fn begun(circuit: Arc<Circuit>, ticket: Ticket, deadline: Option<Instant>) -> Self {
        let settings = circuit.settings();
        let slow_after = settings.slow.and_then(|slow| clock::now().checked_add(slow.over));
        let hasty = deadline.is_some_and(|deadline| {
            clock::now().checked_add(settings.patience).is_none_or(|patient| deadline < patient)
        });
        Self { circuit, ticket: Some(ticket), slow_after, hasty, called: true }
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
    #[inline]
    pub(super) fn end(&mut self, kind: Option<ErrorKind>) {
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::read();
        let slow = self.is_slow(now);
        let verdict = if self.hasty && kind == Some(ErrorKind::DeadlineExceeded) {
            Verdict::Nothing
        } else {
            self.circuit.verdict(kind, slow)
        };
        if verdict != Verdict::Nothing || self.circuit.word().closed().is_none() {
            self.circuit.end(ticket, verdict, now);
        }
    }

    #[inline]
    fn is_slow(&self, now: Instant) -> bool {
        self.slow_after.is_some_and(|slow_after| now > slow_after)
    }

    #[cold]
    fn leave(&mut self) {
        if self.called && std::thread::panicking() {
            return self.end(Some(ErrorKind::Internal));
        }
        let Some(ticket) = self.ticket.take() else { return };
        let now = clock::read();
        // That it was slow is known, whatever it would have come to.
        let verdict = if self.is_slow(now) { Verdict::Success { slow: true } } else { Verdict::Nothing };
        if verdict != Verdict::Nothing || self.circuit.word().closed().is_none() {
            self.circuit.end(ticket, verdict, now);
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
    use crate::layers::circuit_breaker::machine::{Ticket, Verdict};
    use crate::layers::circuit_breaker::status::CircuitState;
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    const FAILURE: Verdict = Verdict::Failure { slow: false };
    const SUCCESS: Verdict = Verdict::Success { slow: false };

    /// A circuit that opens at the first failure, and a time at which it is due for a probe if it opened now.
    fn circuit(probes: u32, successes: u32) -> (Arc<Circuit>, Instant, Instant) {
        let settings = Settings { consecutive: Some(1), probes, successes, ..Settings::default() };
        let now = Instant::now();
        (Arc::new(Circuit::new("all", Arc::new(settings))), now, now + Duration::from_secs(2))
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
            let circuit = Arc::new(Circuit::new("all", Arc::new(settings)));
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
