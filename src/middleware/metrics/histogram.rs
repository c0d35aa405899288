//! Histograms with powers of two as bounds, so that the highest bit of a value determines its bucket.

/// Nanoseconds, exported as seconds, with bounds from 1.024 µs to 17.2 s.
pub(super) type Durations = Histogram<10, 1, 26, 1_000_000_000>;
/// Bytes, with bounds from 64 B to 4 GiB, each four times the one before.
pub(super) type Sizes = Histogram<6, 2, 15, 1>;
/// Numbers of requests, with bounds from 1 to 1 024.
pub(super) type Counts = Histogram<0, 1, 12, 1>;
/// Ratios in units of 1/65 536, with bounds from 1/64 to 64.
pub(super) type Ratios = Histogram<10, 1, 14, RATIO_ONE>;

/// The value of a ratio of 1 in [`Ratios`].
pub(super) const RATIO_ONE: u64 = 1 << 16;

/// A histogram of integers. The bound of bucket `i` is `2^(FIRST + i * STEP)`, and that of the last one is infinite.
/// The value `ONE` is exported as 1.
#[derive(Debug, Default)]
pub(super) struct Histogram<const FIRST: u32, const STEP: u32, const BUCKETS: usize, const ONE: u64> {
    /// Values in each bucket. Empty until there is a value, as most histograms stay so.
    counts: Vec<u64>,
    /// Sum of the values. It wraps at 2^64, which is 584 years of nanoseconds.
    sum: u64,
}

impl<const FIRST: u32, const STEP: u32, const BUCKETS: usize, const ONE: u64> Histogram<FIRST, STEP, BUCKETS, ONE> {
    /// Returns the first bucket whose bound is not below `value`.
    fn bucket(value: u64) -> usize {
        // The exponent of the smallest power of two that is not below the value.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        (exponent.saturating_sub(FIRST).div_ceil(STEP) as usize).min(BUCKETS - 1)
    }

    /// Adds a value.
    pub(super) fn observe(&mut self, value: u64) {
        if self.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        self.counts[Self::bucket(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Adds all values of a histogram.
    pub(super) fn add(&mut self, other: &Self) {
        if !other.counts.is_empty() {
            self.counts.resize(BUCKETS, 0);
        }
        self.counts.iter_mut().zip(&other.counts).for_each(|(count, more)| *count += more);
        self.sum = self.sum.wrapping_add(other.sum);
    }

    /// Returns the number of values.
    pub(super) fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Returns the sum of the values.
    pub(super) fn sum(&self) -> u64 {
        self.sum
    }

    /// Returns the sum of the values in the exported unit.
    pub(super) fn exported_sum(&self) -> f64 {
        self.sum as f64 / ONE as f64
    }

    /// Returns the bounds in the exported unit, each with the number of values in its bucket.
    pub(super) fn exported_buckets(&self) -> Vec<(f64, u64)> {
        let bounds = (0..BUCKETS as u32 - 1).map(|i| 2f64.powi((FIRST + i * STEP) as i32) / ONE as f64);
        bounds.chain([f64::INFINITY]).zip(self.counts.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Counts, Durations, Histogram, Sizes};

    fn check_buckets<const FIRST: u32, const STEP: u32, const BUCKETS: usize, const ONE: u64>(
        with: fn(u64) -> Histogram<FIRST, STEP, BUCKETS, ONE>,
    ) {
        let around = (0..64).flat_map(|k| [(1u64 << k) - 1, 1 << k, (1 << k) + 1]).chain([0, u64::MAX]);
        for value in around {
            let buckets = with(value).exported_buckets();
            let bucket = buckets.iter().position(|(_, count)| *count == 1).unwrap();
            let expected = buckets.iter().position(|(bound, _)| value as f64 <= *bound * ONE as f64).unwrap();
            assert_eq!(bucket, expected, "{value}");
        }
    }

    fn with<const FIRST: u32, const STEP: u32, const BUCKETS: usize, const ONE: u64>(
        value: u64,
    ) -> Histogram<FIRST, STEP, BUCKETS, ONE> {
        let mut histogram = Histogram::default();
        histogram.observe(value);
        histogram
    }

    #[test]
    fn each_value_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        check_buckets(|value| -> Durations { with(value) });
        check_buckets(|value| -> Sizes { with(value) });
        check_buckets(|value| -> Counts { with(value) });
    }

    #[test]
    fn bounds_are_in_the_unit_of_the_metric() {
        let (durations, sizes, counts): (Durations, Sizes, Counts) = (with(0), with(0), with(0));
        assert_eq!(durations.exported_buckets()[0].0, 1.024e-6);
        assert_eq!(durations.exported_buckets()[24].0, 17.179869184);
        assert_eq!(sizes.exported_buckets()[13].0, f64::from(2).powi(32));
        assert_eq!(counts.exported_buckets()[10].0, 1024.0);
    }
}
