//! European options on an asset with a continuous dividend yield.
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

use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;
use serde::Deserialize;

use super::elementary::{Elementary, exp, ln_quotient, mul_add, share};
use crate::service::{Context, Invalid, KernelError};

/// Contracts that the inner loop takes at one time.
const BLOCK: usize = 64;

/// Contracts between two looks at whether to stop, and what one task of the pool takes: some tens of microseconds.
const CHUNK: usize = 4096;

/// `f32` or `f64`.
pub trait Real: Elementary {}

impl Real for f32 {}
impl Real for f64 {}

/// Which way an option may be exercised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum OptionKind {
    /// The right to buy.
    Call,
    /// The right to sell.
    Put,
}

/// A value for each contract, or one for all.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Operand<'a, T> {
    /// One for all contracts.
    All(T),
    /// One for each contract.
    Each(&'a [T]),
}

impl<T: Copy> Operand<'_, T> {
    /// The values from `start`, as far as `block` is long. The rest of a last, shorter block repeats its last value, so
    /// that what is computed there and thrown away is ordinary.
    #[inline(always)]
    fn load<U: Copy>(&self, start: usize, block: &mut [U; BLOCK], convert: impl Fn(T) -> U) {
        match self {
            Operand::All(value) => *block = [convert(*value); BLOCK],
            Operand::Each(values) => {
                let values = &values[start..];
                if let Some(values) = values.first_chunk::<BLOCK>() {
                    for (place, &value) in block.iter_mut().zip(values) {
                        *place = convert(value);
                    }
                } else {
                    for (index, place) in block.iter_mut().enumerate() {
                        *place = convert(values[index.min(values.len() - 1)]);
                    }
                }
            }
        }
    }

    fn check(&self, field: &str, contracts: usize) -> Result<(), Invalid> {
        match self {
            Operand::Each(values) if values.len() != contracts => {
                Err(Invalid::new(field, format!("{} values for {contracts} contracts", values.len())))
            }
            _ => Ok(()),
        }
    }
}

/// What the contracts say and what the market does. Rates, yields and volatilities are per year and continuous (0.05 is
/// 5 %), times in years, spot and strike in money.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Contracts<'a, T> {
    /// The asset's price, above 0.
    pub spot: Operand<'a, T>,
    /// The price of exercising, above 0.
    pub strike: Operand<'a, T>,
    /// Risk-free rate.
    pub rate: Operand<'a, T>,
    /// Volatility of the asset, 0 or more.
    pub volatility: Operand<'a, T>,
    /// Time to expiry, 0 or more.
    pub time: Operand<'a, T>,
    /// Dividend yield of the asset.
    pub dividend_yield: Operand<'a, T>,
    /// Call or put.
    pub kind: Operand<'a, OptionKind>,
}

/// Prices and sensitivities, one of each for each contract; the units are in the module's table.
#[derive(Debug, Clone, PartialEq)]
pub struct Quotes<T> {
    /// Value of the option.
    pub price: Vec<T>,
    /// Derivative by spot.
    pub delta: Vec<T>,
    /// Second derivative by spot.
    pub gamma: Vec<T>,
    /// Derivative by volatility.
    pub vega: Vec<T>,
    /// Derivative by the time that passes.
    pub theta: Vec<T>,
    /// Derivative by rate.
    pub rho: Vec<T>,
}

/// Prices and sensitivities of `contracts` contracts.
///
/// Values outside of the ranges that [`Contracts`] gives make outputs without meaning, and no panic. Up to some thousand
/// contracts are priced on the calling thread, more on the rayon pool that it is called from. The context is checked at
/// every 4096 contracts.
///
/// # Errors
/// An operand of another length, or what the context says.
pub fn quote<T: Real>(
    contracts: usize,
    terms: &Contracts<'_, T>,
    context: &Context<'_>,
) -> Result<Quotes<T>, KernelError> {
    terms.check_lengths(contracts)?;
    let zeros = || vec![T::default(); contracts];
    let mut quotes =
        Quotes { price: zeros(), delta: zeros(), gamma: zeros(), vega: zeros(), theta: zeros(), rho: zeros() };
    let arch = Arch::new();
    let chunk = |index: usize, outputs: [&mut [T]; 6]| -> Result<(), KernelError> {
        context.check()?;
        arch.dispatch(Chunk { terms, start: index * CHUNK, outputs });
        Ok(())
    };
    let Quotes { price, delta, gamma, vega, theta, rho } = &mut quotes;
    if contracts <= CHUNK {
        chunk(0, [price, delta, gamma, vega, theta, rho])?;
    } else {
        let outputs = (
            price.par_chunks_mut(CHUNK),
            delta.par_chunks_mut(CHUNK),
            gamma.par_chunks_mut(CHUNK),
            vega.par_chunks_mut(CHUNK),
            theta.par_chunks_mut(CHUNK),
            rho.par_chunks_mut(CHUNK),
        );
        outputs
            .into_par_iter()
            .enumerate()
            .try_for_each(|(index, (a, b, c, d, e, f))| chunk(index, [a, b, c, d, e, f]))?;
    }
    Ok(quotes)
}

impl<T> Contracts<'_, T>
where
    T: Copy,
{
    /// Whether each operand has one value, or one for each of so many contracts.
    ///
    /// # Errors
    /// The first that has another number.
    pub fn check_lengths(&self, contracts: usize) -> Result<(), Invalid> {
        self.spot.check("spot", contracts)?;
        self.strike.check("strike", contracts)?;
        self.rate.check("rate", contracts)?;
        self.volatility.check("volatility", contracts)?;
        self.time.check("time", contracts)?;
        self.dividend_yield.check("dividend_yield", contracts)?;
        self.kind.check("kind", contracts)
    }
}

/// The contracts from `start` that `outputs` have room for.
struct Chunk<'a, T> {
    terms: &'a Contracts<'a, T>,
    start: usize,
    outputs: [&'a mut [T]; 6],
}

impl<T: Real> WithSimd for Chunk<'_, T> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // The vector sets that pulp picks from all have fused operations; the scalar fallback may not.
        if S::IS_SCALAR { self.fill::<false>() } else { self.fill::<true>() }
    }
}

impl<T: Real> Chunk<'_, T> {
    #[inline(always)]
    fn fill<const FUSED: bool>(mut self) {
        let Contracts { spot, strike, rate, volatility, time, dividend_yield, kind } = *self.terms;
        let mut inputs = [[T::default(); BLOCK]; 7];
        let mut blocks = [[T::default(); BLOCK]; 6];
        let length = self.outputs[0].len();
        for from in (0..length).step_by(BLOCK) {
            let start = self.start + from;
            for (block, operand) in inputs.iter_mut().zip([spot, strike, rate, volatility, time, dividend_yield]) {
                operand.load(start, block, |value| value);
            }
            kind.load(start, &mut inputs[6], |kind| match kind {
                OptionKind::Call => T::of(1.0),
                OptionKind::Put => T::of(-1.0),
            });
            quote_block::<T, FUSED>(&inputs, &mut blocks);
            let to = length.min(from + BLOCK);
            for (output, block) in self.outputs.iter_mut().zip(&blocks) {
                output[from..to].copy_from_slice(&block[..to - from]);
            }
        }
    }
}

/// The formulas of the module's table, in loops without a branch or a call, which is what lets them become vector code.
/// Several short loops instead of one: the steps of one contract wait for each other, so the processor has to have many
/// contracts in flight, and one long loop body fills its window with a single one.
#[inline(always)]
fn quote_block<T: Real, const FUSED: bool>(inputs: &[[T; BLOCK]; 7], outputs: &mut [[T; BLOCK]; 6]) {
    let [spot, strike, rate, volatility, time, dividend_yield, sign] = inputs;
    let [price, delta, gamma, vega, theta, rho] = outputs;
    let [zero, half, one] = [0.0, 0.5, 1.0].map(T::of);
    let [mut forward, mut owed, mut deviation, mut middle, mut bell] = [[zero; BLOCK]; 5];
    // Stands for a deviation of 0, where what it divides is replaced.
    let divisor = |deviation: T| if deviation == zero { one } else { deviation };

    for i in 0..BLOCK {
        forward[i] = spot[i] * exp::<T, FUSED>(-dividend_yield[i] * time[i]);
    }
    for i in 0..BLOCK {
        owed[i] = strike[i] * exp::<T, FUSED>(-rate[i] * time[i]);
    }
    // The middle of d1 and d2.
    for i in 0..BLOCK {
        deviation[i] = volatility[i] * time[i].sqrt();
        let moneyness = ln_quotient::<T, FUSED>(spot[i], strike[i]);
        let drift = mul_add::<T, FUSED>(rate[i] - dividend_yield[i], time[i], moneyness);
        middle[i] = drift / divisor(deviation[i]);
    }
    // F exp(-d1^2 / 2) = L exp(-d2^2 / 2), so this one serves both tails.
    for i in 0..BLOCK {
        let d1 = mul_add::<T, FUSED>(deviation[i], half, middle[i]);
        bell[i] = forward[i] * exp::<T, FUSED>(-half * d1 * d1);
    }
    for i in 0..BLOCK {
        let d1 = mul_add::<T, FUSED>(deviation[i], half, middle[i]);
        let d2 = mul_add::<T, FUSED>(deviation[i], -half, middle[i]);
        let gained = share::<T, FUSED>(sign[i] * d1, forward[i], bell[i]);
        let paid = share::<T, FUSED>(sign[i] * d2, owed[i], bell[i]);

        let certain = deviation[i] == zero;
        let worth = sign[i] * (forward[i] - owed[i]);
        let limit = if worth > zero { one } else { zero };
        let limit = if worth == zero { half } else { limit };
        delta[i] = if certain { forward[i] * limit } else { gained };
        rho[i] = if certain { owed[i] * limit } else { paid };
    }
    for i in 0..BLOCK {
        let (gained, paid) = (delta[i], rho[i]);
        let root = time[i].sqrt();
        let certain = deviation[i] == zero;
        let sway = if certain { zero } else { bell[i] * T::of(FRAC_1_SQRT_TAU) };
        let inverse = one / spot[i];
        let value = sign[i] * (gained - paid);
        let carried = sign[i] * (dividend_yield[i] * gained - rate[i] * paid);
        let decay = half * sway * volatility[i] / divisor(root);
        price[i] = if value > zero { value } else { zero };
        delta[i] = sign[i] * gained * inverse;
        gamma[i] = sway * inverse * inverse / divisor(deviation[i]);
        vega[i] = sway * root;
        theta[i] = carried - decay;
        rho[i] = sign[i] * time[i] * paid;
    }
}

/// 1 / sqrt(2 pi).
const FRAC_1_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
