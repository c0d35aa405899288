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

use super::settings::Settings;
use super::snapshot::CircuitState;
use super::window::Window;
use crate::middleware::jitter::Jitter;

/// The number of transitions before a call was admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Generation(u64);

impl Generation {
    /// The generation that a circuit begins in, closed.
    pub(super) const FIRST: Self = Self(0);
}

/// What the end of a call says about the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success {
        slow: bool,
    },
    Failure {
        slow: bool,
    },
    /// Neither success nor failure, such as an invalid request or a cancelled call.
    Ignored,
}

impl Outcome {
    /// Whether it can open a circuit.
    pub(super) fn is_bad(self) -> bool {
        matches!(self, Self::Failure { .. } | Self::Success { slow: true })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) reason: &'static str,
    /// Set if it opened.
    pub(super) open_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        /// Probes that have not ended.
        probes: u32,
        succeeded: u32,
        /// When one more probe is admitted although all permits are taken, as those that have them may never end.
        extra_probe_at: Instant,
    },
}

#[derive(Debug)]
pub(super) struct StateMachine {
    settings: Settings,
    jitter: Jitter,
    state: State,
    pub(super) generation: Generation,
    /// Since the last success.
    pub(super) consecutive_failures: u32,
    pub(super) window: Window,
    /// What the last open time was before its random part was subtracted.
    backoff: Duration,
    /// How long it was open the last time.
    open_time: Duration,
    /// When it last closed, until it opens again.
    closed_at: Option<Instant>,
    pub(super) opened: u64,
    /// Admitted calls of any generation that have not ended.
    calls_in_flight: usize,
    /// The last one, until it is taken to be logged.
    pub(super) transition: Option<Transition>,
}

impl StateMachine {
    pub(super) fn new(settings: Settings, now: Instant) -> Self {
        Self {
            window: Window::new(settings.window, now),
            settings,
            jitter: Jitter::new(),
            state: State::Closed,
            generation: Generation::FIRST,
            consecutive_failures: 0,
            backoff: Duration::ZERO,
            open_time: Duration::ZERO,
            closed_at: None,
            opened: 0,
            calls_in_flight: 0,
            transition: None,
        }
    }

    pub(super) fn state(&self) -> CircuitState {
        match self.state {
            State::Closed => CircuitState::Closed,
            State::Open { .. } => CircuitState::Open,
            State::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed)
    }

    /// Whether removing the circuit loses nothing that matters: no call is in flight, and it is either closed without
    /// recent failures, or nobody has called since it became due for a probe, for as long as it had been open.
    pub(super) fn is_idle(&mut self, now: Instant) -> bool {
        if self.calls_in_flight > 0 {
            return false;
        }
        match self.state {
            State::Closed => {
                let counts = self.window.total(now);
                counts.failures == 0 && counts.slow == 0 && !self.has_just_closed(now)
            }
            State::Open { until } => now.saturating_duration_since(until) > self.open_time,
            State::HalfOpen { extra_probe_at, .. } => now > extra_probe_at,
        }
    }

    /// Whether opening now would continue the last series of openings.
    fn has_just_closed(&self, now: Instant) -> bool {
        self.closed_at.is_some_and(|closed_at| now.saturating_duration_since(closed_at) < self.open_time)
    }

    /// The time until a call is admitted; zero if one would be now.
    pub(super) fn retry_after(&self, now: Instant) -> Duration {
        match self.state {
            State::Closed => Duration::ZERO,
            State::Open { until } => until.saturating_duration_since(now),
            State::HalfOpen { probes, .. } if probes < self.settings.max_probes => Duration::ZERO,
            State::HalfOpen { extra_probe_at, .. } => extra_probe_at.saturating_duration_since(now),
        }
    }

    /// Admits a call, which [`end`](Self::end) must follow, or returns the time until one can be.
    pub(super) fn admit(&mut self, now: Instant) -> Result<Generation, Duration> {
        let retry_after = self.retry_after(now);
        if !retry_after.is_zero() {
            return Err(retry_after);
        }
        if let State::Open { .. } = self.state {
            let half_open = State::HalfOpen { probes: 0, succeeded: 0, extra_probe_at: now };
            self.enter(half_open, "the open time is over", None);
        }
        if let State::HalfOpen { probes, extra_probe_at, .. } = &mut self.state {
            *probes += 1;
            *extra_probe_at = now + self.open_time;
        }
        self.calls_in_flight += 1;
        Ok(self.generation)
    }

    /// Counts a call as in flight that began before there was this circuit.
    pub(super) fn admit_first(&mut self) -> Generation {
        self.calls_in_flight += 1;
        Generation::FIRST
    }

    /// Counts the outcome of a call that was admitted in `generation`.
    pub(super) fn end(&mut self, generation: Generation, outcome: Outcome, now: Instant) {
        self.calls_in_flight -= 1;
        if generation != self.generation {
            return;
        }
        match &mut self.state {
            State::Closed => self.end_closed(outcome, now),
            // It admits no calls, so none is of its generation.
            State::Open { .. } => {}
            State::HalfOpen { probes, succeeded, .. } => {
                *probes -= 1;
                match outcome {
                    Outcome::Ignored => {}
                    Outcome::Success { slow: false } => {
                        *succeeded += 1;
                        if *succeeded >= self.settings.required_successes {
                            self.close(now);
                        }
                    }
                    Outcome::Success { slow: true } => self.open("a probe was slow", now),
                    Outcome::Failure { .. } => self.open("a probe failed", now),
                }
            }
        }
    }

    fn end_closed(&mut self, outcome: Outcome, now: Instant) {
        let (failed, slow) = match outcome {
            Outcome::Success { slow } => (false, slow),
            Outcome::Failure { slow } => (true, slow),
            Outcome::Ignored => return,
        };
        self.window.add(failed, slow, now);
        self.consecutive_failures = if failed { self.consecutive_failures.saturating_add(1) } else { 0 };
        if let Some(reason) = self.reason_to_open(failed, slow, now) {
            self.open(reason, now);
        }
    }

    fn reason_to_open(&mut self, failed: bool, slow: bool, now: Instant) -> Option<&'static str> {
        if !failed && !slow {
            return None;
        }
        let (counts, settings) = (self.window.total(now), &self.settings);
        let reaches = |part: u64, share: f64| {
            counts.calls >= u64::from(settings.min_calls) && part as f64 >= share * counts.calls as f64
        };
        if failed && settings.consecutive_failures.is_some_and(|max| self.consecutive_failures >= max) {
            Some("too many consecutive failures")
        } else if failed && settings.failure_rate.is_some_and(|share| reaches(counts.failures, share)) {
            Some("too many of the calls failed")
        } else if slow && settings.slow_calls.is_some_and(|slow_calls| reaches(counts.slow, slow_calls.share)) {
            Some("too many of the calls were slow")
        } else {
            None
        }
    }

    pub(super) fn open(&mut self, reason: &'static str, now: Instant) {
        // A circuit that opens soon after it has closed had not recovered, so its open time continues to grow.
        let recovered = self.closed_at.is_some() && !self.has_just_closed(now);
        let doubled = if recovered { Duration::ZERO } else { self.backoff * 2 };
        self.backoff = doubled.clamp(self.settings.initial_open_time, self.settings.max_open_time);
        self.open_time = self.backoff - self.jitter.up_to(self.backoff / 4);
        self.closed_at = None;
        self.opened += 1;
        self.enter(State::Open { until: now + self.open_time }, reason, Some(self.open_time));
    }

    fn close(&mut self, now: Instant) {
        self.closed_at = Some(now);
        self.consecutive_failures = 0;
        self.window = Window::new(self.settings.window, now);
        self.enter(State::Closed, "the probes succeeded", None);
    }

    fn enter(&mut self, state: State, reason: &'static str, open_for: Option<Duration>) {
        let from = self.state();
        self.state = state;
        self.generation.0 += 1;
        self.transition = Some(Transition { from, to: self.state(), reason, open_for });
    }
}
