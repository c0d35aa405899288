//! `risk/monte-carlo-var`: value at risk and expected shortfall of a book by Monte Carlo simulation.
//!
//! | field | type | |
//! |---|---|---|
//! | `values` | `f64`, `[d]` | money that the book gains per 1.0 of each factor's return; d from 1 to 4096 |
//! | `volatilities` | `f64`, `[d]` | standard deviation of each factor's return per period, 0 or more |
//! | `expected_returns` | `f64`, `[d]`, default 0 | mean of each factor's return per period |
//! | `cholesky` | `f64`, `[d * d]`, default the identity | Cholesky factor of the correlations, by rows, each of length 1 to 1e-6 |
//! | `gammas` | `f64`, `[d]`, default 0 | second derivative of the book's value by each factor's return; d at most 256 |
//! | `holding_period` | integer, default 1 | periods |
//! | `confidence_levels` | `f64`, `[k]`, default `[0.99]` | at least 0.5 and below 1; k at most 16 |
//! | `num_scenarios` | integer | from 100 to 10^9; the losses beyond each level have to be at least one scenario |
//! | `seed` | integer, default 0 | the key of the generator |
//! | out: `value_at_risk` | `f64`, `[k]` | money, positive for a loss |
//! | out: `expected_shortfall` | `f64`, `[k]` | money |
//! | out: `value_at_risk_error`, `expected_shortfall_error` | `f64`, `[k]` | standard errors |
//! | out: `mean`, `mean_error`, `standard_deviation` | `f64` | of the profit and loss |
//!
//! The returns of a scenario are normal, `r = h m + sqrt(h) D L z`, with `m` the expected returns, `h` the holding
//! period, `D` the volatilities, `L` the Cholesky factor and `z` independent standard normal numbers. The profit and
//! loss is `sum of (values[i] r[i] + gammas[i] r[i]^2 / 2)`: linear, or with gammas the delta-gamma approximation of a
//! book with options, whose gamma by return is that by price times the price squared. It is not a full revaluation,
//! which long horizons and options near expiry need.
//!
//! With losses in ascending order, `value_at_risk` is the one of rank `ceil(level * n)`, counted from 1: an exact order
//! statistic. `expected_shortfall` is `VaR + mean of max(loss - VaR, 0) / (1 - level)` (Rockafellar and Uryasev,
//! *Optimization of conditional value-at-risk*, 2000). The standard error of the first is half the distance of the
//! order statistics `sqrt(n level (1 - level))` ranks below and above it; that of the second is the deviation of
//! `max(loss - VaR, 0)` over `(1 - level) sqrt(n)`.
//!
//! Numbers are those of Philox 4x32-10 with `seed` as the key: word `j % 4` of the counter `[scenario, scenario >> 32,
//! j / 4, 0]` belongs to factor j, and pairs of words give normal numbers by Box and Muller. So a scenario is the same
//! on any number of threads, and, but for rounding, on the CPU and on CUDA. With gammas, `z` is relative to the
//! eigenvectors of the book's quadratic form (`book.rs`). Losses are computed and stored in single precision: 4 bytes
//! for each scenario, and a relative error of about 1e-6. A book whose losses are beyond its range of 3e38 is rejected.
//!
//! Errors name the field, and the element of an array. A run takes `n d` operations of some 40 instructions each.

mod book;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod philox;
mod select;
mod simulate;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::book::Book;
use self::select::{Level, select};
use self::simulate::HostLosses;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

/// The most factors of a book.
pub const MAX_FACTORS: usize = 4_096;
/// The most factors of a book with gammas.
pub const MAX_FACTORS_WITH_GAMMAS: usize = 256;
/// The fewest scenarios.
pub const MIN_SCENARIOS: u64 = 100;
/// The most scenarios.
pub const MAX_SCENARIOS: u64 = 1_000_000_000;
/// The most confidence levels.
pub const MAX_LEVELS: usize = 16;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct MonteCarloVar;

/// The input of `risk/monte-carlo-var`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "values": [1000000.0, 500000.0], "volatilities": [0.012, 0.02], "cholesky": [1.0, 0.0, 0.6, 0.8],
    "confidence_levels": [0.95, 0.99], "num_scenarios": 10000,
}]))]
pub struct MonteCarloVarInput {
    /// Money that the book gains per 1.0 of each factor's return.
    pub values: Buffer<f64>,
    /// Standard deviation of each factor's return per period.
    pub volatilities: Buffer<f64>,
    /// Mean of each factor's return per period; 0 where it is left out.
    #[serde(default)]
    pub expected_returns: Option<Buffer<f64>>,
    /// The lower triangular Cholesky factor of the correlation matrix, by rows; independent factors where it is left
    /// out.
    #[serde(default)]
    pub cholesky: Option<Buffer<f64>>,
    /// Second derivative of the book's value by each factor's return; 0 where it is left out.
    #[serde(default)]
    pub gammas: Option<Buffer<f64>>,
    /// Periods for which the book is held.
    #[serde(default = "one")]
    pub holding_period: u32,
    /// Confidence levels, such as 0.99.
    #[serde(default = "level_of_99_percent")]
    pub confidence_levels: Buffer<f64>,
    /// How many scenarios to simulate.
    pub num_scenarios: u64,
    /// The key of the random number generator.
    #[serde(default)]
    pub seed: u64,
}

fn one() -> u32 {
    1
}

fn level_of_99_percent() -> Buffer<f64> {
    vec![0.99].into()
}

/// The output of `risk/monte-carlo-var`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MonteCarloVarOutput {
    /// The value at risk at each confidence level, positive for a loss.
    pub value_at_risk: Buffer<f64>,
    /// The expected shortfall at each confidence level.
    pub expected_shortfall: Buffer<f64>,
    /// The standard error of each value at risk.
    pub value_at_risk_error: Buffer<f64>,
    /// The standard error of each expected shortfall.
    pub expected_shortfall_error: Buffer<f64>,
    /// The mean of the profit and loss.
    pub mean: f64,
    /// The standard error of the mean.
    pub mean_error: f64,
    /// The standard deviation of the profit and loss.
    pub standard_deviation: f64,
}

/// The losses of all scenarios, in the memory of the host or of a device.
trait Losses {
    /// The counts of a level of [`select`].
    fn count(&mut self, level: &Level) -> Result<Vec<u32>, KernelError>;

    /// The sums of `loss - origin` and of its square; with `only_above`, of `max(loss - origin, 0)`.
    fn sums(&mut self, origin: f64, only_above: bool) -> Result<[f64; 2], KernelError>;
}

impl MonteCarloVarInput {
    /// A linear book of independent factors, at a confidence level of 99 %.
    pub fn new(values: impl Into<Buffer<f64>>, volatilities: impl Into<Buffer<f64>>, num_scenarios: u64) -> Self {
        Self {
            values: values.into(),
            volatilities: volatilities.into(),
            expected_returns: None,
            cholesky: None,
            gammas: None,
            holding_period: 1,
            confidence_levels: level_of_99_percent(),
            num_scenarios,
            seed: 0,
        }
    }

    fn validate(&self) -> Result<(), InvalidInput> {
        let factors = self.values.len();
        let most = if self.gammas.is_some() { MAX_FACTORS_WITH_GAMMAS } else { MAX_FACTORS };
        if !(1..=most).contains(&factors) {
            return Err(InvalidInput::new("values", format!("{factors} factors where 1 to {most} are expected")));
        }
        check("values", &self.values, factors, f64::is_finite, "a finite number")?;
        let is_volatility = |value: f64| value >= 0.0 && value.is_finite();
        check("volatilities", &self.volatilities, factors, is_volatility, "a finite number of 0 or more")?;
        if let Some(returns) = &self.expected_returns {
            check("expected_returns", returns, factors, f64::is_finite, "a finite number")?;
        }
        if let Some(gammas) = &self.gammas {
            check("gammas", gammas, factors, f64::is_finite, "a finite number")?;
        }
        if let Some(cholesky) = &self.cholesky {
            check("cholesky", cholesky, factors * factors, f64::is_finite, "a finite number")?;
            check_factor(cholesky, factors)?;
        }
        if self.holding_period == 0 {
            return Err(InvalidInput::new("holding_period", "0 where 1 or more is expected"));
        }
        if !(MIN_SCENARIOS..=MAX_SCENARIOS).contains(&self.num_scenarios) {
            let reason = format!("{} where {MIN_SCENARIOS} to {MAX_SCENARIOS} are expected", self.num_scenarios);
            return Err(InvalidInput::new("num_scenarios", reason));
        }
        let levels = self.confidence_levels.len();
        if !(1..=MAX_LEVELS).contains(&levels) {
            let reason = format!("{levels} levels where 1 to {MAX_LEVELS} are expected");
            return Err(InvalidInput::new("confidence_levels", reason));
        }
        let is_level = |level: f64| level >= 0.5 && (1.0 - level) * self.num_scenarios as f64 >= 1.0;
        let expected = "a level of at least 0.5 with a scenario beyond it";
        check("confidence_levels", &self.confidence_levels, levels, is_level, expected)
    }

    /// Summarizes the losses of all scenarios. `expected_loss` is an origin near their mean.
    fn summarize(&self, losses: &mut impl Losses, expected_loss: f64) -> Result<MonteCarloVarOutput, KernelError> {
        let count = self.num_scenarios as f64;
        let last = self.num_scenarios - 1;
        let ranks: Vec<u64> = self
            .confidence_levels
            .iter()
            .flat_map(|level| {
                let rank = (level * count).ceil() as u64 - 1;
                let spread = (count * level * (1.0 - level)).sqrt().ceil() as u64;
                [rank.min(last), rank.saturating_sub(spread), (rank + spread).min(last)]
            })
            .collect();
        let found = select(&ranks, |level| losses.count(level))?;
        let [sum, squares] = losses.sums(expected_loss, false)?;
        let variance = ((squares - sum * sum / count) / (count - 1.0)).max(0.0);
        let mut columns: [Vec<f64>; 4] = Default::default();
        for (index, level) in self.confidence_levels.iter().enumerate() {
            let [at, below, above] = [0, 1, 2].map(|offset| f64::from(found[3 * index + offset]));
            let [excess, squares] = losses.sums(at, true)?;
            let mean_excess = excess / count;
            let deviation = (squares / count - mean_excess * mean_excess).max(0.0).sqrt();
            columns[0].push(at);
            columns[1].push(at + mean_excess / (1.0 - level));
            columns[2].push((above - below) / 2.0);
            columns[3].push(deviation / ((1.0 - level) * count.sqrt()));
        }
        let [value_at_risk, expected_shortfall, value_at_risk_error, expected_shortfall_error] =
            columns.map(Buffer::from);
        Ok(MonteCarloVarOutput {
            value_at_risk,
            expected_shortfall,
            value_at_risk_error,
            expected_shortfall_error,
            mean: -(expected_loss + sum / count),
            mean_error: (variance / count).sqrt(),
            standard_deviation: variance.sqrt(),
        })
    }
}

/// Checks the length and the elements of an array.
fn check(
    field: &str,
    array: &[f64],
    len: usize,
    holds: impl Fn(f64) -> bool,
    expected: &str,
) -> Result<(), InvalidInput> {
    if array.len() != len {
        return Err(InvalidInput::new(field, format!("{} elements where {len} are expected", array.len())));
    }
    match array.iter().position(|&value| !holds(value)) {
        None => Ok(()),
        Some(index) => {
            let reason = format!("{:?} where {expected} is expected", array[index]);
            Err(InvalidInput::new(format!("{field}[{index}]"), reason))
        }
    }
}

/// Checks that a matrix is the Cholesky factor of a correlation matrix.
fn check_factor(cholesky: &[f64], size: usize) -> Result<(), InvalidInput> {
    for (row, entries) in cholesky.chunks(size).enumerate() {
        if let Some(column) = entries[row + 1..].iter().position(|&entry| entry != 0.0) {
            let field = format!("cholesky[{}]", row * size + row + 1 + column);
            return Err(InvalidInput::new(field, "not 0, above the diagonal of a lower triangular matrix"));
        }
        let square: f64 = entries.iter().map(|entry| entry * entry).sum();
        if (square - 1.0).abs() > 1e-6 {
            let reason =
                format!("the squares of row {row} add up to {square}, and a correlation matrix has 1 on its diagonal");
            return Err(InvalidInput::new(format!("cholesky[{}]", row * size), reason));
        }
    }
    Ok(())
}

impl Kernel for MonteCarloVar {
    type Input = MonteCarloVarInput;
    type Output = MonteCarloVarOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Value at risk and expected shortfall of a linear or delta-gamma book, by Monte Carlo simulation.";
        KernelInfo::new("risk/monte-carlo-var", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &MonteCarloVarInput) -> Result<(), InvalidInput> {
        input.validate()
    }

    fn cost(&self, input: &MonteCarloVarInput) -> Cost {
        let factors = input.values.len() as u64;
        let passes = 4 + input.confidence_levels.len().min(MAX_LEVELS) as u64;
        let losses = input.num_scenarios.saturating_mul(4);
        let matrix = factors.saturating_mul(factors);
        let rotation = if input.gammas.is_some() { matrix.saturating_mul(factors).saturating_mul(60) } else { 0 };
        Cost {
            bytes: losses.saturating_mul(passes).saturating_add(matrix.saturating_mul(8)),
            operations: input.num_scenarios.saturating_mul(factors).saturating_mul(40).saturating_add(rotation),
            device_memory: losses.saturating_add(DEVICE_BYTES),
        }
    }

    fn footprint(&self, input: &MonteCarloVarInput) -> Option<Footprint> {
        let levels = input.confidence_levels.len() as u64;
        let factors = input.values.len() as u64;
        let form = if input.gammas.is_some() { factors.saturating_mul(factors).saturating_mul(8) } else { 0 };
        Some(Footprint {
            output: levels.saturating_mul(4 * 8).saturating_add(3 * 8),
            scratch: input.num_scenarios.saturating_mul(4).saturating_add(form).saturating_add(1 << 20),
        })
    }

    fn run_cpu(
        &self,
        input: &MonteCarloVarInput,
        context: &RunContext<'_>,
    ) -> Result<MonteCarloVarOutput, KernelError> {
        let book = Book::new(input, context)?;
        let mut losses = HostLosses::simulate(&book, input.seed, input.num_scenarios as usize, context)?;
        input.summarize(&mut losses, book.expected_loss())
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &MonteCarloVarInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<MonteCarloVarOutput, KernelError> {
        let book = Book::new(input, cuda.context())?;
        let mut losses = cuda::DeviceLosses::simulate(&book, input.seed, input.num_scenarios, cuda)?;
        input.summarize(&mut losses, book.expected_loss())
    }
}

/// Device memory beside the losses: counts and sums of parts.
const DEVICE_BYTES: u64 = 1 << 20;
