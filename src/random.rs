//! SplitMix64: pseudorandom numbers that need no quality beyond being spread evenly. Nothing secret depends on them.

use std::sync::atomic::{AtomicU64, Ordering};

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The generator of Steele, Lea and Flood, *Fast splittable pseudorandom number generators* (2014). Threads can share
/// one. The same seed gives the same numbers.
#[derive(Debug)]
pub(crate) struct SplitMix64(AtomicU64);

impl SplitMix64 {
    pub(crate) fn new(seed: u64) -> Self {
        Self(AtomicU64::new(seed))
    }

    pub(crate) fn next(&self) -> u64 {
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `last`, evenly distributed but for a bias below `last` / 2^64.
    pub(crate) fn up_to(&self, last: u64) -> u64 {
        ((u128::from(self.next()) * (u128::from(last) + 1)) >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    #[test]
    fn the_numbers_are_those_of_the_reference_implementation() {
        // <https://prng.di.unimi.it/splitmix64.c> from the state 1234567.
        let random = SplitMix64::new(1_234_567);
        let numbers = std::array::from_fn(|_| random.next());
        assert_eq!(numbers, [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]);
    }
}
