//! Histograms with powers of two as bounds, so that the highest bit of a value determines its bucket.

use std::sync::atomic::{AtomicU64, Ordering};

use super::thread::Writer;

/// A histogram with `N` buckets. The bound of bucket `i` is `2^(FIRST + i * STEP)`; that of the last is infinite.
#[derive(Debug)]
pub(super) struct Histogram<const FIRST: u32, const STEP: u32, const N: usize> {
    buckets: [AtomicU64; N],
    /// Sum of the values. It wraps at 2^64, which is 584 years of nanoseconds.
    sum: AtomicU64,
}

/// Nanoseconds, with bounds from 1.024 µs to 17.2 s.
pub(super) type Durations = Histogram<10, 1, 26>;
/// Bytes, with bounds from 64 B to 4 GiB, each four times the one before.
pub(super) type Sizes = Histogram<6, 2, 15>;
/// Numbers of requests, with bounds from 1 to 1 024.
pub(super) type Counts = Histogram<0, 1, 12>;
/// Ratios in units of 1/65 536, with bounds from 1/64 to 64.
pub(super) type Ratios = Histogram<10, 1, 14>;

/// The value of a ratio of 1 in [`Ratios`].
pub(super) const RATIO_ONE: u64 = 1 << 16;

impl<const FIRST: u32, const STEP: u32, const N: usize> Default for Histogram<FIRST, STEP, N> {
    fn default() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }
}

impl<const FIRST: u32, const STEP: u32, const N: usize> Histogram<FIRST, STEP, N> {
    /// Adds a value.
    pub(super) fn observe(&self, writer: Writer, value: u64) {
        writer.add(&self.buckets[Self::bucket(value)], 1);
        writer.add(&self.sum, value);
    }

    /// Returns the first bucket whose bound is not below `value`.
    fn bucket(value: u64) -> usize {
        // The exponent of the smallest power of two that is not below the value.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        (exponent.saturating_sub(FIRST).div_ceil(STEP) as usize).min(N - 1)
    }

    /// Reads the histogram, with its bounds and its sum divided by `scale`. A value that is added at the same time may
    /// be in the counts and not yet in the sum.
    pub(super) fn read(&self, scale: f64) -> Snapshot {
        let bounds = (0..N - 1).map(|i| 2f64.powi((FIRST + i as u32 * STEP) as i32) / scale).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Snapshot { buckets, count, sum: self.sum.load(Ordering::Relaxed) as f64 / scale }
    }
}

/// The values of one histogram, or the sum of several with the same bounds.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Bounds and counts.
    pub(super) buckets: Vec<(f64, u64)>,
    pub(super) count: u64,
    pub(super) sum: f64,
}

impl Snapshot {
    pub(super) fn add(&mut self, other: &Self) {
        self.buckets.resize(other.buckets.len(), (0.0, 0));
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = (theirs.0, mine.1 + theirs.1);
        }
        self.count += other.count;
        self.sum += other.sum;
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Durations, Sizes, Writer};

    #[test]
    fn each_value_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        fn check<const F: u32, const S: u32, const N: usize>(new: fn() -> super::Histogram<F, S, N>) {
            let bounds: Vec<f64> = new().read(1.0).buckets.iter().map(|(bound, _)| *bound).collect();
            let around = (0..64).flat_map(|k| [(1u64 << k) - 1, 1 << k, (1 << k) + 1]).chain([0, u64::MAX]);
            for value in around {
                let histogram = new();
                histogram.observe(Writer::current(), value);
                let bucket = histogram.read(1.0).buckets.iter().position(|(_, count)| *count == 1).unwrap();
                let expected = bounds.iter().position(|bound| value as f64 <= *bound).unwrap();
                assert_eq!(bucket, expected, "{value}");
            }
        }
        check(Durations::default);
        check(Sizes::default);
        check(Counts::default);
    }

    #[test]
    fn bounds_are_in_the_unit_of_the_metric() {
        let durations = Durations::default().read(1e9);
        assert_eq!(durations.buckets[0].0, 1.024e-6);
        assert_eq!(durations.buckets[24].0, 17.179869184);
        assert_eq!(Sizes::default().read(1.0).buckets[13].0, f64::from(2).powi(32));
        assert_eq!(Counts::default().read(1.0).buckets[10].0, 1024.0);
    }
}
