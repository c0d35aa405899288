//! Histograms with powers of two as bounds, so that the highest bit of a value determines its bucket.

/// The bounds of a histogram, and the unit in which it is exported.
#[derive(Debug)]
pub(super) struct Bounds {
    /// The bound of bucket `i` is `2^(first + i * step)`.
    first: u32,
    step: u32,
    /// Number of buckets. The bound of the last one is infinite.
    buckets: usize,
    /// The value that is exported as 1.
    one: f64,
}

/// Nanoseconds, exported as seconds, with bounds from 1.024 µs to 17.2 s.
pub(super) static DURATIONS: Bounds = Bounds { first: 10, step: 1, buckets: 26, one: 1e9 };
/// Bytes, with bounds from 64 B to 4 GiB, each four times the one before.
pub(super) static SIZES: Bounds = Bounds { first: 6, step: 2, buckets: 15, one: 1.0 };
/// Numbers of requests, with bounds from 1 to 1 024.
pub(super) static COUNTS: Bounds = Bounds { first: 0, step: 1, buckets: 12, one: 1.0 };
/// Ratios in units of 1/65 536, with bounds from 1/64 to 64.
pub(super) static RATIOS: Bounds = Bounds { first: 10, step: 1, buckets: 14, one: RATIO_ONE as f64 };

/// The value of a ratio of 1 in [`RATIOS`].
pub(super) const RATIO_ONE: u64 = 1 << 16;

impl Bounds {
    /// Returns the first bucket whose bound is not below `value`.
    fn bucket(&self, value: u64) -> usize {
        // The exponent of the smallest power of two that is not below the value.
        let exponent = u64::BITS - value.saturating_sub(1).leading_zeros();
        (exponent.saturating_sub(self.first).div_ceil(self.step) as usize).min(self.buckets - 1)
    }
}

/// A histogram of integers.
#[derive(Debug)]
pub(super) struct Histogram {
    bounds: &'static Bounds,
    /// Values in each bucket. Empty until there is a value, as most histograms stay so.
    counts: Vec<u64>,
    /// Sum of the values. It wraps at 2^64, which is 584 years of nanoseconds.
    sum: u64,
}

impl Histogram {
    pub(super) const fn new(bounds: &'static Bounds) -> Self {
        Self { bounds, counts: Vec::new(), sum: 0 }
    }

    /// Adds a value.
    pub(super) fn observe(&mut self, value: u64) {
        if self.counts.is_empty() {
            self.counts.resize(self.bounds.buckets, 0);
        }
        self.counts[self.bounds.bucket(value)] += 1;
        self.sum = self.sum.wrapping_add(value);
    }

    /// Adds all values of a histogram with the same bounds.
    pub(super) fn add(&mut self, other: &Self) {
        if !other.counts.is_empty() {
            self.counts.resize(self.bounds.buckets, 0);
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
        self.sum as f64 / self.bounds.one
    }

    /// Returns the bounds in the exported unit, each with the number of values in its bucket.
    pub(super) fn exported_buckets(&self) -> Vec<(f64, u64)> {
        let Bounds { first, step, buckets, one } = *self.bounds;
        let bounds = (0..buckets as u32 - 1).map(|i| 2f64.powi((first + i * step) as i32) / one);
        bounds.chain([f64::INFINITY]).zip(self.counts.iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::{Bounds, COUNTS, DURATIONS, Histogram, SIZES};

    fn with(bounds: &'static Bounds, value: u64) -> Vec<(f64, u64)> {
        let mut histogram = Histogram::new(bounds);
        histogram.observe(value);
        histogram.exported_buckets()
    }

    #[test]
    fn each_value_is_in_the_first_bucket_whose_bound_is_not_below_it() {
        for bounds in [&DURATIONS, &SIZES, &COUNTS] {
            let around = (0..64).flat_map(|k| [(1u64 << k) - 1, 1 << k, (1 << k) + 1]).chain([0, u64::MAX]);
            for value in around {
                let buckets = with(bounds, value);
                let bucket = buckets.iter().position(|(_, count)| *count == 1).unwrap();
                let expected = buckets.iter().position(|(bound, _)| value as f64 <= *bound * bounds.one).unwrap();
                assert_eq!(bucket, expected, "{value}");
            }
        }
    }

    #[test]
    fn bounds_are_in_the_unit_of_the_metric() {
        let durations = with(&DURATIONS, 0);
        assert_eq!(durations[0].0, 1.024e-6);
        assert_eq!(durations[24].0, 17.179869184);
        assert_eq!(with(&SIZES, 0)[13].0, f64::from(2).powi(32));
        assert_eq!(with(&COUNTS, 0)[10].0, 1024.0);
    }
}
