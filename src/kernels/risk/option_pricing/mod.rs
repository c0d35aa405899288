//! `risk/option-pricing`: price and sensitivities of European options on an asset with a continuous dividend yield.
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
//! | out: `price`, `delta`, `gamma`, `vega`, `theta`, `rho` | `[n]` | see below |
//!
//! A *real* is an array with a value for each contract, or one number for all of them ([`FloatArray`]). All arrays have the
//! same length. Values are finite, and neither `rate * time` nor `dividend_yield * time` may exceed 300 in size (30 in
//! single precision), where discounting leaves the range of numbers. Subnormal prices, below 2.3e-308 (1.2e-38 in single
//! precision), are rejected as 0 is: they have too few digits for the tolerance below. Errors name the field and the
//! index. Double precision is within 1e-12 of the true value, on the scale of the larger of spot and strike, single
//! precision within 1e-5.
//!
//! Price by Black and Scholes, *The pricing of options and corporate liabilities* (1973), and Merton, *Theory of rational
//! option pricing* (1973); the sensitivities are its derivatives. With `w` = 1 for a call and -1 for a put, forward values
//! `F = S exp(-qT)`, `L = K exp(-rT)`, and `d1, d2 = (ln(S/K) + (r - q)T) / (σ√T) ± σ√T / 2`:
//!
//! | output | formula | unit |
//! |---|---|---|
//! | price | w (F N(w d1) - L N(w d2)) | money |
//! | delta | w exp(-qT) N(w d1) | money per money of spot |
//! | gamma | exp(-qT) φ(d1) / (S σ√T) | delta per money of spot |
//! | vega | F φ(d1) √T | money per 1.0 of volatility |
//! | theta | -F φ(d1) σ / (2√T) + w (q F N(w d1) - r L N(w d2)) | money per year that passes |
//! | rho | w T L N(w d2) | money per 1.0 of rate |
//!
//! At `σ√T = 0` they take their limits: the price is what exercising the forward is worth, N is 1 in the money, 0 out of
//! it and 1/2 where F = L, and φ is 0.

mod formulas;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::formulas::BlackScholes;
#[cfg(feature = "cuda")]
use crate::cuda::{Module, device_code};
use crate::kernels::authoring::{
    CheckValues, Choice, Choices, Float, FloatColumns, Operand, Precision, elementwise_floats,
};
use crate::service::{FloatArray, InvalidInput};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct OptionPricing;

/// The input of `risk/option-pricing`: each field is one number for all contracts, or an array with one for each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    pub kind: Choices<OptionKind>,
    /// Precision of the computation and its output.
    #[serde(default)]
    pub precision: Option<Precision>,
}

/// The output of `risk/option-pricing`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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

/// Which way an option may be exercised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum OptionKind {
    /// The right to buy.
    Call = 0,
    /// The right to sell.
    Put = 1,
}

impl Choice for OptionKind {
    const NAMES: &'static [&'static str] = &["call", "put"];

    fn code(self) -> u8 {
        self as u8
    }
}

elementwise_floats! {
    impl Kernel for OptionPricing {
        info: KernelInfo::new(
            "risk/option-pricing",
            "1.0.0",
            "Black-Scholes-Merton price, delta, gamma, vega, theta and rho of European options.",
        ),
        input: OptionPricingInput {
            spot: 50.0..150.0,
            strike: 50.0..150.0,
            rate: -0.01..0.1,
            volatility: 0.05..0.8,
            time: 0.02..3.0,
            dividend_yield: 0.0..0.06,
        } choices { kind },
        output: OptionPricingOutput { price, delta, gamma, vega, theta, rho },
        operations: |precision| if precision == Precision::F32 { 12 } else { 30 },
        check: BlackScholes,
        cpu: BlackScholes,
        cuda: Module::embedded(device_code!("risk/option-pricing")), "black_scholes_f32", "black_scholes_f64",
        scales: scales,
    }
}

impl CheckValues<6, 1> for BlackScholes {
    fn check<T: Float>(
        ([spot, strike, rate, volatility, time, dividend_yield], _): FloatColumns<'_, T, 6, 1>,
        rows: usize,
    ) -> Result<(), InvalidInput> {
        let finite = |value: T| value.abs() < T::INFINITY;
        let positive = |value: T| value >= T::MIN_POSITIVE && value < T::INFINITY;
        let not_negative = |value: T| value >= T::of(0.0) && value < T::INFINITY;
        spot.require("spot", positive, "a finite number above 0 that is not subnormal")?;
        strike.require("strike", positive, "a finite number above 0 that is not subnormal")?;
        rate.require("rate", finite, "a finite number")?;
        volatility.require("volatility", not_negative, "a finite number of 0 or more")?;
        time.require("time", not_negative, "a finite number of 0 or more")?;
        dividend_yield.require("dividend_yield", finite, "a finite number")?;
        check_discount("rate", rate, time, rows)?;
        check_discount("dividend_yield", dividend_yield, time, rows)
    }
}

/// Finds the first contract whose discount factor leaves the range of numbers.
fn check_discount<T: Float>(
    field: &str,
    rates: Operand<'_, T>,
    times: Operand<'_, T>,
    contracts: usize,
) -> Result<(), InvalidInput> {
    let most = T::of(if T::PRECISION == Precision::F32 { 30.0 } else { 300.0 });
    // Most often the largest of both are within the bound.
    if rates.largest() * times.largest() <= most {
        return Ok(());
    }
    match (0..contracts).find(|&index| rates.value(index).abs() * times.value(index) > most) {
        None => Ok(()),
        Some(index) => {
            let (rate, time) = (rates.value(index), times.value(index));
            let is_one = matches!(rates, Operand::One(_));
            let field = if is_one { field.to_owned() } else { format!("{field}[{index}]") };
            let reason = format!("{rate:?} over {time:?} years, and their product is at most {most:?}");
            Err(InvalidInput::new(field, reason))
        }
    }
}

/// The size of the terms that cancel in each output.
fn scales([spot, strike, rate, volatility, time, dividend_yield]: [f64; 6]) -> [f64; 6] {
    let (forward, owed) = (spot * (-dividend_yield * time).exp(), strike * (-rate * time).exp());
    let (money, root) = (forward + owed, time.sqrt());
    let carry = rate.abs() + dividend_yield.abs();
    let peak = forward / (spot * spot * volatility * root);
    [money, forward / spot, peak, forward * root, money * (carry + volatility / root), owed * time]
}
