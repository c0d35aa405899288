//! `risk/option-pricing`: price and sensitivities of European options, each contract on its own.
//!
//! | field | type | unit |
//! |---|---|---|
//! | `spot` | real | money, above 0 |
//! | `strike` | real | money, above 0 |
//! | `rate` | real | per year, continuous: 0.05 is 5 % |
//! | `volatility` | real | per year, 0 or more |
//! | `time` | real | years to expiry, 0 or more |
//! | `dividend_yield` | real, default 0 | per year, continuous |
//! | `kind` | `"call"`, `"put"`, or one for each contract | as a tensor: the `uint8` text, or `uint8`, `[n]`, 0 for a call and 1 for a put |
//! | `precision` | `"f32"` or `"f64"` | default: `f32` where all arrays are `float32` tensors, else `f64` |
//! | out: `price`, `delta`, `gamma`, `vega`, `theta`, `rho` | `[n]` | see [`black_scholes`](super::black_scholes) |
//!
//! A *real* is an array with a value for each contract, or one number for all of them ([`FloatArray`]). All arrays have the
//! same length. Values are finite, and neither `rate * time` nor `dividend_yield * time` may exceed 300 in size (30 in
//! single precision), where discounting leaves the range of numbers. Subnormal prices, below 2.3e-308 (1.2e-38 in single
//! precision), are rejected as 0 is: they have too few digits for the tolerance below. Errors name the field and the
//! index.
//!
//! The formulas, their limits at `time` 0 or `volatility` 0, and their papers are in
//! [`black_scholes`](super::black_scholes). Double precision is within 1e-12 of the true value, on the scale of the
//! larger of spot and strike, single precision within 1e-5.

#[cfg(feature = "cuda")]
mod cuda;

use std::borrow::Cow;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::black_scholes::{Contracts, Operand, OptionKind, Quotes, Real, quote};
use super::kinds::Kinds;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Element, FloatArray, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionPricing;

/// The input of `risk/option-pricing`: each field is one number for all contracts, or an array with one for each.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "spot": [95.0, 100.0, 105.0], "strike": 100.0, "rate": 0.05, "volatility": 0.2, "time": 1.0, "kind": "call",
}]))]
pub struct OptionPricingInput {
    /// The asset's price, above 0.
    pub spot: FloatArray,
    /// The price of exercising, above 0.
    pub strike: FloatArray,
    /// Risk-free rate per year, continuous.
    pub rate: FloatArray,
    /// Volatility of the asset per year, 0 or more.
    pub volatility: FloatArray,
    /// Years to expiry, 0 or more.
    pub time: FloatArray,
    /// Dividend yield of the asset per year, continuous.
    #[serde(default)]
    pub dividend_yield: FloatArray,
    /// Call or put.
    pub kind: Kinds,
    /// Precision of the computation and its output.
    #[serde(default)]
    pub precision: Option<Precision>,
}

/// The output of `risk/option-pricing`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct OptionPricingOutput {
    /// Value of the option.
    pub price: FloatArray,
    /// Derivative by spot.
    pub delta: FloatArray,
    /// Second derivative by spot.
    pub gamma: FloatArray,
    /// Derivative by volatility, per 1.0.
    pub vega: FloatArray,
    /// Derivative by the time that passes, per year.
    pub theta: FloatArray,
    /// Derivative by rate, per 1.0.
    pub rho: FloatArray,
}

/// Precision of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
}

impl OptionPricingInput {
    /// How many contracts there are: the length of the arrays, or 1 where there is none.
    pub fn contracts(&self) -> usize {
        let lengths = self.reals().map(|(_, values)| values.array_len());
        lengths.into_iter().flatten().next().or(self.kind.array_len()).unwrap_or(1)
    }

    /// The precision of the computation.
    pub fn precision(&self) -> Precision {
        let mut arrays = self.reals().into_iter().filter(|(_, values)| values.array_len().is_some()).peekable();
        let single = arrays.peek().is_some() && arrays.all(|(_, values)| matches!(values, FloatArray::F32(_)));
        self.precision.unwrap_or(if single { Precision::F32 } else { Precision::F64 })
    }

    fn reals(&self) -> [(&'static str, &FloatArray); 6] {
        [
            ("spot", &self.spot),
            ("strike", &self.strike),
            ("rate", &self.rate),
            ("volatility", &self.volatility),
            ("time", &self.time),
            ("dividend_yield", &self.dividend_yield),
        ]
    }

    /// Calls `run` with the contracts in precision `T`; arrays in another precision are converted.
    pub(crate) fn with_contracts<T: Number, R>(&self, run: impl FnOnce(usize, &Contracts<'_, T>) -> R) -> R {
        run(self.contracts(), &self.terms(&self.arrays()))
    }

    fn arrays<T: Number>(&self) -> [Array<'_, T>; 6] {
        self.reals().map(|(_, values)| T::array(values))
    }

    fn terms<'a, T: Number>(&'a self, arrays: &'a [Array<'_, T>; 6]) -> Contracts<'a, T> {
        let [spot, strike, rate, volatility, time, dividend_yield] = arrays;
        Contracts {
            spot: spot.operand(),
            strike: strike.operand(),
            rate: rate.operand(),
            volatility: volatility.operand(),
            time: time.operand(),
            dividend_yield: dividend_yield.operand(),
            kind: match &self.kind {
                Kinds::All(kind) => Operand::All(*kind),
                Kinds::Each(kinds) => Operand::Each(kinds),
            },
        }
    }

    /// What runs of other inputs must have in common with this one's: the precision, which fields are arrays, and the
    /// numbers in the others.
    fn common(&self) -> (Precision, [Option<u64>; 6], Option<OptionKind>) {
        let number = |(_, values): (_, &FloatArray)| {
            if let FloatArray::One(value) = values { Some(value.to_bits()) } else { None }
        };
        let kind = if let Kinds::All(kind) = self.kind { Some(kind) } else { None };
        (self.precision(), self.reals().map(number), kind)
    }

    fn check<T: Number>(&self) -> Result<(), InvalidInput> {
        let finite = |value: T| value.abs() < T::INFINITY;
        let positive = |value: T| value >= T::MIN_POSITIVE && value < T::INFINITY;
        let not_negative = |value: T| value >= T::of(0.0) && value < T::INFINITY;
        self.with_contracts(|contracts, terms: &Contracts<'_, T>| {
            if contracts == 0 {
                return Err(InvalidInput::new("spot", "no contracts"));
            }
            terms.check_lengths(contracts)?;
            require("spot", terms.spot, positive, "a finite number above 0 that is not subnormal")?;
            require("strike", terms.strike, positive, "a finite number above 0 that is not subnormal")?;
            require("rate", terms.rate, finite, "a finite number")?;
            require("volatility", terms.volatility, not_negative, "a finite number of 0 or more")?;
            require("time", terms.time, not_negative, "a finite number of 0 or more")?;
            require("dividend_yield", terms.dividend_yield, finite, "a finite number")?;
            discountable("rate", terms.rate, terms.time, contracts)?;
            discountable("dividend_yield", terms.dividend_yield, terms.time, contracts)
        })
    }
}

/// Pieces for the cores of the machine; few values are one piece, and are looked at by the calling thread.
fn chunks<T: Sync>(values: &[T]) -> impl IndexedParallelIterator<Item = &[T]> {
    values.par_chunks(1 << 18)
}

/// Finds the first value that is not as it must be.
fn require<T: Number>(
    field: &str,
    operand: Operand<'_, T>,
    holds: impl Fn(T) -> bool + Sync,
    wanted: &str,
) -> Result<(), InvalidInput> {
    let wrong =
        |field: String, value: T| Err(InvalidInput::new(field, format!("{value:?} where {wanted} is expected")));
    match operand {
        Operand::All(value) if !holds(value) => wrong(field.to_owned(), value),
        // Without an early exit within a chunk the usual case is vector code.
        Operand::Each(values)
            if !chunks(values).all(|values| values.iter().fold(true, |all, &value| all & holds(value))) =>
        {
            match values.iter().position(|&value| !holds(value)) {
                Some(index) => wrong(format!("{field}[{index}]"), values[index]),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// Finds the first contract whose discount factor leaves the range of numbers.
fn discountable<T: Number>(
    field: &str,
    rates: Operand<'_, T>,
    times: Operand<'_, T>,
    contracts: usize,
) -> Result<(), InvalidInput> {
    let most = T::of(T::MOST_GROWTH);
    let largest = |operand: Operand<'_, T>| match operand {
        Operand::All(value) => value.abs(),
        Operand::Each(values) => {
            let larger = |a: T, b: T| if b > a { b } else { a };
            let of_chunk = |values: &[T]| values.iter().fold(T::of(0.0), |most, value| larger(most, value.abs()));
            chunks(values).map(of_chunk).reduce(|| T::of(0.0), larger)
        }
    };
    // Most often the largest of both tell enough.
    if largest(rates) * largest(times) <= most {
        return Ok(());
    }
    let at = |operand: Operand<'_, T>, index: usize| match operand {
        Operand::All(value) => value,
        Operand::Each(values) => values[index],
    };
    match (0..contracts).find(|&index| at(rates, index).abs() * at(times, index) > most) {
        None => Ok(()),
        Some(index) => {
            let (rate, time) = (at(rates, index), at(times, index));
            let field = if matches!(rates, Operand::All(_)) { field.to_owned() } else { format!("{field}[{index}]") };
            Err(InvalidInput::new(
                field,
                format!("{rate:?} over {time:?} years, and their product is at most {most:?}"),
            ))
        }
    }
}

/// A precision that contracts can be priced in.
pub(crate) trait Number: Real + Element {
    /// The largest rate times time.
    const MOST_GROWTH: f64;
    /// The values in this precision.
    fn array(values: &FloatArray) -> Array<'_, Self>;
    /// The size, which leaves the sign out.
    fn abs(self) -> Self;
}

/// The values of a field in one precision.
#[derive(Debug)]
pub(crate) enum Array<'a, T: Clone> {
    All(T),
    Each(Cow<'a, [T]>),
}

impl<T: Clone + Copy> Array<'_, T> {
    fn operand(&self) -> Operand<'_, T> {
        match self {
            Self::All(value) => Operand::All(*value),
            Self::Each(values) => Operand::Each(values),
        }
    }
}

impl Number for f32 {
    const MOST_GROWTH: f64 = 30.0;

    fn array(values: &FloatArray) -> Array<'_, f32> {
        match values {
            FloatArray::One(value) => Array::All(*value as f32),
            FloatArray::F32(values) => Array::Each(Cow::Borrowed(values)),
            FloatArray::F64(values) => Array::Each(values.iter().map(|&value| value as f32).collect()),
        }
    }

    fn abs(self) -> f32 {
        self.abs()
    }
}

impl Number for f64 {
    const MOST_GROWTH: f64 = 300.0;

    fn array(values: &FloatArray) -> Array<'_, f64> {
        match values {
            FloatArray::One(value) => Array::All(*value),
            FloatArray::F32(values) => Array::Each(values.iter().map(|&value| value.into()).collect()),
            FloatArray::F64(values) => Array::Each(Cow::Borrowed(values)),
        }
    }

    fn abs(self) -> f64 {
        self.abs()
    }
}

impl<T: Element> From<Quotes<T>> for OptionPricingOutput
where
    FloatArray: From<Buffer<T>>,
{
    fn from(quotes: Quotes<T>) -> Self {
        let Quotes { price, delta, gamma, vega, theta, rho } = quotes;
        Self {
            price: price.into(),
            delta: delta.into(),
            gamma: gamma.into(),
            vega: vega.into(),
            theta: theta.into(),
            rho: rho.into(),
        }
    }
}

impl Kernel for OptionPricing {
    type Input = OptionPricingInput;
    type Output = OptionPricingOutput;

    fn info(&self) -> KernelInfo {
        let description = "Black-Scholes-Merton price, delta, gamma, vega, theta and rho of European options.";
        KernelInfo::new("risk/option-pricing", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &OptionPricingInput) -> Result<(), InvalidInput> {
        match input.precision() {
            Precision::F32 => input.check::<f32>(),
            Precision::F64 => input.check::<f64>(),
        }
    }

    fn cost(&self, input: &OptionPricingInput) -> Cost {
        let contracts = input.contracts() as u64;
        let (size, operations) = match input.precision() {
            Precision::F32 => (4, 12_u64),
            Precision::F64 => (8, 30_u64),
        };
        let arrays = input.reals().iter().filter(|(_, values)| values.array_len().is_some()).count() as u64;
        let bytes = contracts.saturating_mul((arrays + 6) * size + 1);
        Cost { bytes, operations: contracts.saturating_mul(operations).saturating_add(2_000), device_memory: bytes }
    }

    fn footprint(&self, input: &OptionPricingInput) -> Option<Footprint> {
        let contracts = input.contracts() as u64;
        let precision = input.precision();
        // Arrays in the other precision are converted.
        let is_converted = |values: &FloatArray| match precision {
            Precision::F32 => matches!(values, FloatArray::F64(_)),
            Precision::F64 => matches!(values, FloatArray::F32(_)),
        };
        let converted = input.reals().iter().filter(|(_, values)| is_converted(values)).count() as u64;
        let array = match precision {
            Precision::F32 => Footprint::of_array::<f32>(contracts),
            Precision::F64 => Footprint::of_array::<f64>(contracts),
        };
        Some(Footprint { output: array.saturating_mul(6), scratch: array.saturating_mul(converted) })
    }

    fn run_cpu(
        &self,
        input: &OptionPricingInput,
        context: &RunContext<'_>,
    ) -> Result<OptionPricingOutput, KernelError> {
        Ok(match input.precision() {
            Precision::F32 => {
                input.with_contracts(|contracts, terms: &Contracts<'_, f32>| quote(contracts, terms, context))?.into()
            }
            Precision::F64 => {
                input.with_contracts(|contracts, terms: &Contracts<'_, f64>| quote(contracts, terms, context))?.into()
            }
        })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &OptionPricingInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<OptionPricingOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    fn batch_key(&self, input: &OptionPricingInput) -> Option<BatchKey> {
        Some(BatchKey::hash(input.common()))
    }

    fn shares_run(&self, first: &OptionPricingInput, other: &OptionPricingInput) -> bool {
        first.common() == other.common()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&OptionPricingInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<OptionPricingOutput>, KernelError> {
        match inputs.first().map(|input| input.precision()) {
            Some(Precision::F32) => on_cuda::<f32>(inputs, cuda),
            Some(Precision::F64) => on_cuda::<f64>(inputs, cuda),
            None => Ok(Vec::new()),
        }
    }
}

/// The contracts of all inputs in one launch. They have [`common`](OptionPricingInput::common) what they must.
#[cfg(feature = "cuda")]
fn on_cuda<T: Number + cuda::Priced>(
    inputs: &[&OptionPricingInput],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<OptionPricingOutput>, KernelError>
where
    OptionPricingOutput: From<Quotes<T>>,
{
    let arrays: Vec<_> = inputs.iter().map(|input| input.arrays::<T>()).collect();
    let terms: Vec<_> = inputs.iter().zip(&arrays).map(|(input, arrays)| input.terms(arrays)).collect();
    let lengths: Vec<_> = inputs.iter().map(|input| input.contracts()).collect();
    Ok(cuda::quote(&lengths, &terms, cuda)?.into_iter().map(Into::into).collect())
}
