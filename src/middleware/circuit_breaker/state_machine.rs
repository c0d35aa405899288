//! The state machine of a circuit. It has no lock, clock or log of its own.
//!
//! ```text
//!            too many failures                 the open time is over, and a call comes
//!   Closed ---------------------->  Open  ------------------------------------------->  HalfOpen
//!     ^                              ^  |                                                |   |
//!     |                              |  +--- calls are rejected                          |   |
//!     |                              +---------- a probe fails; the open time doubles ---+   |
//!     +------------------------------------------ enough probes have succeeded --------------+
//! ```
//!
//! Each transition begins a new generation. The outcome of a call counts only in the generation that admitted it: calls
//! from before the circuit opened say nothing about the service of now, and a probe's permit belongs to one half-open
//! period.

use std::time::{Duration, Instant};

use super::CircuitBreakerConfig;
use super::snapshot::CircuitState;
use super::window::{Counts, Window};
use crate::middleware::jitter::random_delay;

/// The generation that a circuit begins in, closed.
pub(super) const FIRST_GENERATION: u32 = 0;

/// What the end of a call says about the service. Calls that say nothing, such as those that were cancelled or whose
/// request was invalid, have no outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) failed: bool,
    pub(super) slow: bool,
}

impl Outcome {
    /// Whether it can open a circuit.
    pub(super) fn is_bad(self) -> bool {
        self.failed || self.slow
    }
}

#[derive(Debug, Default)]
pub(super) struct StateMachine {
    config: CircuitBreakerConfig,
    pub(super) state: CircuitState,
    /// Why it has entered this state.
    pub(super) reason: &'static str,
    /// The number of transitions so far.
    pub(super) generation: u32,
    /// Since the last success.
    pub(super) consecutive_failures: u32,
    pub(super) window: Window,
    /// Probes that have not ended, while half open.
    probes: u32,
    /// Probes that have succeeded, while half open.
    succeeded: u32,
    /// While open, when a probe is admitted. While half open, when one more is admitted although all permits are taken, as
    /// those that have them may never end. `None` while closed.
    probe_at: Option<Instant>,
    /// What the last open time was before its random part was subtracted.
    backoff: Duration,
    /// How long it is open, or was the last time.
    pub(super) open_time: Duration,
    /// When it last closed, until it opens again.
    closed_at: Option<Instant>,
    pub(super) opened: u64,
    /// Calls that were rejected, and times that a tenant's own circuit has opened: counted here to be under the same lock.
    pub(super) rejected: u64,
    pub(super) tenants_opened: u64,
}

impl StateMachine {
    pub(super) fn new(config: CircuitBreakerConfig) -> Self {
        Self { config, window: Window::new(config.window), ..Self::default() }
    }

    /// Whether the circuit is either closed without recent failures, or nobody has called since it became due for a probe,
    /// for as long as it had been open.
    pub(super) fn is_idle(&self, now: Instant) -> bool {
        let counts = self.window.total(now);
        let overdue = self.probe_at.map_or(Duration::ZERO, |probe_at| now.saturating_duration_since(probe_at));
        match self.state {
            CircuitState::Closed => counts.failures == 0 && counts.slow == 0 && !self.has_just_closed(now),
            CircuitState::Open => overdue > self.open_time,
            CircuitState::HalfOpen => !overdue.is_zero(),
        }
    }

    /// Whether opening now would continue the last series of openings.
    fn has_just_closed(&self, now: Instant) -> bool {
        self.closed_at.is_some_and(|closed_at| now.saturating_duration_since(closed_at) < self.open_time)
    }

    /// The time until a call is admitted; zero if one would be now.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        let has_permit = self.state == CircuitState::HalfOpen && self.probes < self.config.max_probes;
        let probe_at = self.probe_at.filter(|_| !has_permit);
        probe_at.map_or(Duration::ZERO, |probe_at| probe_at.saturating_duration_since(now))
    }

    /// Admits a call, which [`end`](Self::end) must follow, and returns its generation, or the time until one can be.
    pub(super) fn admit(&mut self, now: Instant) -> Result<u32, Duration> {
        let retry_after = self.retry_after(now);
        if !retry_after.is_zero() {
            return Err(retry_after);
        }
        if self.state == CircuitState::Open {
            (self.probes, self.succeeded) = (0, 0);
            self.enter(CircuitState::HalfOpen, "the open time is over");
        }
        if self.state == CircuitState::HalfOpen {
            self.probes += 1;
            self.probe_at = Some(now + self.open_time);
        }
        Ok(self.generation)
    }

    /// Counts the outcome of a call that was admitted in `generation`.
    pub(super) fn end(&mut self, generation: u32, outcome: Option<Outcome>, now: Instant) {
        match (self.state, outcome) {
            _ if generation != self.generation => {}
            (CircuitState::HalfOpen, _) => self.end_probe(outcome, now),
            (CircuitState::Closed, Some(outcome)) => self.count(outcome, now),
            // An open circuit admits no calls, so none is of its generation.
            (CircuitState::Closed, None) | (CircuitState::Open, _) => {}
        }
    }

    fn end_probe(&mut self, outcome: Option<Outcome>, now: Instant) {
        self.probes -= 1;
        match outcome {
            None => {}
            Some(Outcome { failed: true, .. }) => self.open("a probe failed", now),
            Some(Outcome { slow: true, .. }) => self.open("a probe was slow", now),
            Some(_) => {
                self.succeeded += 1;
                if self.succeeded >= self.config.required_successes {
                    self.close(now);
                }
            }
        }
    }

    fn count(&mut self, outcome: Outcome, now: Instant) {
        self.window.add(outcome, now);
        self.consecutive_failures = if outcome.failed { self.consecutive_failures.saturating_add(1) } else { 0 };
        if let Some(reason) = self.reason_to_open(outcome, now) {
            self.open(reason, now);
        }
    }

    fn reason_to_open(&self, Outcome { failed, slow }: Outcome, now: Instant) -> Option<&'static str> {
        let config = &self.config;
        let reaches = |part: fn(Counts) -> u64, share: f64| {
            let counts = self.window.total(now);
            counts.calls >= u64::from(config.min_calls) && part(counts) as f64 >= share * counts.calls as f64
        };
        if failed && config.consecutive_failures.is_some_and(|max| self.consecutive_failures >= max) {
            Some("too many consecutive failures")
        } else if failed && config.failure_rate.is_some_and(|rate| reaches(|counts| counts.failures, rate)) {
            Some("too many of the calls failed")
        } else if slow && reaches(|counts| counts.slow, config.slow_call_rate) {
            Some("too many of the calls were slow")
        } else {
            None
        }
    }

    pub(super) fn open(&mut self, reason: &'static str, now: Instant) {
        // A circuit that opens soon after it has closed had not recovered, so its open time continues to grow.
        let recovered = self.closed_at.is_some() && !self.has_just_closed(now);
        let doubled = if recovered { Duration::ZERO } else { self.backoff * 2 };
        self.backoff = doubled.clamp(self.config.initial_open_time, self.config.max_open_time);
        self.open_time = self.backoff - random_delay(self.backoff / 4);
        self.closed_at = None;
        self.opened += 1;
        self.probe_at = Some(now + self.open_time);
        self.enter(CircuitState::Open, reason);
    }

    fn close(&mut self, now: Instant) {
        (self.closed_at, self.probe_at) = (Some(now), None);
        self.consecutive_failures = 0;
        self.window = Window::new(self.config.window);
        self.enter(CircuitState::Closed, "the probes succeeded");
    }

    fn enter(&mut self, to: CircuitState, reason: &'static str) {
        (self.state, self.reason) = (to, reason);
        self.generation = self.generation.wrapping_add(1);
    }
}
