//! Counts executions by outcome: since the start by code, and over the last minute by whether they were server faults.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::ErrorKind;
use crate::error::problem::HTTP_ONLY_CODES;
use crate::servers::http::Problem;

/// Duration of a bucket of the window.
const BUCKET: Duration = Duration::from_secs(5);
const BUCKETS: u64 = 12;
/// Length of the window of [`Outcomes::recent`], in seconds.
pub(super) const WINDOW: u64 = BUCKET.as_secs() * BUCKETS;

#[derive(Debug)]
pub(crate) struct Outcomes {
    ok: AtomicU64,
    failed: [AtomicU64; ErrorKind::ALL.len()],
    /// Errors that only HTTP has.
    http_only: [AtomicU64; HTTP_ONLY_CODES.len()],
    window: Mutex<[Bucket; BUCKETS as usize]>,
    created: Instant,
}

/// Executions within one interval of length [`BUCKET`].
#[derive(Clone, Copy, Debug, Default)]
struct Bucket {
    /// Number of the interval since `created`.
    interval: u64,
    counts: Recent,
}

/// Executions of the last minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Recent {
    pub(super) executions: u64,
    /// Those that failed because of the server.
    pub(super) faults: u64,
}

impl Recent {
    pub(super) fn error_rate(self) -> f64 {
        if self.executions == 0 { 0.0 } else { self.faults as f64 / self.executions as f64 }
    }
}

impl Outcomes {
    pub(super) fn new() -> Self {
        Self {
            ok: AtomicU64::new(0),
            failed: [const { AtomicU64::new(0) }; ErrorKind::ALL.len()],
            http_only: [const { AtomicU64::new(0) }; HTTP_ONLY_CODES.len()],
            window: Mutex::default(),
            created: now(),
        }
    }

    /// Counts an execution: `None` if it succeeded.
    pub(super) fn record(&self, problem: Option<&Problem>) {
        let http_only = |problem: &Problem| HTTP_ONLY_CODES.iter().position(|(_, code)| *code == problem.code());
        let total = match problem {
            None => &self.ok,
            Some(problem) => match http_only(problem) {
                Some(index) => &self.http_only[index],
                None => &self.failed[problem.kind() as usize],
            },
        };
        total.fetch_add(1, Ordering::Relaxed);
        let interval = self.interval();
        let bucket = &mut self.window.lock()[(interval % BUCKETS) as usize];
        if bucket.interval != interval {
            *bucket = Bucket { interval, counts: Recent::default() };
        }
        bucket.counts.executions += 1;
        bucket.counts.faults += u64::from(problem.is_some_and(|problem| is_fault(problem.kind())));
    }

    /// Executions of the last minute, in steps of five seconds.
    pub(super) fn recent(&self) -> Recent {
        let interval = self.interval();
        let mut recent = Recent::default();
        for Bucket { interval: of, counts } in *self.window.lock() {
            if of + BUCKETS > interval {
                recent.executions += counts.executions;
                recent.faults += counts.faults;
            }
        }
        recent
    }

    /// Total of each outcome that has occurred, by its code.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let failed = ErrorKind::ALL.into_iter().map(ErrorKind::code).zip(&self.failed);
        let http_only = HTTP_ONLY_CODES.into_iter().map(|(_, code)| code).zip(&self.http_only);
        let all = std::iter::once(("ok", &self.ok)).chain(failed).chain(http_only);
        all.map(|(code, count)| (code, count.load(Ordering::Relaxed))).filter(|(_, count)| *count != 0)
    }

    fn interval(&self) -> u64 {
        (now() - self.created).as_secs() / BUCKET.as_secs()
    }
}

/// Whether an error is the server's fault. Clients can cause rejections, overload and missed deadlines.
fn is_fault(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Internal | ErrorKind::Unavailable)
}

/// tokio's clock, so that tests can pause it.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_window_forgets_and_the_totals_do_not() {
        let outcomes = Outcomes::new();
        for round in 0..40u64 {
            outcomes.record(None);
            for kind in [ErrorKind::Internal, ErrorKind::InvalidArgument, ErrorKind::Overloaded] {
                outcomes.record(Some(&Problem::new(kind, "")));
            }
            let rounds = (round + 1).min(BUCKETS);
            assert_eq!(outcomes.recent(), Recent { executions: 4 * rounds, faults: rounds }, "round {round}");
            tokio::time::advance(BUCKET).await;
        }
        assert_eq!(outcomes.recent().error_rate(), 0.25);
        tokio::time::advance(Duration::from_secs(WINDOW)).await;
        assert_eq!(outcomes.recent().error_rate(), 0.0);
        outcomes.record(Some(&Problem::request_timeout("")));
        let totals: Vec<_> = outcomes.totals().collect();
        assert_eq!(
            totals,
            [("ok", 40), ("invalid_argument", 40), ("internal", 40), ("overloaded", 40), ("request_timeout", 1)]
        );
    }

    #[test]
    fn counts_of_many_threads_are_exact() {
        let outcomes = Outcomes::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..1000).for_each(|_| outcomes.record(Some(&Problem::new(ErrorKind::Unavailable, ""))));
                });
            }
        });
        assert_eq!(outcomes.recent(), Recent { executions: 4000, faults: 4000 });
    }
}
