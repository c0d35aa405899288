use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use crate::request::limits::MAX_NAME_BYTES;
use crate::sync::Mutex;

/// Buckets in which a latency doubles, so that they are exact to 1/8.
const PARTS: u32 = 8;
const DOUBLINGS: u32 = 32;
const BUCKETS: usize = (DOUBLINGS * PARTS) as usize;
/// The bounds of the buckets in nanoseconds, 1 µs and more than an hour. Latencies outside count as these.
const SHORTEST: u64 = 1 << 10;
const LONGEST: u64 = (SHORTEST << DOUBLINGS) - 1;
/// Calls before the quantile is known.
const MIN_CALLS: u32 = 100;
/// Calls between two computations of the quantile.
const INTERVAL: u32 = 32;
/// Calls at which all counts are halved, so that older calls count less.
const MAX_CALLS: u32 = 2048;

/// A histogram of latencies and one quantile of it.
#[derive(Debug)]
struct Histogram {
    counts: Box<[u32; BUCKETS]>,
    calls: u32,
    /// `None` until there were enough calls.
    quantile: Option<Duration>,
}

impl Histogram {
    fn new() -> Self {
        Self { counts: Box::new([0; BUCKETS]), calls: 0, quantile: None }
    }

    fn record(&mut self, latency: Duration, quantile: f64) {
        self.counts[bucket(latency)] += 1;
        self.calls += 1;
        if self.calls >= MIN_CALLS && self.calls.is_multiple_of(INTERVAL) {
            self.quantile = Some(self.compute(quantile));
        }
        if self.calls >= MAX_CALLS {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.calls = self.counts.iter().sum();
        }
    }

    fn compute(&self, quantile: f64) -> Duration {
        let mut remaining = (quantile * f64::from(self.calls)).ceil() as u32;
        let bucket = self.counts.iter().position(|&count| {
            remaining = remaining.saturating_sub(count);
            remaining == 0
        });
        upper_bound(bucket.unwrap_or(BUCKETS - 1))
    }
}

/// The bucket of a latency: each doubling from 1 024 ns on has [`PARTS`] buckets of equal width.
fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).clamp(SHORTEST, LONGEST);
    let doublings = nanos.ilog2() - SHORTEST.ilog2();
    let part = (nanos >> (nanos.ilog2() - PARTS.ilog2())) as u32 & (PARTS - 1);
    (doublings * PARTS + part) as usize
}

/// The exclusive upper bound of a bucket.
fn upper_bound(bucket: usize) -> Duration {
    let (doublings, part) = (bucket as u32 / PARTS, bucket as u32 % PARTS);
    let parts = u64::from(PARTS + part + 1);
    Duration::from_nanos(parts << (doublings + SHORTEST.ilog2() - PARTS.ilog2()))
}

/// Latencies by operation, up to a maximum, and those that the other operations share.
#[derive(Debug)]
pub(super) struct Latencies {
    pub(super) quantile: f64,
    max: usize,
    histograms: Mutex<Histograms>,
}

#[derive(Debug)]
struct Histograms {
    by_operation: HashMap<Arc<str>, Histogram>,
    shared: Histogram,
}

impl Latencies {
    pub(super) fn new(max: usize, quantile: f64) -> Self {
        let histograms = Histograms { by_operation: HashMap::new(), shared: Histogram::new() };
        Self { quantile, max, histograms: Mutex::new(histograms) }
    }

    /// Returns where to [`record`](Self::record) a call of an operation, and the quantile of its latencies. An operation gets
    /// latencies of its own when a call succeeds.
    pub(super) fn find(&self, operation: &str) -> (Option<Arc<str>>, Option<Duration>) {
        let histograms = self.histograms.lock();
        if let Some((name, histogram)) = histograms.by_operation.get_key_value(operation) {
            (Some(Arc::clone(name)), histogram.quantile)
        } else if histograms.by_operation.len() < self.max && operation.len() <= MAX_NAME_BYTES {
            (Some(operation.into()), None)
        } else {
            (None, histograms.shared.quantile)
        }
    }

    pub(super) fn record(&self, operation: Option<&Arc<str>>, latency: Duration) {
        let Histograms { by_operation, shared } = &mut *self.histograms.lock();
        let has_room = by_operation.len() < self.max;
        let histogram = match operation {
            Some(name) if has_room || by_operation.contains_key(name) => {
                by_operation.entry(Arc::clone(name)).or_insert_with(Histogram::new)
            }
            _ => shared,
        };
        histogram.record(latency, self.quantile);
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, Histogram, LONGEST, Latencies, SHORTEST, bucket, upper_bound};
    use std::time::Duration;

    #[test]
    fn every_latency_is_in_a_bucket_whose_bound_is_within_an_eighth() {
        let mut nanos = SHORTEST;
        while nanos < LONGEST {
            let (latency, bound) = (Duration::from_nanos(nanos), upper_bound(bucket(Duration::from_nanos(nanos))));
            assert!(bound > latency && bound <= latency * 9 / 8, "{latency:?} {bound:?}");
            nanos += 1 + nanos / 37;
        }
        assert_eq!(bucket(Duration::ZERO), 0);
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
    }

    #[test]
    fn the_quantile_is_known_after_enough_calls_and_follows_changes() {
        let mut histogram = Histogram::new();
        for i in 0..90 {
            histogram.record(Duration::from_millis(i), 0.9);
        }
        assert_eq!(histogram.quantile, None);
        for i in 0..1000 {
            histogram.record(Duration::from_millis(i % 100), 0.9);
        }
        let quantile = histogram.quantile.unwrap();
        assert!((88..=101).contains(&quantile.as_millis()), "{quantile:?}");

        for _ in 0..20_000 {
            histogram.record(Duration::from_millis(5), 0.9);
        }
        let quantile = histogram.quantile.unwrap();
        assert!((5..=6).contains(&quantile.as_millis()), "{quantile:?}");
    }

    #[test]
    fn threads_record_in_one_histogram() {
        let latencies = Latencies::new(1, 0.5);
        let (operation, quantile) = latencies.find("a");
        assert_eq!(quantile, None);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..50_000)
                        .for_each(|i| latencies.record(operation.as_ref(), Duration::from_micros(100 + i % 100)));
                });
            }
        });
        let quantile = latencies.find("a").1.unwrap();
        assert!((Duration::from_micros(130)..Duration::from_micros(180)).contains(&quantile), "{quantile:?}");
    }

    #[test]
    fn operations_that_succeeded_have_latencies_of_their_own_up_to_the_maximum() {
        let latencies = Latencies::new(2, 0.9);
        // Names of which no call has succeeded take no memory.
        for n in 0..100 {
            let name = format!("made up/{n}");
            let (new, quantile) = latencies.find(&name);
            assert_eq!((new.as_deref(), quantile), (Some(&*name), None));
        }
        let calls = ["a", "b", "c"].map(|operation| latencies.find(operation).0);
        calls.iter().for_each(|operation| latencies.record(operation.as_ref(), Duration::from_millis(1)));
        assert_eq!(["a", "b", "c", "d"].map(|name| latencies.find(name).0.is_some()), [true, true, false, false]);
        let histograms = latencies.histograms.lock();
        let own = ["a", "b"].map(|name| histograms.by_operation[name].calls);
        assert_eq!((own, histograms.shared.calls), ([1; 2], 1));
    }
}
