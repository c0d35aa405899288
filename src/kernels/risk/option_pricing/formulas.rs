//! The formulas of the module's table, for a block of contracts.

use crate::kernels::authoring::elementary::{exp, ln_quotient, mul_add, normal_shares};
use crate::kernels::authoring::{BLOCK, BlockFunction, Float, FloatColumns};

/// 1 / sqrt(2 pi).
const FRAC_1_SQRT_TAU: f64 = 0.398_942_280_401_432_7;

/// The kernel's code, and the check of its values.
pub(super) struct BlackScholes;

impl<T: Float> BlockFunction<FloatColumns<'_, T, 6, 1>, T, 6> for BlackScholes {
    /// Several short loops instead of one: the steps of one contract wait for each other, so the processor has to have
    /// many contracts in flight, and one long loop body fills its window with a single one.
    // Into the code that pulp compiles for the processor's vector instructions.
    #[inline(always)]
    fn run<const FUSED: bool>(
        &self,
        (inputs, [kind]): ([&[T; BLOCK]; 6], [&[u8; BLOCK]; 1]),
        outputs: &mut [[T; BLOCK]; 6],
    ) {
        let [spot, strike, rate, volatility, time, dividend_yield] = inputs;
        let [price, delta, gamma, vega, theta, rho] = outputs;
        let [zero, half, one] = [0.0, 0.5, 1.0].map(T::of);
        let [mut sign, mut forward, mut owed, mut deviation] = [[zero; BLOCK]; 4];
        let [mut per_spot, mut per_deviation, mut middle, mut bell] = [[zero; BLOCK]; 4];

        for i in 0..BLOCK {
            sign[i] = one - T::count(2 * kind[i]);
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
            let [gained, paid] = normal_shares::<T, FUSED>(ends, [forward[i], owed[i]], bell[i]);

            let is_certain = deviation[i] == zero;
            let worth = sign[i] * (forward[i] - owed[i]);
            let limit = if worth > zero { one } else { zero };
            let limit = if worth == zero { half } else { limit };
            delta[i] = if is_certain { forward[i] * limit } else { gained };
            rho[i] = if is_certain { owed[i] * limit } else { paid };
        }
        for i in 0..BLOCK {
            let (gained, paid, root) = (delta[i], rho[i], vega[i]);
            let density = if deviation[i] == zero { zero } else { bell[i] * T::of(FRAC_1_SQRT_TAU) };
            let value = sign[i] * (gained - paid);
            let carry = sign[i] * (dividend_yield[i] * gained - rate[i] * paid);
            // σ / √T = σ² / (σ√T).
            let decay = half * density * volatility[i] * volatility[i] * per_deviation[i];
            price[i] = if value > zero { value } else { zero };
            delta[i] = sign[i] * gained * per_spot[i];
            gamma[i] = density * per_spot[i] * per_spot[i] * per_deviation[i];
            vega[i] = density * root;
            theta[i] = carry - decay;
            rho[i] = sign[i] * time[i] * paid;
        }
    }
}
