//! The test's inputs: linear books, whose profit and loss is normal with known moments.

use super::{MonteCarloVar, MonteCarloVarInput, MonteCarloVarOutput};
use crate::kernels::authoring::{Cases, Expected, Random};

/// Confidence levels, and the quantile and the density of the normal distribution there.
const LEVELS: [(f64, f64, f64); 2] = [
    (0.95, 1.644_853_626_951_472_7, 0.103_135_640_375_370_2),
    (0.99, 2.326_347_874_040_840_8, 0.026_652_142_203_457_8),
];
const SCENARIOS: u64 = 20_000;
/// The most factors of an input.
const MOST_FACTORS: usize = 40;

impl Cases for MonteCarloVar {
    fn case(&self, size: usize, random: &mut Random) -> Option<MonteCarloVarInput> {
        if size == 0 || size > 1_000 {
            return None;
        }
        let factors = size.min(MOST_FACTORS);
        let mut between = |low, high| -> Vec<f64> { (0..factors).map(|_| random.between(low, high)).collect() };
        let (values, volatilities, returns) = (between(-1e3, 1e3), between(0.0, 0.1), between(-0.01, 0.01));
        let mut cholesky = vec![0.0; factors * factors];
        for (row, entries) in cholesky.chunks_mut(factors).enumerate() {
            entries[..=row].fill_with(|| random.between(-1.0, 1.0));
            entries[row] += 1.0;
            let length = entries.iter().map(|entry| entry * entry).sum::<f64>().sqrt();
            entries.iter_mut().for_each(|entry| *entry /= length);
        }
        Some(MonteCarloVarInput {
            expected_returns: Some(returns.into()),
            cholesky: Some(cholesky.into()),
            holding_period: 1 + random.below(10) as u32,
            confidence_levels: LEVELS.map(|(level, ..)| level).to_vec().into(),
            seed: random.word(),
            ..MonteCarloVarInput::new(values, volatilities, SCENARIOS)
        })
    }

    fn share(&self, _: &mut MonteCarloVarInput, _: &MonteCarloVarInput) {}

    fn put_nan(&self, input: &mut MonteCarloVarInput, row: usize) {
        let factors = input.values.len();
        input.values[row % factors] = f64::NAN;
    }

    /// Within five standard errors, which are known as well.
    fn reference(&self, input: &MonteCarloVarInput) -> Vec<Expected> {
        let (factors, periods) = (input.values.len(), f64::from(input.holding_period));
        let exposure = |index: usize| input.values[index] * input.volatilities[index];
        let correlation = |a: usize, b: usize| -> f64 {
            let Some(cholesky) = &input.cholesky else { return f64::from(u8::from(a == b)) };
            (0..factors).map(|column| cholesky[a * factors + column] * cholesky[b * factors + column]).sum()
        };
        let pairs = (0..factors).flat_map(|a| (0..factors).map(move |b| (a, b)));
        let variance: f64 = pairs.map(|(a, b)| exposure(a) * exposure(b) * correlation(a, b)).sum();
        let deviation = (variance * periods).sqrt();
        let returns = input.expected_returns.as_deref().unwrap_or_default();
        let mean = periods * input.values.iter().zip(returns).map(|(value, mean)| value * mean).sum::<f64>();
        let root = (SCENARIOS as f64).sqrt();
        let error = |level: f64, density: f64| 5.0 * deviation * (level * (1.0 - level)).sqrt() / (density * root);
        let quantile =
            |(level, quantile, density): (f64, f64, f64)| (deviation * quantile - mean, error(level, density));
        let tail = |(level, _, density): (f64, f64, f64)| {
            (deviation * density / (1.0 - level) - mean, 1.5 * error(level, density))
        };
        vec![
            Expected { name: "value_at_risk", values: LEVELS.map(quantile).to_vec() },
            Expected { name: "expected_shortfall", values: LEVELS.map(tail).to_vec() },
            Expected { name: "mean", values: vec![(mean, 5.0 * deviation / root)] },
            Expected { name: "standard_deviation", values: vec![(deviation, 5.0 * deviation / root)] },
        ]
    }

    fn values(&self, output: &MonteCarloVarOutput) -> Vec<Vec<f64>> {
        let MonteCarloVarOutput { value_at_risk, expected_shortfall, mean, standard_deviation, .. } = output;
        vec![value_at_risk.to_vec(), expected_shortfall.to_vec(), vec![*mean], vec![*standard_deviation]]
    }
}
