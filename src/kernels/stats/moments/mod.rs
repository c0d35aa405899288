//! `stats/moments`: mean, variance, skewness and kurtosis of a sample in one pass.
//!
//! | field | type | |
//! |---|---|---|
//! | `x` | `f64`, `[n]` | the sample, n at least 1 |
//! | out: `mean` | `f64` | `m`, the sum of the `x[i]` over n |
//! | out: `variance` | `f64` | that of the population: `m2`, the mean of `(x[i] - m)^2` |
//! | out: `skewness` | `f64` | the mean of `(x[i] - m)^3`, over `m2^(3/2)` |
//! | out: `kurtosis` | `f64` | the excess: the mean of `(x[i] - m)^4`, over `m2^2`, less 3 |
//!
//! Skewness and kurtosis are NaN where the variance is 0. A NaN or an infinity in the sample makes every output but an
//! infinite mean NaN.
//!
//! Parts of the sample are merged by Chan, Golub and LeVeque, *Updating formulae and a pairwise algorithm for computing
//! sample variances* (1979), and Terriberry, *Computing higher-order moments online* (2007), so a mean of many
//! deviations costs the other outputs no more than its own rounding, and not its square or fourth power. The fourth power
//! of a deviation has to be in the range of `f64`. The order of the merges depends on n alone, and differs between the
//! backends.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::cuda::{Module, device_code};
use crate::kernels::authoring::{reduction, sum};
use crate::service::Buffer;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Moments;

/// The input of `stats/moments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "x": [1.0, 2.0, 3.0, 10.0] }]))]
pub struct MomentsInput {
    /// The sample.
    pub x: Buffer<f64>,
}

/// The output of `stats/moments`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MomentsOutput {
    /// The mean.
    pub mean: f64,
    /// The population variance.
    pub variance: f64,
    /// The skewness.
    pub skewness: f64,
    /// The excess kurtosis.
    pub kurtosis: f64,
}

reduction! {
    impl Kernel for Moments {
        info: KernelInfo::new("stats/moments", "1.0.0", "Mean, variance, skewness and kurtosis of an f64 sample."),
        input: MomentsInput { x },
        output: MomentsOutput { mean, variance, skewness, kurtosis },
        operations: 20,
        state: 5,
        fold: |x: &[f64]| {
            let mean = sum(x, |x| x) / x.len() as f64;
            let power = |exponent: i32| sum(x, |x| (x - mean).powi(exponent));
            [x.len() as f64, mean, power(2), power(3), power(4)]
        },
        merge: merge,
        finish: finish,
        cuda: Module::embedded(device_code!("stats/moments")), "moments_f64",
        reference: reference,
    }
}

/// Merges count, mean, and sums of the second, third and fourth powers of the deviations.
fn merge([a, mean_a, a2, a3, a4]: [f64; 5], [b, mean_b, b2, b3, b4]: [f64; 5]) -> [f64; 5] {
    let count = a + b;
    let delta = mean_b - mean_a;
    let step = delta / count;
    let square = step * step;
    let term = delta * step * a * b;
    let m4 = term * square * (a * a - a * b + b * b)
        + 6.0 * square * (a * a * b2 + b * b * a2)
        + 4.0 * step * (a * b3 - b * a3);
    let m3 = term * step * (a - b) + 3.0 * step * (a * b2 - b * a2);
    [count, mean_a + step * b, a2 + b2 + term, a3 + b3 + m3, a4 + b4 + m4]
}

fn finish([count, mean, m2, m3, m4]: [f64; 5]) -> MomentsOutput {
    let variance = m2 / count;
    let skewness = m3 / count / (variance * variance.sqrt());
    let kurtosis = m4 / count / (variance * variance) - 3.0;
    MomentsOutput { mean, variance, skewness, kurtosis }
}

/// Two passes over the sample with compensated sums, and an error bound for each output.
fn reference(input: &MomentsInput) -> [(f64, f64); 4] {
    let count = input.x.len() as f64;
    let mean_of = |term: &dyn Fn(f64) -> f64| {
        // Neumaier's sum.
        let add = |(sum, low): (f64, f64), &x: &f64| {
            let (x, next) = (term(x), sum + term(x));
            let rest = if sum.abs() >= x.abs() { (sum - next) + x } else { (x - next) + sum };
            (next, low + rest)
        };
        let (sum, low) = input.x.iter().fold((0.0, 0.0), add);
        (sum + low) / count
    };
    let mean = mean_of(&|x| x);
    let [m2, m3, m4] = [2, 3, 4].map(|power| mean_of(&|x| (x - mean).powi(power)));
    let (skewness, kurtosis) = (m3 / (m2 * m2.sqrt()), m4 / (m2 * m2) - 3.0);
    let bound = |scale: f64| 1e-10 * scale;
    [
        (mean, bound(mean.abs() + m2.sqrt())),
        (m2, bound(m2)),
        (skewness, bound(1.0 + skewness.abs())),
        (kurtosis, bound(3.0 + kurtosis.abs())),
    ]
}
