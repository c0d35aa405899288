//! Distances of two rows.

use std::f64::consts::LN_2;

use super::Metric;
use super::rows::Row;
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
    pub(super) fn distance(
        self,
        a: Row<'_>,
        b: Row<'_>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<f64, KernelError> {
        let mut sum = 0.0;
        for start in (0..a.values.len()).step_by(INTERVAL) {
            let bins = start..a.values.len().min(start + INTERVAL);
            cancel_check.spend(bins.len())?;
            let values = a.values[bins.clone()].iter().zip(&b.values[bins.clone()]);
            sum += match self {
                Self::Jsd => {
                    let logarithms = a.logarithms[bins.clone()].iter().zip(&b.logarithms[bins]);
                    let terms = values.zip(logarithms);
                    terms.map(|((&p, &q), (&ln_p, &ln_q))| divergence([p, ln_p], [q, ln_q])).sum::<f64>()
                }
                Self::Wasserstein => values.map(|(&p, &q)| (p - q).abs()).sum(),
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

/// What a bin adds to four times the Jensen-Shannon divergence in nats, from its share of each distribution and the
/// logarithm of that: `(p + q) ((1 + d) ln(1 + d) + (1 - d) ln(1 - d))` where `d = |p - q| / (p + q)`. It is not negative,
/// and 0 only if the two are equal. `value_similarity.cu` has the same.
fn divergence([p, ln_p]: [f64; 2], [q, ln_q]: [f64; 2]) -> f64 {
    let (sum, difference) = (p + q, (p - q).abs());
    if difference > SERIES_BOUND * sum {
        // 1 + d and 1 - d are 2 p / sum and 2 q / sum. Both logarithms are of a size that leaves no room for cancellation.
        return 2.0 * (p * ln_p + q * ln_q - sum * (sum.ln() - LN_2));
    }
    if difference == 0.0 {
        return 0.0;
    }
    let d = difference / sum;
    let square = d * d;
    sum * square * SERIES.iter().rev().fold(0.0, |value, coefficient| value * square + coefficient)
}

#[cfg(test)]
mod tests {
    use super::super::rows::logarithm;
    use super::*;
    use crate::service::RunContext;

    #[test]
    fn the_series_continues_the_logarithms() {
        let at = |d: f64| {
            let shares = [0.5 * (1.0 + d), 0.5 * (1.0 - d)];
            let [p, q] = shares.map(|share| [share, share.ln()]);
            divergence(p, q)
        };
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
        let distance = |metric: Metric, a: &[f64], b: &[f64]| {
            let [of_a, of_b] = [a, b].map(|row| row.iter().copied().map(logarithm).collect::<Vec<_>>());
            let (a, b) = (Row { values: a, logarithms: &of_a }, Row { values: b, logarithms: &of_b });
            metric.distance(a, b, &mut CancelCheck::new(&context)).unwrap()
        };
        let (a, b) = ([0.5, 0.5, 0.0], [0.0, 0.25, 0.75]);
        assert_eq!(distance(Metric::Jsd, &a, &a), 0.0);
        assert_eq!(distance(Metric::Jsd, &a, &b), distance(Metric::Jsd, &b, &a));
        assert_eq!(distance(Metric::Jsd, &[1.0, 0.0], &[0.0, 1.0]), 1.0);
        assert_eq!(distance(Metric::Wasserstein, &[0.5, 1.0], &[0.0, 0.25]), 1.25);
        assert_eq!(distance(Metric::Wasserstein, &[], &[]), 0.0);
    }
}
