use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::{Algorithm, Outcome, Sample};

/// One call more for each round of calls that end well, a tenth fewer once they are refused or late: additive increase,
/// multiplicative decrease.
///
/// It is TCP's congestion avoidance ([RFC 5681](https://www.rfc-editor.org/rfc/rfc5681) section 3.1), with calls for
/// segments: a limit of *n* grows by one for *n* answers, and only while at least half of it is used, as what is not used
/// is not tried either. Calls that were under way when the limit was cut do not cut it again
/// ([RFC 6582](https://www.rfc-editor.org/rfc/rfc6582)): one overload counts once, however many calls it hits. The cut to
/// nine tenths and the bound by latency are those of `AIMDLimit` in Netflix's
/// [concurrency-limits](https://github.com/Netflix/concurrency-limits).
///
/// It needs something further in that refuses or is late when there is too much. Where a queue without a bound swallows
/// everything, only [`slower_than`](Self::slower_than) makes it see.
#[derive(Clone, Debug)]
pub struct Aimd {
    limit: f64,
    range: RangeInclusive<usize>,
    backoff: f64,
    slow: Option<Duration>,
    cut: Option<Instant>,
}

impl Aimd {
    /// Begins with `limit` calls, and keeps between 1 and 1000, or `limit` where that is more.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self { limit: limit as f64, range: 1..=limit.max(1000), backoff: 0.9, slow: None, cut: None }
    }

    /// Keeps the limit in `range`.
    ///
    /// # Panics
    /// Where `range` is empty or begins with 0.
    #[must_use]
    #[track_caller]
    pub fn range(self, range: RangeInclusive<usize>) -> Self {
        Self { limit: within(self.limit, &range), range, ..self }
    }

    /// Cuts the limit to so much of it, 0.9 if nothing is said.
    ///
    /// # Panics
    /// Unless it is above 0 and below 1.
    #[must_use]
    #[track_caller]
    pub fn backoff(self, backoff: f64) -> Self {
        assert!(backoff > 0.0 && backoff < 1.0, "a backoff is above 0 and below 1");
        Self { backoff, ..self }
    }

    /// Takes calls that took longer than `slow` for signs of overload.
    #[must_use]
    pub fn slower_than(self, slow: Duration) -> Self {
        Self { slow: Some(slow), ..self }
    }
}

impl Algorithm for Aimd {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn observe(&mut self, call: &Sample) {
        let late = self.slow.is_some_and(|slow| call.took() > slow);
        if late || call.outcome == Outcome::Overloaded {
            if self.cut.is_none_or(|cut| call.began >= cut) {
                self.limit = within(self.limit * self.backoff, &self.range);
                self.cut = Some(call.ended);
            }
        } else if call.in_flight as f64 * 2.0 >= self.limit {
            self.limit = within(self.limit + 1.0 / self.limit, &self.range);
        }
    }
}

/// `limit`, or the end of the range that is nearer.
#[track_caller]
pub(super) fn within(limit: f64, range: &RangeInclusive<usize>) -> f64 {
    assert!(*range.start() > 0 && !range.is_empty(), "a limit's range holds something, and not 0");
    limit.clamp(*range.start() as f64, *range.end() as f64)
}
