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

use super::elementary::{Elementary, exp, ln_quotient, mul_add, shares};
use crate::service::{Buffer, Element, InvalidInput, KernelError, RunContext};

/// Contracts that the inner loop takes at one time.
const BLOCK: usize = 64;

/// Contracts between two looks at whether to stop, and what one task of the pool takes: some tens of microseconds.
const CHUNK: usize = 4096;

/// `f32` or `f64`.
pub trait Real: Elementary + Element {}

impl Real for f32 {}
impl Real for f64 {}

/// Which way an option may be exercised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum OptionKind {
    /// The right to buy.
    Call = 0,
    /// The right to sell.
    Put = 1,
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
    /// What stands for the operand where it is one value for all.
    fn filled(&self) -> [T; BLOCK]
    where
        T: Default,
    {
        match self {
            Self::All(value) => [*value; BLOCK],
            Self::Each(_) => [T::default(); BLOCK],
        }
    }

    /// The block of values from `start`.
    #[inline(always)]
    fn block<'a>(&'a self, start: usize, spare: &'a [T; BLOCK]) -> &'a [T; BLOCK] {
        match self {
            Self::All(_) => spare,
            Self::Each(values) => values[start..].first_chunk().unwrap_or(spare),
        }
    }

    /// Puts a last, shorter block into `spare`. The rest repeats the last value, so that what is computed there and
    /// thrown away is ordinary.
    fn pad(&self, start: usize, spare: &mut [T; BLOCK]) {
        if let Self::Each(values) = self {
            let values = &values[start..];
            for (index, place) in spare.iter_mut().enumerate() {
                *place = values[index.min(values.len() - 1)];
            }
        }
    }

    fn check(&self, field: &str, contracts: usize) -> Result<(), InvalidInput> {
        match self {
            Operand::Each(values) if values.len() != contracts => {
                Err(InvalidInput::new(field, format!("{} values for {contracts} contracts", values.len())))
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
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Quotes<T: Element> {
    /// Value of the option.
    pub price: Buffer<T>,
    /// Derivative by spot.
    pub delta: Buffer<T>,
    /// Second derivative by spot.
    pub gamma: Buffer<T>,
    /// Derivative by volatility.
    pub vega: Buffer<T>,
    /// Derivative by the time that passes.
    pub theta: Buffer<T>,
    /// Derivative by rate.
    pub rho: Buffer<T>,
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
    context: &RunContext<'_>,
) -> Result<Quotes<T>, KernelError> {
    let mut quotes = Quotes::default();
    quote_into(&mut quotes, contracts, terms, context)?;
    Ok(quotes)
}

/// The same into buffers that are there already, and are made anew where they are not as long as there are contracts.
/// It spares the pages fresh from the system, which with many contracts take a good part of the time of [`quote`].
///
/// # Errors
/// As `quote`; the buffers then hold nothing of use.
pub fn quote_into<T: Real>(
    quotes: &mut Quotes<T>,
    contracts: usize,
    terms: &Contracts<'_, T>,
    context: &RunContext<'_>,
) -> Result<(), KernelError> {
    terms.check_lengths(contracts)?;
    let Quotes { price, delta, gamma, vega, theta, rho } = quotes;
    for output in [&mut *price, delta, gamma, vega, theta, rho] {
        if output.len() != contracts {
            *output = Buffer::zeroed_with_others(contracts);
        }
    }
    let arch = Arch::new();
    let chunk = |index: usize, outputs: [&mut [T]; 6]| -> Result<(), KernelError> {
        context.check()?;
        arch.dispatch(Chunk { terms, start: index * CHUNK, outputs });
        Ok(())
    };
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
    Ok(())
}

impl<T> Contracts<'_, T>
where
    T: Copy,
{
    /// Whether each operand has one value, or one for each of so many contracts.
    ///
    /// # Errors
    /// The first that has another number.
    pub fn check_lengths(&self, contracts: usize) -> Result<(), InvalidInput> {
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
    fn fill<const FUSED: bool>(self) {
        let Contracts { spot, strike, rate, volatility, time, dividend_yield, kind } = self.terms;
        let operands = [spot, strike, rate, volatility, time, dividend_yield];
        let mut spare = operands.map(Operand::filled);
        let mut spare_kinds = match kind {
            Operand::All(kind) => [*kind; BLOCK],
            Operand::Each(_) => [OptionKind::Call; BLOCK],
        };
        let mut quotes = [[T::default(); BLOCK]; 6];
        let length = self.outputs[0].len();
        for from in (0..length).step_by(BLOCK) {
            let start = self.start + from;
            let count = BLOCK.min(length - from);
            if count < BLOCK {
                for (operand, spare) in operands.iter().zip(&mut spare) {
                    operand.pad(start, spare);
                }
                kind.pad(start, &mut spare_kinds);
            }
            let inputs = std::array::from_fn(|field| operands[field].block(start, &spare[field]));
            quote_block::<T, FUSED>(inputs, kind.block(start, &spare_kinds), &mut quotes);
            for (field, block) in quotes.iter().enumerate() {
                self.outputs[field][from..from + count].copy_from_slice(&block[..count]);
            }
        }
    }
}

/// The formulas of the module's table, in loops without a branch or a call, which is what lets them become vector code.
/// Several short loops instead of one: the steps of one contract wait for each other, so the processor has to have many
/// contracts in flight, and one long loop body fills its window with a single one.
#[inline(always)]
fn quote_block<T: Real, const FUSED: bool>(
    inputs: [&[T; BLOCK]; 6],
    kind: &[OptionKind; BLOCK],
    outputs: &mut [[T; BLOCK]; 6],
) {
    let [spot, strike, rate, volatility, time, dividend_yield] = inputs;
    let [price, delta, gamma, vega, theta, rho] = outputs;
    let [zero, half, one] = [0.0, 0.5, 1.0].map(T::of);
    let [mut sign, mut forward, mut owed, mut deviation] = [[zero; BLOCK]; 4];
    let [mut per_spot, mut per_deviation, mut middle, mut bell] = [[zero; BLOCK]; 4];

    for i in 0..BLOCK {
        sign[i] = one - T::count(2 * kind[i] as u8);
    }
    for i in 0..BLOCK {
        forward[i] = spot[i] * exp::<T, FUSED>(-dividend_yield[i] * time[i]);
    }
    for i in 0..BLOCK {
        owed[i] = strike[i] * exp::<T, FUSED>(-rate[i] * time[i]);
    }
    // The middle of d1 and d2.
    for i in 0..BLOCK {
        let root = time[i].sqrt();
        per_spot[i] = one / spot[i];
        deviation[i] = volatility[i] * root;
        // 1 for a deviation of 0, where what it divides is replaced.
        per_deviation[i] = one / if deviation[i] == zero { one } else { deviation[i] };
        vega[i] = root;
        let moneyness = -ln_quotient::<T, FUSED>(strike[i], spot[i], per_spot[i]);
        middle[i] = mul_add::<T, FUSED>(rate[i] - dividend_yield[i], time[i], moneyness) * per_deviation[i];
    }
    // F exp(-d1^2 / 2) = L exp(-d2^2 / 2), so this one serves both tails.
    for i in 0..BLOCK {
        let d1 = mul_add::<T, FUSED>(deviation[i], half, middle[i]);
        bell[i] = forward[i] * exp::<T, FUSED>(-half * d1 * d1);
    }
    for i in 0..BLOCK {
        let d1 = mul_add::<T, FUSED>(deviation[i], half, middle[i]);
        let d2 = mul_add::<T, FUSED>(deviation[i], -half, middle[i]);
        let ends = [sign[i] * d1, sign[i] * d2];
        let [gained, paid] = shares::<T, FUSED>(ends, [forward[i], owed[i]], bell[i]);

        let certain = deviation[i] == zero;
        let worth = sign[i] * (forward[i] - owed[i]);
        let limit = if worth > zero { one } else { zero };
        let limit = if worth == zero { half } else { limit };
        delta[i] = if certain { forward[i] * limit } else { gained };
        rho[i] = if certain { owed[i] * limit } else { paid };
    }
    for i in 0..BLOCK {
        let (gained, paid, root) = (delta[i], rho[i], vega[i]);
        let sway = if deviation[i] == zero { zero } else { bell[i] * T::of(FRAC_1_SQRT_TAU) };
        let value = sign[i] * (gained - paid);
        let carried = sign[i] * (dividend_yield[i] * gained - rate[i] * paid);
        // σ / √T = σ² / (σ√T).
        let decay = half * sway * volatility[i] * volatility[i] * per_deviation[i];
        price[i] = if value > zero { value } else { zero };
        delta[i] = sign[i] * gained * per_spot[i];
        gamma[i] = sway * per_spot[i] * per_spot[i] * per_deviation[i];
        vega[i] = sway * root;
        theta[i] = carried - decay;
        rho[i] = sign[i] * time[i] * paid;
    }
}

/// 1 / sqrt(2 pi).
const FRAC_1_SQRT_TAU: f64 = 0.398_942_280_401_432_7;
