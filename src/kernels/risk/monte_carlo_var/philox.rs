//! Philox 4x32-10, and standard normal numbers from it.
//!
//! Salmon, Moraes, Dror and Shaw, *Parallel random numbers: as easy as 1, 2, 3* (2011). A number depends on its counter
//! and the key alone, so scenarios can be computed in any order, on any number of threads, and on a GPU:
//! `monte_carlo_var.cu` draws the same words.

use crate::kernels::authoring::elementary::{ln_quotient, mul_add};

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words.
#[inline(always)]
pub(super) fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let products = [0, 1].map(|half| u64::from(MULTIPLIERS[half]) * u64::from(counter[2 * half]));
        let [high_0, high_1] = products.map(|product| (product >> 32) as u32);
        let [low_0, low_1] = products.map(|product| product as u32);
        counter = [high_1 ^ counter[1] ^ key[0], low_1, high_0 ^ counter[3] ^ key[1], low_0];
        key = [0, 1].map(|half| key[half].wrapping_add(WEYL[half]));
    }
    counter
}

/// Two standard normal numbers by the method of Box and Muller, *A note on the generation of random normal deviates*
/// (1958). The largest is 6.8.
#[inline(always)]
pub(super) fn normals<const FUSED: bool>(words: [u32; 2]) -> [f32; 2] {
    // (word + 1/2) / 2^32, which is above 0.
    let uniform = mul_add::<f32, FUSED>(words[0] as f32, 1.0 / 4_294_967_296.0, 0.5 / 4_294_967_296.0);
    let radius = (-2.0 * ln_quotient::<f32, FUSED>(uniform, 1.0, 1.0)).max(0.0).sqrt();
    let [sine, cosine] = sine_and_cosine::<FUSED>(words[1]);
    [radius * cosine, radius * sine]
}

/// Sine and cosine of `2 pi word / 2^32`.
#[inline(always)]
fn sine_and_cosine<const FUSED: bool>(word: u32) -> [f32; 2] {
    // The nearest multiple of a quarter turn, and the angle from it, which is at most an eighth.
    let quarter = word.wrapping_add(1 << 29) >> 30;
    let rest = word.wrapping_sub(quarter << 30) as i32;
    let angle = rest as f32 * (std::f32::consts::TAU / 4_294_967_296.0);
    let square = angle * angle;
    // Taylor's series; their next terms are below the rounding of f32.
    let sine = [-1.0 / 5_040.0, 1.0 / 120.0, -1.0 / 6.0, 1.0];
    let sine = sine.into_iter().fold(1.0 / 362_880.0, |sum, term| mul_add::<f32, FUSED>(sum, square, term)) * angle;
    let cosine = [-1.0 / 720.0, 1.0 / 24.0, -0.5, 1.0];
    let cosine = cosine.into_iter().fold(1.0 / 40_320.0, |sum, term| mul_add::<f32, FUSED>(sum, square, term));
    let is_odd = quarter & 1 != 0;
    let [sine, cosine] = if is_odd { [cosine, sine] } else { [sine, cosine] };
    let sine = if quarter & 2 != 0 { -sine } else { sine };
    let cosine = if quarter.wrapping_add(1) & 2 != 0 { -cosine } else { cosine };
    [sine, cosine]
}

#[cfg(test)]
mod tests {
    use super::{normals, philox, sine_and_cosine};

    /// The known-answer vectors of the authors' library, Random123.
    #[test]
    fn words_are_those_of_random123() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        let counter = [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344];
        let words = philox(counter, [0xa409_3822, 0x299f_31d0]);
        assert_eq!(words, [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]);
    }

    #[test]
    fn sines_and_cosines_are_those_of_the_standard_library() {
        for step in 0..100_000_u32 {
            let word = step.wrapping_mul(42_949).wrapping_add(step);
            let angle = std::f64::consts::TAU * f64::from(word) / 4_294_967_296.0;
            for [sine, cosine] in [sine_and_cosine::<true>(word), sine_and_cosine::<false>(word)] {
                assert!((f64::from(sine) - angle.sin()).abs() < 2e-7, "{word}");
                assert!((f64::from(cosine) - angle.cos()).abs() < 2e-7, "{word}");
            }
        }
    }

    #[test]
    fn normals_have_the_moments_of_the_distribution() {
        let count = 1 << 18;
        let mut sums = [0.0; 4];
        for index in 0..count / 4 {
            let [a, b, c, d] = philox([index, 0, 0, 0], [7, 0]);
            for value in [normals::<true>([a, b]), normals::<true>([c, d])].into_iter().flatten() {
                for (power, sum) in sums.iter_mut().enumerate() {
                    *sum += f64::from(value).powi(power as i32 + 1);
                }
            }
        }
        let count = f64::from(count);
        // Each within five standard errors.
        for (sum, (expected, variance)) in sums.into_iter().zip([(0.0, 1.0), (1.0, 2.0), (0.0, 15.0), (3.0, 96.0)]) {
            assert!((sum / count - expected).abs() < 5.0 * f64::sqrt(variance / count), "{} {expected}", sum / count);
        }
        assert!(normals::<true>([0, 0])[0] < 6.8 && normals::<true>([u32::MAX, 0])[0] == 0.0);
    }
}
