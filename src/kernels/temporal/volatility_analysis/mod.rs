//! `temporal/volatility-analysis`: GARCH(1,1) models of many series of returns, by maximum likelihood.
//!
//! | field | type | |
//! |---|---|---|
//! | `returns` | `f32` or `f64`, `[series * n]` | the returns of one series after those of the other, n at least 10 each |
//! | `num_series` | integer, default 1 | how many series there are; all have the same length |
//! | `mean` | `"constant"` or `"zero"`, default constant | whether the mean of the returns is estimated or 0 |
//! | `forecast_horizon` | integer, default 1, at most 1000 | periods to forecast; 0 for no forecast |
//! | out: `mu` | `f64`, `[series]` | mean, per period; 0 with `"zero"` |
//! | out: `omega`, `alpha`, `beta` | `f64`, `[series]` | see below; omega is in units of squared returns |
//! | out: `persistence` | `f64`, `[series]` | alpha + beta: what remains of a shock to the variance after a period |
//! | out: `log_likelihood` | `f64`, `[series]` | the maximum |
//! | out: `volatility` | `f64`, `[series]` | the square root of the conditional variance of the last return |
//! | out: `forecast` | `f64`, `[series * forecast_horizon]` | the variance of each period after the last, by series |
//! | out: `evaluations` | `u32`, `[series]` | passes over the series that computed the likelihood and its derivatives |
//! | out: `status` | `u8`, `[series]` | see below |
//!
//! The model is Bollerslev, *Generalized autoregressive conditional heteroskedasticity* (1986), with normal
//! innovations:
//!
//! ```text
//! r[t] = mu + e[t]        e[t] ~ N(0, h[t])        h[t] = omega + alpha e[t-1]^2 + beta h[t-1]
//! ```
//!
//! The estimates are those of the Python package `arch`, `arch_model(r, mean=..., vol="GARCH", p=1, q=1)`: the same
//! likelihood, `h[-1]` and `e[-1]^2` are a weighted mean of the first 75 squared deviations (weights 0.94^t), and omega
//! is at least 1e-8 of the sample variance, alpha and beta at least 0, and their sum at most 1. The likelihood can have
//! several maxima. It is searched from five starts of different persistence, `arch` searches from one, so the maximum
//! found here is sometimes the higher one. A search is a Newton iteration with exact derivatives and active constraints
//! (`search.rs`), and the same on the CPU and on CUDA. Returns need not be rescaled: the result of `c r` is that of `r`
//! with omega times c^2 and mu times c.
//!
//! A series fails by itself, and the others are computed. Its `status` says why, and its other outputs are NaN, unless
//! it is 1:
//!
//! | status | meaning |
//! |---|---|
//! | 0 | converged |
//! | 1 | not converged within 200 evaluations; the outputs are the best point found |
//! | 2 | constant: the returns are equal, or their variance is below 1e-154 |
//! | 3 | a return, or the sum of their squares, is not finite |
//!
//! An error names `num_series` where the returns cannot be split into as many series of equal length, `returns` where
//! these are shorter than 10, and `forecast_horizon` where it is too long.
//!
//! A fit takes about 50 passes over the series, of some 60 operations for each return. CPU: as many series at a time as
//! a vector register has lanes, on all threads. CUDA: a thread for each series, so it takes thousands of series to use
//! a GPU, and long series take their time there: a pass waits some 100 ns for each return.

mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod fit;
mod likelihood;
mod normalize;
mod search;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::fit::{Fit, fit_all};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, FloatArray, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext,
};

/// The fewest returns of a series.
pub const MIN_RETURNS: usize = 10;
/// The longest forecast.
pub const MAX_HORIZON: u32 = 1_000;

/// Arithmetic operations of a fit for each return.
const OPERATIONS_PER_RETURN: u64 = 3_000;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct VolatilityAnalysis;

/// The input of `temporal/volatility-analysis`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "returns": [0.8, -1.1, 0.3, 2.4, -2.9, 1.7, -0.4, 0.1, 0.6, -0.2, 0.5, -1.3, 3.1, -2.2, 0.9, 0.4],
    "forecast_horizon": 5,
}]))]
pub struct VolatilityInput {
    /// The returns of all series, one series after the other.
    pub returns: FloatArray,
    /// How many series of equal length there are.
    #[serde(default = "one")]
    pub num_series: u32,
    /// Whether the mean of the returns is estimated.
    #[serde(default)]
    pub mean: Mean,
    /// How many periods to forecast.
    #[serde(default = "one")]
    pub forecast_horizon: u32,
}

fn one() -> u32 {
    1
}

/// The model of the mean of a series.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Mean {
    /// One mean, which is estimated.
    #[default]
    Constant,
    /// A mean of 0.
    Zero,
}

/// The outcome of the fit of one series, as a code in the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// The search converged.
    Converged = 0,
    /// The search did not converge; the outputs are the best point found.
    NotConverged = 1,
    /// The returns are equal.
    Constant = 2,
    /// A return is not finite.
    NotFinite = 3,
}

/// The output of `temporal/volatility-analysis`: an element for each series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VolatilityOutput {
    /// The mean of the returns.
    pub mu: Buffer<f64>,
    /// The constant term of the conditional variance.
    pub omega: Buffer<f64>,
    /// The weight of the last squared residual.
    pub alpha: Buffer<f64>,
    /// The weight of the last conditional variance.
    pub beta: Buffer<f64>,
    /// Alpha + beta.
    pub persistence: Buffer<f64>,
    /// The log-likelihood.
    pub log_likelihood: Buffer<f64>,
    /// The conditional volatility of the last return.
    pub volatility: Buffer<f64>,
    /// The variance of each of the following periods: `forecast_horizon` elements for each series.
    pub forecast: Buffer<f64>,
    /// Evaluations of the likelihood and its derivatives.
    pub evaluations: Buffer<u32>,
    /// 0: converged; 1: not converged; 2: constant returns; 3: returns that are not finite.
    pub status: Buffer<u8>,
}

impl VolatilityInput {
    /// The input for one series, with a constant mean and a forecast of one period.
    pub fn new(returns: impl Into<FloatArray>) -> Self {
        Self { returns: returns.into(), num_series: 1, mean: Mean::Constant, forecast_horizon: 1 }
    }

    /// The length of each series.
    fn series_len(&self) -> usize {
        self.num_returns() / (self.num_series as usize).max(1)
    }

    fn num_returns(&self) -> usize {
        self.returns.array_len().unwrap_or(0)
    }

    /// What the inputs of a shared run have in common.
    fn shared(&self) -> (usize, Mean, u32, bool) {
        (self.series_len(), self.mean, self.forecast_horizon, matches!(self.returns, FloatArray::F32(_)))
    }

    /// The output for the fits of these series.
    fn output(&self, fits: &[Fit]) -> VolatilityOutput {
        let column = |of: fn(&Fit) -> f64| -> Buffer<f64> { fits.iter().map(of).collect() };
        let mut forecast = Vec::with_capacity(fits.len() * self.forecast_horizon as usize);
        for fit in fits {
            let mut variance = fit.next_variance;
            for _ in 0..self.forecast_horizon {
                forecast.push(variance);
                variance = fit.omega + (fit.alpha + fit.beta) * variance;
            }
        }
        VolatilityOutput {
            mu: column(|fit| fit.mu),
            omega: column(|fit| fit.omega),
            alpha: column(|fit| fit.alpha),
            beta: column(|fit| fit.beta),
            persistence: column(|fit| fit.alpha + fit.beta),
            log_likelihood: column(|fit| fit.log_likelihood),
            volatility: column(|fit| fit.last_variance.sqrt()),
            forecast: forecast.into(),
            evaluations: fits.iter().map(|fit| fit.evaluations).collect(),
            status: fits.iter().map(|fit| fit.status as u8).collect(),
        }
    }
}

impl Kernel for VolatilityAnalysis {
    type Input = VolatilityInput;
    type Output = VolatilityOutput;

    fn info(&self) -> KernelInfo {
        let description = "GARCH(1,1) volatility of many series of returns, by maximum likelihood, with forecasts.";
        KernelInfo::new("temporal/volatility-analysis", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &VolatilityInput) -> Result<(), InvalidInput> {
        let Some(returns) = input.returns.array_len() else {
            return Err(InvalidInput::new("returns", "a number where an array of returns is expected"));
        };
        let series = input.num_series as usize;
        if series == 0 || !returns.is_multiple_of(series) {
            let reason = format!("{returns} returns cannot be split into {series} series of equal length");
            return Err(InvalidInput::new("num_series", reason));
        }
        if returns / series < MIN_RETURNS {
            let reason =
                format!("{} returns for each series where at least {MIN_RETURNS} are needed", returns / series);
            return Err(InvalidInput::new("returns", reason));
        }
        if input.forecast_horizon > MAX_HORIZON {
            let reason = format!("{} periods where at most {MAX_HORIZON} are allowed", input.forecast_horizon);
            return Err(InvalidInput::new("forecast_horizon", reason));
        }
        Ok(())
    }

    fn cost(&self, input: &VolatilityInput) -> Cost {
        let returns = input.num_returns() as u64;
        let bytes_per_return = if matches!(input.returns, FloatArray::F32(_)) { 4 } else { 8 };
        Cost {
            bytes: returns.saturating_mul(bytes_per_return).saturating_add(output_bytes(input)),
            operations: returns.saturating_mul(OPERATIONS_PER_RETURN),
            device_memory: returns
                .saturating_mul(bytes_per_return + 8)
                .saturating_add(u64::from(input.num_series).saturating_mul(DEVICE_BYTES_PER_SERIES)),
        }
    }

    fn footprint(&self, input: &VolatilityInput) -> Option<Footprint> {
        let fits = Footprint::of_array::<Fit>(input.num_series.into());
        let group = input.series_len().saturating_mul(likelihood::MAX_LANES);
        let groups = rayon::current_num_threads().min((input.num_series as usize).div_ceil(likelihood::MAX_LANES));
        let interleaved = Footprint::of_array::<f64>((group.saturating_mul(groups)) as u64);
        Some(Footprint { output: output_bytes(input), scratch: fits.saturating_mul(2).saturating_add(interleaved) })
    }

    fn run_cpu(&self, input: &VolatilityInput, context: &RunContext<'_>) -> Result<VolatilityOutput, KernelError> {
        let len = input.series_len();
        let fits = match &input.returns {
            FloatArray::F32(returns) => fit_all(returns, len, input.mean, context)?,
            FloatArray::F64(returns) => fit_all(returns, len, input.mean, context)?,
            FloatArray::One(_) => return Err(InvalidInput::new("returns", "an array is expected").into()),
        };
        Ok(input.output(&fits))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &VolatilityInput, cuda: &mut LaunchContext<'_>) -> Result<VolatilityOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    /// Requests for series of the same length share a run.
    fn batch_key(&self, input: &VolatilityInput) -> Option<BatchKey> {
        Some(BatchKey::hash(input.shared()))
    }

    fn shares_run(&self, first: &VolatilityInput, other: &VolatilityInput) -> bool {
        first.shared() == other.shared()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&VolatilityInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<VolatilityOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let returns: Vec<&FloatArray> = inputs.iter().map(|input| &input.returns).collect();
        let fits = cuda::fit_all(&returns, first.series_len(), first.mean, cuda)?;
        let mut rest = &fits[..];
        let mut outputs = Vec::with_capacity(inputs.len());
        for input in inputs {
            let (own, others) = rest.split_at(input.num_series as usize);
            outputs.push(input.output(own));
            rest = others;
        }
        Ok(outputs)
    }
}

/// Bytes of the arrays on the device that have an element for each series.
const DEVICE_BYTES_PER_SERIES: u64 = 3 * 8 + 7 * 8 + 2 * 4;

/// Bytes of the output's arrays: seven of `f64`, `evaluations`, `status`, and the forecast.
fn output_bytes(input: &VolatilityInput) -> u64 {
    let per_series = 7 * 8 + 4 + 1 + 8 * u64::from(input.forecast_horizon);
    u64::from(input.num_series).saturating_mul(per_series)
}
