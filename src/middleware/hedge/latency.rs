use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::request::operation_table::{OperationIndex, OperationTable, to_keep};

/// Parts of a doubling that times are told apart by: within 1/8.
const PARTS: u32 = 8;
const DOUBLINGS: u32 = 32;
const BUCKETS: usize = (DOUBLINGS * PARTS) as usize;
/// In nanoseconds. What is shorter counts as this, and what is longer as the longest, which is more than an hour.
const SHORTEST: u64 = 1 << 10;
const LONGEST: u64 = (SHORTEST << DOUBLINGS) - 1;
/// Fewer calls say nothing of a quantile.
const ENOUGH: u32 = 100;
/// Each so many calls the quantile is looked for anew.
const EVERY: u32 = 32;
/// With so many calls all counts are halved, so that what was long ago counts ever less.
const MANY: u32 = 2048;

/// How long calls took, and the quantile of it. Calls are counted by whichever thread they end on; where two do so at the
/// same moment as the counts are halved a call may be counted half or twice, which moves no quantile.
#[derive(Debug)]
pub(super) struct Latency {
    counts: Box<[AtomicU32; BUCKETS]>,
    calls: AtomicU32,
    /// In nanoseconds; [`UNKNOWN`] until there were calls enough.
    quantile: AtomicU64,
}

const UNKNOWN: u64 = u64::MAX;

impl Latency {
    fn new() -> Self {
        Self {
            counts: Box::new([const { AtomicU32::new(0) }; BUCKETS]),
            calls: AtomicU32::new(0),
            quantile: AtomicU64::new(UNKNOWN),
        }
    }

    /// Which share of the calls took no longer, once that is known.
    #[inline]
    pub(super) fn quantile(&self) -> Option<Duration> {
        match self.quantile.load(Ordering::Relaxed) {
            UNKNOWN => None,
            nanos => Some(Duration::from_nanos(nanos)),
        }
    }

    pub(super) fn record(&self, time: Duration, share: f64) {
        self.counts[bucket(time)].fetch_add(1, Ordering::Relaxed);
        let calls = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        if calls >= ENOUGH && calls.is_multiple_of(EVERY) {
            self.learn(calls, share);
        }
    }

    #[cold]
    fn learn(&self, calls: u32, share: f64) {
        let counts: [u32; BUCKETS] = std::array::from_fn(|at| self.counts[at].load(Ordering::Relaxed));
        let all: u64 = counts.iter().map(|&count| u64::from(count)).sum();
        let mut left = (share * all as f64).ceil() as u64;
        let at = counts.iter().position(|&count| {
            left = left.saturating_sub(u64::from(count));
            left == 0
        });
        let time = upper_bound(at.unwrap_or(BUCKETS - 1));
        self.quantile.store(u64::try_from(time.as_nanos()).unwrap_or(UNKNOWN - 1), Ordering::Relaxed);
        if calls >= MANY && self.calls.compare_exchange(calls, calls / 2, Ordering::Relaxed, Ordering::Relaxed).is_ok()
        {
            for (count, seen) in self.counts.iter().zip(counts) {
                count.fetch_sub(seen - seen / 2, Ordering::Relaxed);
            }
        }
    }
}

/// Doublings of 1 024 ns, each in [`PARTS`] equal parts.
fn bucket(time: Duration) -> usize {
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX).clamp(SHORTEST, LONGEST);
    let doublings = nanos.ilog2() - SHORTEST.ilog2();
    let part = (nanos >> (nanos.ilog2() - PARTS.ilog2())) as u32 & (PARTS - 1);
    (doublings * PARTS + part) as usize
}

/// What all times in the bucket are shorter than.
fn upper_bound(bucket: usize) -> Duration {
    let (doublings, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    let parts = u64::from(PARTS + part + 1);
    Duration::from_nanos(parts << (doublings + SHORTEST.ilog2() - PARTS.ilog2()))
}

/// The latencies by operation, of those that have answered, and the one that all others share.
#[derive(Debug)]
pub(super) struct Latencies {
    of: OperationTable<Latency>,
    rest: Latency,
    /// The quantile that is looked for.
    share: f64,
}

/// Which latency a call counts in.
#[derive(Debug)]
pub(super) enum Which {
    Own(OperationIndex),
    Rest,
    /// Of an operation that has one of its own once it has answered.
    New(Box<str>),
}

impl Latencies {
    pub(super) fn new(max: usize, share: f64) -> Self {
        Self { of: OperationTable::new(max), rest: Latency::new(), share }
    }

    pub(super) fn share(&self) -> f64 {
        self.share
    }

    /// Where a call of the operation counts, and the quantile there.
    #[inline]
    pub(super) fn of(&self, operation: &str) -> (Which, Option<Duration>) {
        match self.of.find(operation) {
            Some((at, latency)) => (Which::Own(at), latency.quantile()),
            None => self.of_unknown(operation),
        }
    }

    #[cold]
    fn of_unknown(&self, operation: &str) -> (Which, Option<Duration>) {
        if self.of.is_full() {
            (Which::Rest, self.rest.quantile())
        } else {
            (Which::New(to_keep(operation).into()), None)
        }
    }

    /// A call has answered that took so long.
    pub(super) fn record(&self, which: &Which, time: Duration) {
        let latency = match which {
            Which::Own(at) => &self.of[*at],
            Which::Rest => &self.rest,
            Which::New(operation) => {
                self.of.find_or_insert(operation, Latency::new).map_or(&self.rest, |(_, latency)| latency)
            }
        };
        latency.record(time, self.share);
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, LONGEST, Latencies, Latency, SHORTEST, Which, bucket, upper_bound};
    use std::sync::atomic::Ordering;
    use std::time::Duration;

    #[test]
    fn every_time_is_in_a_bucket_whose_bound_is_within_an_eighth() {
        let mut nanos = SHORTEST;
        while nanos < LONGEST {
            let (time, bound) = (Duration::from_nanos(nanos), upper_bound(bucket(Duration::from_nanos(nanos))));
            assert!(bound > time && bound <= time * 9 / 8, "{time:?} {bound:?}");
            nanos += 1 + nanos / 37;
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_quantile_is_known_after_calls_enough_and_follows_what_changes() {
        let latency = Latency::new();
        for i in 0..90 {
            latency.record(Duration::from_millis(i), 0.9);
        }
        assert_eq!(latency.quantile(), None);
        for i in 0..1000 {
            latency.record(Duration::from_millis(i % 100), 0.9);
        }
        let quantile = latency.quantile().unwrap();
        assert!((88..=101).contains(&quantile.as_millis()), "{quantile:?}");

        for _ in 0..20_000 {
            latency.record(Duration::from_millis(5), 0.9);
        }
        let quantile = latency.quantile().unwrap();
        assert!((5..=6).contains(&quantile.as_millis()), "{quantile:?}");
    }

    #[test]
    fn threads_that_record_at_once_lose_no_more_than_a_few() {
        let latency = Latency::new();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..50_000).for_each(|i| latency.record(Duration::from_micros(100 + i % 100), 0.5)));
            }
        });
        let quantile = latency.quantile().unwrap();
        assert!((Duration::from_micros(130)..Duration::from_micros(180)).contains(&quantile), "{quantile:?}");
    }

    #[test]
    fn operations_that_have_answered_have_one_each_up_to_the_bound_and_the_others_share_one() {
        let latencies = Latencies::new(2, 0.9);
        // However often a name is called by that no call has answered, it takes no place.
        for n in 0..100 {
            let name = format!("made up/{n}");
            assert!(matches!(latencies.of(&name), (Which::New(new), None) if *new == *name));
        }
        let calls = ["a", "b", "c"].map(|operation| latencies.of(operation).0);
        calls.iter().for_each(|which| latencies.record(which, Duration::from_millis(1)));
        let [Which::Own(a), Which::Own(b)] = ["a", "b"].map(|operation| latencies.of(operation).0) else {
            panic!("there was room for both");
        };
        assert!(a != b && ["c", "d"].iter().all(|operation| matches!(latencies.of(operation), (Which::Rest, None))));
        let counted = [&latencies.of[a], &latencies.of[b], &latencies.rest];
        assert_eq!(counted.map(|latency| latency.calls.load(Ordering::Relaxed)), [1; 3]);
    }
}
