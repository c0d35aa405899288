//! Measures how fast the backlog is worked off.

use std::time::{Duration, Instant};

use super::estimate::nanos;

/// Work done per unit of time: 4 where four calls run at a time.
///
/// It is measured only while more calls are in flight than can run: at other times it would measure the demand. The work of a
/// completed call is what it took, where that is known, and not its estimate: an error of the estimates would remain in the
/// rate after they have been corrected.
#[derive(Debug)]
pub(super) struct ThroughputEstimator {
    /// Whether the parallelism was configured; otherwise the rate is all that is known of it.
    is_configured: bool,
    /// Calls that run at a time, as far as that is known.
    pub(super) parallelism: usize,
    rate: f64,
    /// Whether the rate was configured or has been measured, and is no guess by the number of processors.
    pub(super) is_known: bool,
    /// Whether a call has been rejected since one could last run at once.
    has_rejected: bool,
    saturated: Option<Saturation>,
    window: Window,
}

/// A time in which all calls that can run do.
#[derive(Clone, Copy, Debug)]
struct Saturation {
    since: Instant,
    last_end: Instant,
}

/// What was done while saturated, since the last measurement.
#[derive(Debug, Default)]
struct Window {
    elapsed_nanos: u64,
    calls: usize,
    work_nanos: u64,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It completed, and its response says how many nanoseconds it took.
    Measured(u64),
    /// It completed, and was estimated to take this many nanoseconds.
    Estimated(u64),
    Cancelled,
    /// It completed, and its work is unknown, so the window measures nothing.
    Unknown,
}

/// Least calls, and calls per parallelism, and duration of a window.
const MIN_CALLS: usize = 16;
const MIN_CALLS_EACH: usize = 4;
const MIN_NANOS: u64 = 5_000_000;

impl ThroughputEstimator {
    pub(super) fn new(parallelism: Option<usize>) -> Self {
        let initial = parallelism.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Self {
            is_configured: parallelism.is_some(),
            parallelism: initial,
            rate: initial as f64,
            is_known: parallelism.is_some(),
            has_rejected: false,
            saturated: None,
            window: Window::default(),
        }
    }

    /// Nanoseconds until this much work is done.
    pub(super) fn time_for(&self, work_nanos: u64) -> u64 {
        (work_nanos as f64 / self.rate) as u64
    }

    /// Whether a further call has to wait. A learned parallelism is tried with one call more, or a higher one would never be
    /// noticed.
    pub(super) fn is_busy(&self, in_flight: usize) -> bool {
        in_flight >= self.parallelism + usize::from(!self.is_configured)
    }

    /// A call was rejected because of the backlog.
    pub(super) fn call_rejected(&mut self) {
        self.has_rejected = true;
    }

    /// For how long the service has been saturated, if calls have been rejected since.
    pub(super) fn saturated_for(&self, now: Instant) -> Duration {
        match self.saturated {
            Some(saturated) if self.has_rejected => now.saturating_duration_since(saturated.since),
            _ => Duration::ZERO,
        }
    }

    /// Whether [`call_ended`](Self::call_ended) has to be called for one of `in_flight` calls.
    pub(super) fn is_measuring(&self, in_flight: usize) -> bool {
        in_flight > self.parallelism || self.saturated.is_some()
    }

    /// One of `in_flight` calls has ended.
    pub(super) fn call_ended(&mut self, in_flight: usize, end: End, now: Instant) {
        let is_saturated = in_flight > self.parallelism;
        if !is_saturated {
            self.has_rejected = false;
        }
        let before = self.saturated.take();
        let since = before.map_or(now, |before| before.since);
        self.saturated = is_saturated.then_some(Saturation { since, last_end: now });
        let Some(before) = before else { return };
        self.window.elapsed_nanos += nanos(now.saturating_duration_since(before.last_end));
        match end {
            End::Cancelled => return,
            End::Unknown => {
                self.window = Window::default();
                return;
            }
            End::Measured(work) | End::Estimated(work) => {
                self.window.calls += 1;
                self.window.work_nanos = self.window.work_nanos.saturating_add(work);
            }
        }
        let min_calls = MIN_CALLS.max(MIN_CALLS_EACH * self.parallelism);
        if self.window.calls >= min_calls && self.window.elapsed_nanos >= MIN_NANOS {
            let window = std::mem::take(&mut self.window);
            self.learn(window.work_nanos as f64 / window.elapsed_nanos as f64);
        }
    }

    fn learn(&mut self, measured: f64) {
        // The number of processors is only a guess, which the first measurement replaces.
        let weight = if self.is_known { 0.25 } else { 1.0 };
        self.rate = (self.rate + (measured - self.rate) * weight).max(0.001);
        self.is_known = true;
        if !self.is_configured {
            self.parallelism = (self.rate.round() as usize).max(1);
        }
    }
}
