//! Exponential, logarithm and normal tail as straight-line code, so that a loop over them becomes vector code.
//!
//! The polynomials are Chebyshev interpolants computed in 50 digits by `tests/goldens/approximations.py`. The reductions
//! are the usual ones: `exp` by multiples of ln 2 in two parts (Cody and Waite, *Software manual for the elementary
//! functions*, 1980), `ln` by the exponent and 2 atanh(f / (2 + f)), and the tail on the whole half-line by the mapping
//! (t - 5) / (t + 5) (Schonfelder, *Chebyshev expansions for the error and related functions*, 1978). Each is within a
//! few units in the last place; the tail of `f32` within 2e-7.

use std::fmt::Debug;
use std::ops::{Add, Div, Mul, Neg, Sub};

/// Constants and operations of `f32` and `f64` for the approximations.
pub trait Elementary:
    Copy
    + Debug
    + Default
    + PartialEq
    + PartialOrd
    + Send
    + Sync
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + 'static
{
    /// exp(r) in powers of r, |r| <= ln 2 / 2.
    const EXP: &'static [Self];
    /// (ln((1 + s) / (1 - s)) - 2 s) / s^3 in powers of s^2, for the s of 1/sqrt 2 to sqrt 2.
    const LN: &'static [Self];
    /// (t + 5) exp(t^2 / 2) N(-t) in powers of (t - 5) / (t + 5).
    const TAIL: &'static [Self];
    /// ln 2 to few enough bits that its product with an exponent is exact.
    const LN_2_HIGH: Self;
    /// The rest of ln 2.
    const LN_2_LOW: Self;
    /// 1 / ln 2.
    const LOG2_E: Self;
    /// Added to a small number, it leaves the nearest integer in the lowest bits.
    const ROUND: Self;
    /// Below this the exponential is 0.
    const EXP_LEAST: Self;
    /// Above this the exponential is infinite.
    const EXP_MOST: Self;
    /// Infinity.
    const INFINITY: Self;
    /// The smallest positive normal number.
    const MIN_POSITIVE: Self;

    /// A constant in this type.
    fn of(value: f64) -> Self;
    /// A small count in this type.
    fn count(value: u8) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// `self * factor + term`, rounded once.
    fn fused(self, factor: Self, term: Self) -> Self;
    /// 2^n from `ROUND + n`.
    fn power_of_two(rounded: Self) -> Self;
    /// A positive number as `(m, n)`, m 2^n with m from 1/sqrt 2 to sqrt 2.
    fn split(self) -> (Self, Self);
}

macro_rules! elementary_by_bits {
    ($bits:ty, $mantissa:expr, $bias:expr) => {
        #[inline(always)]
        fn of(value: f64) -> Self {
            value as Self
        }

        #[inline(always)]
        fn count(value: u8) -> Self {
            value.into()
        }

        #[inline(always)]
        fn sqrt(self) -> Self {
            self.sqrt()
        }

        #[inline(always)]
        fn fused(self, factor: Self, term: Self) -> Self {
            self.mul_add(factor, term)
        }

        #[inline(always)]
        fn power_of_two(rounded: Self) -> Self {
            Self::from_bits(rounded.to_bits().wrapping_add($bias) << $mantissa)
        }

        #[inline(always)]
        fn split(self) -> (Self, Self) {
            // Unsigned arithmetic only: vector units before AVX-512 neither shift 64-bit numbers with their sign nor
            // convert them.
            const ONE: $bits = $bias << $mantissa;
            const COUNT: $bits = ($bias + $mantissa) << $mantissa;
            let least = (std::f64::consts::FRAC_1_SQRT_2 as Self).to_bits();
            let exponent = self.to_bits().wrapping_add(ONE - least) >> $mantissa;
            let mantissa = self.to_bits().wrapping_add(ONE).wrapping_sub(exponent << $mantissa);
            let count = Self::from_bits(exponent | COUNT) - Self::from_bits(COUNT | $bias);
            (Self::from_bits(mantissa), count)
        }
    };
}

impl Elementary for f64 {
    const EXP: &'static [Self] = &[
        1.0,
        1.0,
        0.5000000000000019,
        0.1666666666666668,
        0.0416666666664881,
        0.008333333333319601,
        0.0013888888952314775,
        0.00019841269890047113,
        2.4801485482328494e-05,
        2.755724091857897e-06,
        2.763263963904103e-07,
        2.5110037605963777e-08,
    ];
    const LN: &'static [Self] = &[
        0.6666666666666666,
        0.4000000000000088,
        0.28571428570803614,
        0.22222222391713917,
        0.18181795640132906,
        0.15386239702814658,
        0.13268773138656886,
        0.13086626147840102,
    ];
    const TAIL: &'static [Self] = &[
        0.769193049750063,
        -0.6653825028900684,
        0.49530561596999373,
        -0.31353315667043613,
        0.16502036616910737,
        -0.06911863872545303,
        0.020795066827479357,
        -0.002993376574719397,
        -0.0007978696711036696,
        0.0005448979466789302,
        -5.9374254572626344e-05,
        -4.97588940707279e-05,
        1.6676472037663173e-05,
        3.972040494146394e-06,
        -2.759874941021964e-06,
        -3.2349752237852993e-07,
        4.218019214509211e-07,
        2.982859361326789e-08,
        -5.814075965453212e-08,
        -2.3627806826406506e-09,
        5.151491485332322e-09,
    ];
    const LN_2_HIGH: Self = 0.693_147_180_369_123_8;
    const LN_2_LOW: Self = 1.908_214_929_270_587_8e-10;
    const LOG2_E: Self = std::f64::consts::LOG2_E;
    const ROUND: Self = 6_755_399_441_055_744.0;
    const EXP_LEAST: Self = -708.0;
    const EXP_MOST: Self = 709.0;
    const INFINITY: Self = Self::INFINITY;
    const MIN_POSITIVE: Self = Self::MIN_POSITIVE;

    elementary_by_bits!(u64, 52, 1023);
}

impl Elementary for f32 {
    const EXP: &'static [Self] = &[1.0, 1.0, 0.5, 0.16666415, 0.04166635, 0.008375126, 0.0013941108];
    const LN: &'static [Self] = &[0.6666667, 0.40000123, 0.28550822, 0.23330468];
    const TAIL: &'static [Self] = &[
        0.769193,
        -0.66538256,
        0.49530828,
        -0.31352913,
        0.16499822,
        -0.069150984,
        0.020862931,
        -0.0029011176,
        -0.00089124666,
        0.0004350482,
    ];
    const LN_2_HIGH: Self = 0.693_115_23;
    const LN_2_LOW: Self = 3.194_618_5e-5;
    const LOG2_E: Self = std::f32::consts::LOG2_E;
    const ROUND: Self = 12_582_912.0;
    const EXP_LEAST: Self = -87.0;
    const EXP_MOST: Self = 88.0;
    const INFINITY: Self = Self::INFINITY;
    const MIN_POSITIVE: Self = Self::MIN_POSITIVE;

    elementary_by_bits!(u32, 23, 127);
}

/// `a * b + c`. `FUSED` says that the processor rounds once as fast as it multiplies; where it does not, a fused
/// operation is a library call and two roundings are what is wanted.
#[inline(always)]
pub(crate) fn mul_add<T: Elementary, const FUSED: bool>(a: T, b: T, c: T) -> T {
    if FUSED { a.fused(b, c) } else { a * b + c }
}

/// The polynomial with these coefficients, lowest first, by Horner's rule.
#[inline(always)]
fn polynomial<T: Elementary, const FUSED: bool>(coefficients: &[T], x: T) -> T {
    coefficients.iter().rev().fold(T::of(0.0), |sum, &coefficient| mul_add::<T, FUSED>(sum, x, coefficient))
}

/// The exponential.
#[inline(always)]
pub(crate) fn exp<T: Elementary, const FUSED: bool>(x: T) -> T {
    let inside = if x < T::EXP_LEAST { T::EXP_LEAST } else { x };
    let inside = if inside > T::EXP_MOST { T::EXP_MOST } else { inside };
    let rounded = mul_add::<T, FUSED>(inside, T::LOG2_E, T::ROUND);
    let count = rounded - T::ROUND;
    let rest = mul_add::<T, FUSED>(count, -T::LN_2_HIGH, inside);
    let rest = mul_add::<T, FUSED>(count, -T::LN_2_LOW, rest);
    let value = polynomial::<T, FUSED>(T::EXP, rest) * T::power_of_two(rounded);
    let value = if x < T::EXP_LEAST { T::of(0.0) } else { value };
    if x > T::EXP_MOST { T::INFINITY } else { value }
}

/// The logarithm of `value * inverse`, both positive, where `inverse` is 1 / `other`. Where `value` and `other` are near
/// each other it starts from their difference, which is exact, and not from their rounded quotient.
#[inline(always)]
pub(crate) fn ln_quotient<T: Elementary, const FUSED: bool>(value: T, other: T, inverse: T) -> T {
    let quotient = value * inverse;
    let near = quotient > T::of(0.75) && quotient < T::of(1.375);
    let (mantissa, count) = quotient.split();
    let beyond_one = if near { (value - other) * inverse } else { mantissa - T::of(1.0) };
    let count = if near { T::of(0.0) } else { count };
    let s = beyond_one / (beyond_one + T::of(2.0));
    let square = s * s;
    let rest = s * square * polynomial::<T, FUSED>(T::LN, square);
    let fine = mul_add::<T, FUSED>(count, T::LN_2_LOW, rest);
    mul_add::<T, FUSED>(count, T::LN_2_HIGH, s + s + fine)
}

/// `a N(x)` and `b N(y)`, given `bell` = a exp(-x^2 / 2) = b exp(-y^2 / 2), where N is the normal distribution function.
#[inline(always)]
pub(crate) fn normal_shares<T: Elementary, const FUSED: bool>([x, y]: [T; 2], [a, b]: [T; 2], bell: T) -> [T; 2] {
    let (reach_x, reach_y) = (reach(x), reach(y));
    let (from_x, from_y) = (reach_x + T::of(5.0), reach_y + T::of(5.0));
    // Divisions are the most expensive operation here, so one serves both.
    let inverse = T::of(1.0) / (from_x * from_y);
    [share::<T, FUSED>(x, a, bell, reach_x, from_y * inverse), share::<T, FUSED>(y, b, bell, reach_y, from_x * inverse)]
}

/// The size of `x`, at most 64, where the bell is 0; the bound keeps the result a number where `x` is infinite.
#[inline(always)]
fn reach<T: Elementary>(x: T) -> T {
    let size = if x < T::of(0.0) { -x } else { x };
    if size > T::of(64.0) { T::of(64.0) } else { size }
}

#[inline(always)]
fn share<T: Elementary, const FUSED: bool>(x: T, whole: T, bell: T, reach: T, inverse: T) -> T {
    let mapped = (reach - T::of(5.0)) * inverse;
    let tail = bell * inverse * polynomial::<T, FUSED>(T::TAIL, mapped);
    if x > T::of(0.0) { whole - tail } else { tail }
}

#[cfg(test)]
mod tests {
    use super::{Elementary, exp, ln_quotient, normal_shares};

    /// Both ways to multiply and add, as one processor only ever takes one of them.
    fn both<T>(run: impl Fn(bool) -> T) -> [T; 2] {
        [run(false), run(true)]
    }

    fn near(value: f64, expected: f64, bound: f64) {
        assert!((value - expected).abs() <= bound * expected.abs(), "{value:e} is not {expected:e}");
    }

    #[test]
    fn exp_agrees_with_the_standard_library() {
        for step in -70_000..=70_000 {
            let x = f64::from(step) * 0.01;
            let fine = both(|fused| if fused { exp::<f64, true>(x) } else { exp::<f64, false>(x) });
            for value in fine {
                near(value, x.exp(), 1e-15);
            }
            let x = (f64::from(step) * 0.001) as f32;
            let coarse = both(|fused| if fused { exp::<f32, true>(x) } else { exp::<f32, false>(x) });
            for value in coarse {
                near(value.into(), f64::from(x).exp(), 3e-7);
            }
        }
        for x in [-1e300, f64::NEG_INFINITY] {
            assert_eq!(both(|fused| if fused { exp::<f64, true>(x) } else { exp::<f64, false>(x) }), [0.0; 2]);
        }
        assert_eq!(exp::<f64, true>(1e300), f64::INFINITY);
        assert_eq!(exp::<f64, true>(0.0), 1.0);
    }

    fn ln<T: Elementary, const FUSED: bool>(value: T, other: T) -> T {
        ln_quotient::<T, FUSED>(value, other, T::of(1.0) / other)
    }

    #[test]
    fn ln_agrees_with_the_standard_library_and_is_exact_near_one() {
        for step in -6_000..=6_000 {
            let value = (f64::from(step) * 0.1).exp();
            let expected = value.ln();
            let pair = both(|fused| if fused { ln::<f64, true>(value, 1.0) } else { ln::<f64, false>(value, 1.0) });
            for value in pair {
                near(value, expected, 1e-15);
            }
            let value = (f64::from(step) * 0.01).exp() as f32;
            let pair = both(|fused| if fused { ln::<f32, true>(value, 1.0) } else { ln::<f32, false>(value, 1.0) });
            for result in pair {
                near(result.into(), f64::from(value).ln(), 3e-7);
            }
        }
        for power in 1..50 {
            // ln(1 + e) through `ln_1p`, where the quotient itself keeps fewer and fewer digits of e.
            let step = 64.0 * 2.0_f64.powi(-power);
            near(ln::<f64, true>(64.0 + step, 64.0), (step / 64.0).ln_1p(), 1e-15);
        }
    }

    #[test]
    fn shares_of_opposite_ends_make_the_whole() {
        for step in 0..4_000 {
            let x = f64::from(step) * 0.01;
            let bell = exp::<f64, true>(-0.5 * x * x);
            let [above, below] = normal_shares::<f64, true>([x, -x], [1.0, 1.0], bell);
            assert!((above + below - 1.0).abs() < 1e-15 && below >= 0.0, "{x}");
            let plain = normal_shares::<f64, false>([x, -x], [1.0, 1.0], bell);
            assert!((above - plain[0]).abs() < 1e-15 && (below - plain[1]).abs() <= 1e-14 * below, "{x}");
        }
        // Abramowitz and Stegun, table 26.1, and N(-10) from table 26.2.
        let at = |x: f64| normal_shares::<f64, true>([x, x], [1.0, 1.0], (-0.5 * x * x).exp())[0];
        near(at(1.0), 0.841_344_746_068_542_9, 1e-15);
        near(at(-10.0), 7.619_853_024_160_527e-24, 1e-13);
        assert_eq!([at(f64::INFINITY), at(f64::NEG_INFINITY)], [1.0, 0.0]);
    }
}
