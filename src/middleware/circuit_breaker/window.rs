use std::time::{Duration, Instant};

use super::state_machine::Outcome;

/// Calls by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) calls: u64,
    pub(super) failures: u64,
    pub(super) slow: u64,
}

const BUCKETS: usize = 10;

/// A sliding window over the calls of the last while, in buckets of a tenth of its length.
#[derive(Debug, Default)]
pub(super) struct Window {
    bucket_length: Duration,
    /// When the last bucket ends. The first bucket begins at the first call.
    end: Option<Instant>,
    /// The oldest first.
    buckets: [Counts; BUCKETS],
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let bucket_length = (length / BUCKETS as u32).max(Duration::from_nanos(1));
        Self { bucket_length, ..Self::default() }
    }

    /// Counts a call that ended now.
    pub(super) fn add(&mut self, outcome: Outcome, now: Instant) {
        if self.end.is_none_or(|end| now >= end) {
            let expired = self.expired_buckets(now);
            self.buckets.rotate_left(expired);
            self.buckets[BUCKETS - expired..].fill(Counts::default());
            // The first bucket begins now, and so does the next one after an idle period.
            let end = self.end.filter(|_| expired < BUCKETS);
            self.end = Some(end.map_or(now + self.bucket_length, |end| end + self.bucket_length * expired as u32));
        }
        let counts = &mut self.buckets[BUCKETS - 1];
        counts.calls += 1;
        counts.failures += u64::from(outcome.failed);
        counts.slow += u64::from(outcome.slow);
    }

    /// The sum over the window that ends now.
    pub(super) fn total(&self, now: Instant) -> Counts {
        self.buckets[self.expired_buckets(now)..].iter().fold(Counts::default(), |total, bucket| Counts {
            calls: total.calls + bucket.calls,
            failures: total.failures + bucket.failures,
            slow: total.slow + bucket.slow,
        })
    }

    /// How many of the buckets are no longer in the window that ends now.
    fn expired_buckets(&self, now: Instant) -> usize {
        let Some(since) = self.end.and_then(|end| now.checked_duration_since(end)) else { return 0 };
        let buckets = 1 + since.as_nanos() / self.bucket_length.as_nanos();
        usize::try_from(buckets).unwrap_or(BUCKETS).min(BUCKETS)
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Outcome, Window};
    use std::time::{Duration, Instant};

    const SECOND: Duration = Duration::from_secs(1);
    const FAILURE: Outcome = Outcome { failed: true, slow: false };

    #[test]
    fn calls_leave_the_window_a_bucket_at_a_time() {
        let start = Instant::now();
        let mut window = Window::new(10 * SECOND);
        for at in 0..10 {
            window.add(FAILURE, start + at * SECOND);
        }
        assert_eq!(window.total(start + 9 * SECOND).calls, 10);
        assert_eq!(window.total(start + 12 * SECOND).calls, 7);
        assert_eq!(window.total(start + 18 * SECOND).failures, 1);
        assert_eq!(window.total(start + 19 * SECOND), Counts::default());
    }

    #[test]
    fn an_idle_period_longer_than_the_window_empties_it() {
        let start = Instant::now();
        let mut window = Window::new(10 * SECOND);
        window.add(FAILURE, start);
        window.add(FAILURE, start + 86_400 * 365 * SECOND);
        assert_eq!(window.total(start + 86_400 * 365 * SECOND).calls, 1);
    }

    /// Compares with a list of all calls; the oldest tenth of the window may or may not be counted.
    #[test]
    fn the_total_is_that_of_the_calls_in_the_window() {
        let start = Instant::now();
        let mut window = Window::new(SECOND);
        let mut calls = Vec::new();
        let mut at = Duration::ZERO;
        for i in 0..5000_u32 {
            at += Duration::from_micros(u64::from(i * 7919 % 3001));
            let (failed, slow) = (i % 3 == 2, i % 5 == 4);
            let counts = Counts { calls: 1, failures: u64::from(failed), slow: u64::from(slow) };
            window.add(Outcome { failed, slow }, start + at);
            calls.push((at, counts));
            let total = window.total(start + at);
            let within = |length: Duration, count: fn(&Counts) -> u64| {
                calls.iter().filter(|(when, _)| at - *when < length).map(|(_, counts)| count(counts)).sum::<u64>()
            };
            let kinds: [fn(&Counts) -> u64; 3] =
                [|counts| counts.calls, |counts| counts.failures, |counts| counts.slow];
            for count in kinds {
                let (min, max) = (within(SECOND * 9 / 10, count), within(SECOND, count));
                assert!((min..=max).contains(&count(&total)), "call {i}: {total:?}");
            }
        }
    }
}
