//! The test's inputs, and a derivative-free maximization of the likelihood as the reference.

use rayon::prelude::*;

use super::{Mean, VolatilityAnalysis, VolatilityInput, VolatilityOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::service::FloatArray;

/// Returns of each series.
const LEN: usize = 500;
/// The most series of an input, which is more than a vector register has lanes: a reference takes some milliseconds for
/// each.
const MOST_SERIES: usize = 9;

impl Cases for VolatilityAnalysis {
    /// Simulated series of models whose parameters are well away from their bounds.
    fn case(&self, size: usize, random: &mut Random) -> Option<VolatilityInput> {
        if size == 0 || size > 1_000 {
            return None;
        }
        let series = size.min(MOST_SERIES);
        let returns: Vec<f64> = (0..series).flat_map(|_| simulate(random)).collect();
        let mean = if random.below(2) == 0 { Mean::Constant } else { Mean::Zero };
        Some(VolatilityInput { num_series: series as u32, mean, forecast_horizon: 3, returns: returns.into() })
    }

    fn share(&self, input: &mut VolatilityInput, with: &VolatilityInput) {
        input.mean = with.mean;
    }

    fn put_nan(&self, input: &mut VolatilityInput, row: usize) {
        let series = row % input.num_series as usize;
        if let FloatArray::F64(returns) = &mut input.returns {
            returns[series * LEN + 17] = f64::NAN;
        }
    }

    fn reference(&self, input: &VolatilityInput) -> Vec<Expected> {
        let FloatArray::F64(returns) = &input.returns else { unreachable!("cases are in double precision") };
        let has_mean = input.mean == Mean::Constant;
        let fits: Vec<Option<Model>> = returns.par_chunks(LEN).map(|series| Model::fit(series, has_mean)).collect();
        let column = |name, of: &dyn Fn(&Model) -> (f64, f64)| Expected {
            name,
            values: fits.iter().map(|fit| fit.as_ref().map_or((f64::NAN, 0.0), of)).collect(),
        };
        let relative = |value: f64, bound: f64| (value, bound * value.abs());
        let mut columns = vec![
            column("mu", &|model| (model.mu, 1e-4 * model.variances[0].sqrt())),
            column("omega", &|model| relative(model.omega, 2e-3)),
            column("alpha", &|model| (model.alpha, 1e-4)),
            column("beta", &|model| (model.beta, 3e-4)),
            column("log_likelihood", &|model| relative(model.log_likelihood, 1e-8)),
            column("volatility", &|model| relative(model.volatility, 3e-4)),
        ];
        let forecasts = fits.iter().flat_map(|fit| match fit {
            Some(model) => model.variances.map(|variance| relative(variance, 1e-3)),
            None => [(f64::NAN, 0.0); 3],
        });
        columns.push(Expected { name: "forecast", values: forecasts.collect() });
        let status = fits.iter().map(|fit| (if fit.is_some() { 0.0 } else { 3.0 }, 0.0));
        columns.push(Expected { name: "status", values: status.collect() });
        columns
    }

    fn values(&self, output: &VolatilityOutput) -> Vec<Vec<f64>> {
        let VolatilityOutput { mu, omega, alpha, beta, log_likelihood, volatility, forecast, status, .. } = output;
        let status = status.iter().map(|&code| code.into()).collect();
        let floats = [mu, omega, alpha, beta, log_likelihood, volatility, forecast];
        floats.into_iter().map(|column| column.to_vec()).chain([status]).collect()
    }
}

/// A series of a random GARCH model.
fn simulate(random: &mut Random) -> Vec<f64> {
    let (alpha, scale, mu) = (random.between(0.2, 0.35), random.number(), random.between(-0.2, 0.2));
    let beta = random.between(0.5, 0.6);
    let (mut variance, mut square) = (1.0, 1.0);
    (0..LEN)
        .map(|_| {
            variance = 1.0 - alpha - beta + alpha * square + beta * variance;
            // Box and Muller.
            let radius = (-2.0 * random.between(1e-300, 1.0).ln()).sqrt();
            let residual = f64::sqrt(variance) * radius * random.between(0.0, std::f64::consts::TAU).cos();
            square = residual * residual;
            scale * (mu + residual)
        })
        .collect()
}

/// A fitted model.
struct Model {
    mu: f64,
    omega: f64,
    alpha: f64,
    beta: f64,
    log_likelihood: f64,
    volatility: f64,
    variances: [f64; 3],
}

impl Model {
    /// By the method of Nelder and Mead, *A simplex method for function minimization* (1965), begun anew until it
    /// stays, from several points, as there may be several maxima.
    fn fit(series: &[f64], has_mean: bool) -> Option<Self> {
        if series.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let count = series.len() as f64;
        let mean = if has_mean { series.iter().sum::<f64>() / count } else { 0.0 };
        let variance = series.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        let weights = (0..75).map(|time| 0.94_f64.powi(time));
        let weighted: f64 = weights.clone().zip(series).map(|(weight, value)| weight * (value - mean).powi(2)).sum();
        let backcast = weighted / weights.sum::<f64>();

        // Omega in units of the variance, mu in those of its root, from the mean.
        let model = |point: &[f64; 4]| (mean + point[3] * variance.sqrt(), point[0] * variance, point[1], point[2]);
        let likelihood = |point: &[f64; 4]| {
            let (mu, omega, alpha, beta) = model(point);
            let is_feasible = point[0] >= 1e-8 && alpha >= 0.0 && beta >= 0.0 && alpha + beta <= 1.0;
            if is_feasible { path(series, mu, omega, alpha, beta, backcast).0 } else { f64::NEG_INFINITY }
        };
        let refine = |start: [f64; 4]| {
            (0..5).fold((start, 0.05), |(best, size), _| (nelder_mead(best, size, has_mean, &likelihood), 0.1 * size)).0
        };
        let starts = [[0.2, 0.2, 0.6, 0.0], [0.05, 0.1, 0.85, 0.0], [0.02, 0.02, 0.96, 0.0]];
        let best = starts.map(refine).into_iter().max_by(|a, b| likelihood(a).total_cmp(&likelihood(b)))?;
        let (mu, omega, alpha, beta) = model(&best);
        let (log_likelihood, last, square) = path(series, mu, omega, alpha, beta, backcast);
        let first = omega + alpha * square + beta * last;
        let second = omega + (alpha + beta) * first;
        let variances = [first, second, omega + (alpha + beta) * second];
        Some(Self { mu, omega, alpha, beta, log_likelihood, volatility: last.sqrt(), variances })
    }
}

/// The log-likelihood, the last variance, and the last squared residual.
fn path(series: &[f64], mu: f64, omega: f64, alpha: f64, beta: f64, backcast: f64) -> (f64, f64, f64) {
    let (mut variance, mut square, mut sum) = (backcast, backcast, 0.0);
    for value in series {
        variance = omega + alpha * square + beta * variance;
        square = (value - mu).powi(2);
        sum -= 0.5 * ((std::f64::consts::TAU * variance).ln() + square / variance);
    }
    (sum, variance, square)
}

fn nelder_mead(start: [f64; 4], size: f64, has_mean: bool, of: &dyn Fn(&[f64; 4]) -> f64) -> [f64; 4] {
    let unknowns = if has_mean { 4 } else { 3 };
    let mut simplex: Vec<([f64; 4], f64)> = (0..=unknowns)
        .map(|corner| {
            let mut point = start;
            if corner > 0 {
                point[corner - 1] -= size * point[corner - 1].abs().max(0.05);
            }
            (point, of(&point))
        })
        .collect();
    for _ in 0..150 {
        simplex.sort_by(|a, b| b.1.total_cmp(&a.1));
        let worst = simplex[unknowns];
        let middle: [f64; 4] = std::array::from_fn(|axis| {
            simplex[..unknowns].iter().map(|(point, _)| point[axis]).sum::<f64>() / unknowns as f64
        });
        let along = |factor: f64| {
            let point = std::array::from_fn(|axis| middle[axis] + factor * (middle[axis] - worst.0[axis]));
            (point, of(&point))
        };
        let reflected = along(1.0);
        if reflected.1 > simplex[0].1 {
            let expanded = along(2.0);
            simplex[unknowns] = if expanded.1 > reflected.1 { expanded } else { reflected };
        } else if reflected.1 > simplex[unknowns - 1].1 {
            simplex[unknowns] = reflected;
        } else {
            let contracted = if reflected.1 > worst.1 { along(0.5) } else { along(-0.5) };
            if contracted.1 > worst.1.max(reflected.1) {
                simplex[unknowns] = contracted;
            } else {
                let best = simplex[0].0;
                for (point, value) in &mut simplex[1..] {
                    *point = std::array::from_fn(|axis| 0.5 * (point[axis] + best[axis]));
                    *value = of(point);
                }
            }
        }
    }
    simplex.sort_by(|a, b| b.1.total_cmp(&a.1));
    simplex[0].0
}
