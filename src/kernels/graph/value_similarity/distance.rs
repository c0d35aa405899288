//! Distances of two rows.

use std::f64::consts::LN_2;

use super::Metric;
use crate::kernels::graph::cancel_check::{CancelCheck, INTERVAL};
use crate::service::KernelError;

/// Below this relative difference of two bins a series is used.
const SERIES_BOUND: f64 = 0.25;
/// `1 / (k (2 k - 1))` for k from 1: twelve terms are exact to half a unit in the last place at [`SERIES_BOUND`].
const SERIES: [f64; 12] = {
    let mut coefficients = [0.0; 12];
    let mut k = 1;
    while k <= coefficients.len() {
        coefficients[k - 1] = 1.0 / (k * (2 * k - 1)) as f64;
        k += 1;
    }
    coefficients
};

impl Metric {
    /// The distance of two rows.
    ///
    /// # Errors
    /// Those of the check, which is made as often as it takes.
    pub(super) fn distance(self, a: &[f64], b: &[f64], cancel_check: &mut CancelCheck<'_>) -> Result<f64, KernelError> {
        let mut sum = 0.0;
        for (a, b) in a.chunks(INTERVAL).zip(b.chunks(INTERVAL)) {
            cancel_check.spend(a.len())?;
            let bins = a.iter().zip(b);
            sum += match self {
                Self::Jsd => bins.map(|(&p, &q)| divergence(p, q)).sum::<f64>(),
                Self::Wasserstein => bins.map(|(&p, &q)| (p - q).abs()).sum(),
            };
        }
        Ok(self.distance_of_sum(sum))
    }

    /// The distance that follows from the sum over all bins.
    fn distance_of_sum(self, sum: f64) -> f64 {
        match self {
            // A quarter for two halves; from nats to bits. Rounding may lead beyond 1.
            Self::Jsd => (sum / (4.0 * LN_2)).sqrt().min(1.0),
            Self::Wasserstein => sum,
        }
    }

    /// The similarity at a distance, which falls with the distance from 1.
    pub(super) fn similarity(self, distance: f64) -> f64 {
        match self {
            Self::Jsd => 1.0 - distance,
            Self::Wasserstein => 1.0 / (1.0 + distance),
        }
    }
}

/// What a bin adds to four times the Jensen-Shannon divergence in nats: `(p + q) ((1 + d) ln(1 + d) + (1 - d) ln(1 - d))`
/// where `d = (p - q) / (p + q)`. It is not negative, and 0 only if the two are equal. `value_similarity.cu` has the same.
fn divergence(p: f64, q: f64) -> f64 {
    let sum = p + q;
    if sum == 0.0 {
        return 0.0;
    }
    let d = (p - q).abs() / sum;
    if d <= SERIES_BOUND {
        let square = d * d;
        return sum * square * SERIES.iter().rev().fold(0.0, |value, coefficient| value * square + coefficient);
    }
    // Where one is 0 the limit of its term is 0.
    let (more, less) = (1.0 + d, 1.0 - d);
    let of_less = if less > 0.0 { less * less.ln() } else { 0.0 };
    sum * (more * more.ln() + of_less)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::RunContext;

    #[test]
    fn the_series_continues_the_logarithms() {
        let at = |d: f64| divergence(0.5 * (1.0 + d), 0.5 * (1.0 - d));
        for d in [SERIES_BOUND * 0.999_999, SERIES_BOUND * 1.000_001, 0.1, 0.01] {
            let direct = (1.0 + d) * d.ln_1p() + (1.0 - d) * (-d).ln_1p();
            assert!((at(d) - direct).abs() < 1e-15, "{d}: {} {direct}", at(d));
        }
        // Of the first order in small differences, to full precision.
        assert!((at(1e-9) / 1e-18 - 1.0).abs() < 1e-7);
    }

    #[test]
    fn distances_are_symmetric_and_bounded() {
        let context = RunContext::detached();
        let distance =
            |metric: Metric, a: &[f64], b: &[f64]| metric.distance(a, b, &mut CancelCheck::new(&context)).unwrap();
        let (a, b) = ([0.5, 0.5, 0.0], [0.0, 0.25, 0.75]);
        assert_eq!(distance(Metric::Jsd, &a, &a), 0.0);
        assert_eq!(distance(Metric::Jsd, &a, &b), distance(Metric::Jsd, &b, &a));
        assert_eq!(distance(Metric::Jsd, &[1.0, 0.0], &[0.0, 1.0]), 1.0);
        assert_eq!(distance(Metric::Wasserstein, &[0.5, 1.0], &[0.0, 0.25]), 1.25);
        assert_eq!(distance(Metric::Wasserstein, &[], &[]), 0.0);
    }
}
