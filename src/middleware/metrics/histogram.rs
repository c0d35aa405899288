//! Histograms whose bounds are powers of two, so that the bucket of a value is read off its highest bit.

use std::sync::atomic::{AtomicU64, Ordering};

use super::thread::Writer;

/// `N` buckets. The bound of the first is 2 to the `FIRST`, of each further one 2 to the `STEP` times that of the one
/// before; the last takes what is above.
#[derive(Debug)]
pub(super) struct Histogram<const FIRST: u32, const STEP: u32, const N: usize> {
    buckets: [AtomicU64; N],
    /// In the unit of the values; it wraps at 2 to the 64th, which is 584 years of nanoseconds.
    sum: AtomicU64,
}

/// Of nanoseconds: from 1.024 µs to 17.2 s.
pub(super) type Durations = Histogram<10, 1, 26>;
/// Of bytes: from 64 B to 4 GiB, in steps of four.
pub(super) type Sizes = Histogram<6, 2, 15>;
/// Of requests: from 1 to 1 024.
pub(super) type Counts = Histogram<0, 1, 12>;
/// Of parts in 65 536: from 1/64 to 64.
pub(super) type Ratios = Histogram<10, 1, 14>;

/// One of a [`Ratios`].
pub(super) const RATIO_ONE: u64 = 1 << 16;

impl<const FIRST: u32, const STEP: u32, const N: usize> Histogram<FIRST, STEP, N> {
    pub(super) const fn new() -> Self {
        Self { buckets: [const { AtomicU64::new(0) }; N], sum: AtomicU64::new(0) }
    }

    #[cold]
    pub(super) fn boxed() -> Box<Self> {
        Box::new(Self::new())
    }

    #[inline]
    pub(super) fn observe(&self, writer: Writer, value: u64) {
        writer.add(&self.buckets[Self::bucket(value)], 1);
        writer.add(&self.sum, value);
    }

    /// The first bucket whose bound is not below `value`.
    #[inline]
    fn bucket(value: u64) -> usize {
        // The exponent of the power of two that is not below the value: the bit above the highest of `value - 1`.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        (exponent.saturating_sub(FIRST).div_ceil(STEP) as usize).min(N - 1)
    }

    /// The buckets' bounds, in units of which one has `scale` values, and counts; the sum of the counts; the sum of the
    /// values. A call that is counted meanwhile may be in one and not yet in the other.
    pub(super) fn read(&self, scale: f64) -> Snapshot {
        let bounds = (0..N - 1).map(|i| 2f64.powi((FIRST + i as u32 * STEP) as i32) / scale).chain([f64::INFINITY]);
        let buckets: Vec<_> = bounds.zip(self.buckets.iter().map(|count| count.load(Ordering::Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Snapshot { buckets, count, sum: self.sum.load(Ordering::Relaxed) as f64 / scale }
    }
}

/// What a histogram, or several of the same bounds together, have seen.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
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
        check(Durations::new);
        check(Sizes::new);
        check(Counts::new);
    }

    #[test]
    fn bounds_are_in_the_unit_of_the_metric() {
        let durations = Durations::new().read(1e9);
        assert_eq!(durations.buckets[0].0, 1.024e-6);
        assert_eq!(durations.buckets[24].0, 17.179869184);
        assert_eq!(Sizes::new().read(1.0).buckets[13].0, f64::from(2).powi(32));
        assert_eq!(Counts::new().read(1.0).buckets[10].0, 1024.0);
    }
}
