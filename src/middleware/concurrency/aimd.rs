use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{Algorithm, Outcome, Sample};

/// Additive increase, multiplicative decrease: raises the limit by one per round of successful calls, and cuts it to nine
/// tenths on overload.
///
/// This is TCP's congestion avoidance ([RFC 5681](https://www.rfc-editor.org/rfc/rfc5681) section 3.1), with calls for
/// segments: a limit of *n* grows by one for *n* successes, and only while at least half of it is used. Calls that were in
/// flight when the limit was cut do not cut it again ([RFC 6582](https://www.rfc-editor.org/rfc/rfc6582)): one overload counts
/// once, however many calls it hits. The factor of nine tenths and the latency threshold are those of `AIMDLimit` in Netflix's
/// [concurrency-limits](https://github.com/Netflix/concurrency-limits).
///
/// It needs an inner service that rejects calls or exceeds deadlines under overload. Over one that queues without a bound, set
/// a [`latency_threshold`](Self::latency_threshold).
#[derive(Clone, Debug)]
#[must_use]
pub struct Aimd {
    limit: f64,
    range: RangeInclusive<usize>,
    backoff: f64,
    latency_threshold: Option<Duration>,
    last_cut: Option<Instant>,
}

impl Aimd {
    /// Starts at `limit`, and stays between 1 and 1000, or `limit` if that is more.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { limit: limit as f64, range: 1..=limit.max(1000), backoff: 0.9, latency_threshold: None, last_cut: None }
    }

    /// Keeps the limit within `range`.
    ///
    /// # Panics
    /// If `range` is empty or starts at 0.
    #[track_caller]
    pub fn range(self, range: RangeInclusive<usize>) -> Self {
        Self { limit: within(self.limit, &range), range, ..self }
    }

    /// Sets the factor by which overload cuts the limit. The default is 0.9.
    ///
    /// # Panics
    /// Unless it is above 0 and below 1.
    #[track_caller]
    pub fn backoff(self, backoff: f64) -> Self {
        assert!(backoff > 0.0 && backoff < 1.0, "the backoff must be above 0 and below 1");
        Self { backoff, ..self }
    }

    /// Takes calls with a higher latency as a sign of overload.
    pub fn latency_threshold(self, threshold: Duration) -> Self {
        Self { latency_threshold: Some(threshold), ..self }
    }
}

impl Algorithm for Aimd {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn observe(&mut self, call: &Sample) {
        let is_slow = self.latency_threshold.is_some_and(|threshold| call.latency() > threshold);
        if is_slow || call.outcome == Outcome::Overloaded {
            if self.last_cut.is_none_or(|cut| call.started >= cut) {
                self.limit = within(self.limit * self.backoff, &self.range);
                self.last_cut = Some(call.finished);
            }
        } else if call.in_flight as f64 * 2.0 >= self.limit {
            self.limit = within(self.limit + 1.0 / self.limit, &self.range);
        }
    }
}

/// Clamps `limit` to `range`.
#[track_caller]
pub(super) fn within(limit: f64, range: &RangeInclusive<usize>) -> f64 {
    assert!(*range.start() > 0 && !range.is_empty(), "the range of a limit must not be empty or start at 0");
    limit.clamp(*range.start() as f64, *range.end() as f64)
}
