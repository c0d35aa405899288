//! What a circuit does, as a state machine that knows neither threads nor clocks.
//!
//! ```text
//!            too many failures                the open time is over, and a call comes
//!   Closed ---------------------->  Open  ------------------------------------------->  HalfOpen
//!     ^                              ^  |                                                |   |
//!     |                              |  +--- calls are refused                           |   |
//!     |                              +---------- a probe fails; the open time doubles ---+   |
//!     +------------------------------------------ enough probes have succeeded --------------+
//! ```
//!
//! Each transition begins a new generation. A call carries the generation that let it through, and what it brings counts
//! in that one alone: a call from before the failures says nothing about now, and a probe's place is one of its own
//! half-open state.

use std::num::NonZeroU64;
use std::time::{Duration, Instant};

use super::settings::Settings;
use super::status::CircuitState;
use super::window::{Counts, Window};
use crate::middleware::jitter::Jitter;

/// The generation that let a call through, and in the lowest bit whether the circuit is closed in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket(NonZeroU64);

impl Ticket {
    /// Of the generation that a circuit begins in.
    pub(super) const FIRST: Self = Self(NonZeroU64::MIN);

    /// Of the generation after this.
    fn next(self, closed: bool) -> Self {
        // At a transition each nanosecond they last for 292 years.
        Self((self.0 | 1).saturating_add(1) | u64::from(closed))
    }

    /// As a number that is not zero.
    pub(super) fn to_bits(self) -> u64 {
        self.0.get()
    }

    /// Of the number, where the circuit is closed in it.
    #[inline]
    pub(super) fn closed(bits: u64) -> Option<Self> {
        if bits & 1 == 1 { NonZeroU64::new(bits).map(Self) } else { None }
    }

    fn is_closed(self) -> bool {
        self.0.get() & 1 == 1
    }
}

/// What a call says of the service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Success { slow: bool },
    Failure { slow: bool },
    Nothing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Transition {
    pub(super) from: CircuitState,
    pub(super) to: CircuitState,
    pub(super) because: &'static str,
    /// How long it stays open, where it does.
    pub(super) open_for: Option<Duration>,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        in_flight: u32,
        succeeded: u32,
        /// When one more probe may go though all places are taken: those who hold them may never end.
        renewed: Option<Instant>,
    },
}

#[derive(Debug)]
pub(super) struct Machine {
    phase: Phase,
    ticket: Ticket,
    /// Failures since the last success.
    consecutive: u32,
    window: Window,
    /// How often it has opened after one another.
    trips: u32,
    /// How long it last stayed open.
    open_time: Duration,
    /// When it last closed, until it opens again.
    closed: Option<Instant>,
    opened: u64,
}

impl Machine {
    pub(super) fn new(settings: &Settings, now: Instant) -> Self {
        Self {
            phase: Phase::Closed,
            ticket: Ticket::FIRST,
            consecutive: 0,
            window: Window::new(settings.window, now),
            trips: 0,
            open_time: Duration::ZERO,
            closed: None,
            opened: 0,
        }
    }

    pub(super) fn ticket(&self) -> Ticket {
        self.ticket
    }

    pub(super) fn state(&self) -> CircuitState {
        match self.phase {
            Phase::Closed => CircuitState::Closed,
            Phase::Open { .. } => CircuitState::Open,
            Phase::HalfOpen { .. } => CircuitState::HalfOpen,
        }
    }

    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        self.window.sums(now)
    }

    pub(super) fn consecutive(&self) -> u32 {
        self.consecutive
    }

    pub(super) fn opened(&self) -> u64 {
        self.opened
    }

    /// Whether to forget it loses nothing that matters now: it is closed, and nothing has failed lately; or nobody has
    /// asked for so long after it was due for a probe as it was open.
    pub(super) fn is_blank(&mut self, now: Instant) -> bool {
        let since_due = |due: Instant| now.saturating_duration_since(due);
        match self.phase {
            Phase::Closed => {
                let counts = self.counts(now);
                counts.failures == 0 && counts.slow == 0 && !self.has_just_closed(now)
            }
            Phase::Open { until } => since_due(until) > self.open_time,
            Phase::HalfOpen { renewed, .. } => renewed.is_some_and(|renewed| since_due(renewed) > Duration::ZERO),
        }
    }

    /// Whether it would stay open for longer than the first time if it opened now.
    fn has_just_closed(&self, now: Instant) -> bool {
        self.closed.is_some_and(|closed| now.saturating_duration_since(closed) < self.open_time)
    }

    /// The time until the next probe; zero where a call would be let through.
    pub(super) fn retry_after(&self, settings: &Settings, now: Instant) -> Duration {
        match self.phase {
            Phase::Closed => Duration::ZERO,
            Phase::Open { until } => until.saturating_duration_since(now),
            Phase::HalfOpen { in_flight, .. } if in_flight < settings.probes => Duration::ZERO,
            Phase::HalfOpen { renewed, .. } => {
                renewed.map_or(self.open_time, |renewed| renewed.saturating_duration_since(now))
            }
        }
    }

    /// Lets a call through, or says how long until one can be.
    pub(super) fn admit(
        &mut self,
        settings: &Settings,
        now: Instant,
    ) -> (Result<Ticket, Duration>, Option<Transition>) {
        let retry_after = self.retry_after(settings, now);
        if !retry_after.is_zero() {
            return (Err(retry_after), None);
        }
        let mut transition = None;
        if let Phase::Open { .. } = self.phase {
            let next = Phase::HalfOpen { in_flight: 0, succeeded: 0, renewed: None };
            transition = Some(self.enter(next, "its time is over", None));
        }
        if let Phase::HalfOpen { in_flight, renewed, .. } = &mut self.phase {
            *in_flight += 1;
            *renewed = now.checked_add(self.open_time);
        }
        (Ok(self.ticket()), transition)
    }

    /// Counts a call that succeeded in time, where that changes nothing else: in a closed circuit, until the window turns.
    #[inline]
    pub(super) fn count_success(&mut self, ticket: Ticket, now: Instant) -> bool {
        let counted = ticket == self.ticket && ticket.is_closed() && self.window.add_success(now);
        if counted {
            self.consecutive = 0;
        }
        counted
    }

    /// Counts how a call ended.
    pub(super) fn end(
        &mut self,
        settings: &Settings,
        jitter: &Jitter,
        ticket: Ticket,
        verdict: Verdict,
        now: Instant,
    ) -> Option<Transition> {
        if ticket != self.ticket() {
            return None;
        }
        match &mut self.phase {
            Phase::Closed => self.end_closed(settings, verdict, now).map(|why| self.open(settings, jitter, why, now)),
            Phase::HalfOpen { in_flight, succeeded, .. } => {
                *in_flight -= 1;
                match verdict {
                    Verdict::Nothing => None,
                    Verdict::Success { slow: false } => {
                        *succeeded += 1;
                        (*succeeded >= settings.successes).then(|| self.close(now))
                    }
                    Verdict::Success { slow: true } => Some(self.open(settings, jitter, "a probe was slow", now)),
                    Verdict::Failure { .. } => Some(self.open(settings, jitter, "a probe failed", now)),
                }
            }
            // No call is let through in this state, so none has its generation.
            Phase::Open { .. } => None,
        }
    }

    /// Why it must open, if it must.
    fn end_closed(&mut self, settings: &Settings, verdict: Verdict, now: Instant) -> Option<&'static str> {
        let (failed, slow) = match verdict {
            Verdict::Success { slow } => (false, slow),
            Verdict::Failure { slow } => (true, slow),
            Verdict::Nothing => return None,
        };
        self.window.add(Counts { calls: 1, failures: u64::from(failed), slow: u64::from(slow) }, now);
        self.consecutive = if failed { self.consecutive.saturating_add(1) } else { 0 };
        if failed || slow { self.too_many(settings, failed, slow, now) } else { None }
    }

    fn too_many(&mut self, settings: &Settings, failed: bool, slow: bool, now: Instant) -> Option<&'static str> {
        let counts = self.window.sums(now);
        let is = |part: u64, share: f64| {
            counts.calls >= u64::from(settings.min_calls) && part as f64 >= share * counts.calls as f64
        };
        if failed && settings.consecutive.is_some_and(|most| self.consecutive >= most) {
            Some("too many calls failed one after another")
        } else if failed && settings.failure_rate.is_some_and(|share| is(counts.failures, share)) {
            Some("too large a share of the calls failed")
        } else if slow && settings.slow.is_some_and(|limit| is(counts.slow, limit.share)) {
            Some("too large a share of the calls was slow")
        } else {
            None
        }
    }

    /// Opens it where it is closed, for a reason that is not among its own calls.
    pub(super) fn open_for_all(
        &mut self,
        settings: &Settings,
        jitter: &Jitter,
        because: &'static str,
        now: Instant,
    ) -> Option<Transition> {
        matches!(self.phase, Phase::Closed).then(|| self.open(settings, jitter, because, now))
    }

    fn open(&mut self, settings: &Settings, jitter: &Jitter, because: &'static str, now: Instant) -> Transition {
        // One that opens soon after it has closed had not recovered, so its open time grows on.
        let soon = self.closed.is_none() || self.has_just_closed(now);
        self.closed = None;
        self.trips = if soon { self.trips.saturating_add(1) } else { 1 };
        self.open_time = settings.open_time(self.trips, jitter);
        self.opened += 1;
        // An end that no instant can express is far enough away to be looked at again tomorrow.
        let until = now.checked_add(self.open_time).unwrap_or_else(|| now + Duration::from_secs(86_400));
        self.enter(Phase::Open { until }, because, Some(self.open_time))
    }

    fn close(&mut self, now: Instant) -> Transition {
        self.closed = Some(now);
        self.consecutive = 0;
        self.window.clear();
        self.enter(Phase::Closed, "the probes succeeded", None)
    }

    fn enter(&mut self, phase: Phase, because: &'static str, open_for: Option<Duration>) -> Transition {
        let from = self.state();
        self.phase = phase;
        self.ticket = self.ticket.next(matches!(phase, Phase::Closed));
        Transition { from, to: self.state(), because, open_for }
    }
}
