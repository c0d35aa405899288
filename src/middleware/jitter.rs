//! Random numbers that keep callers from doing the same thing at the same moment. Nothing secret depends on them.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// A source that threads share: [SplitMix64](https://prng.di.unimi.it/splitmix64.c), seeded by the process's own keys of
/// hashing.
#[derive(Debug)]
pub(super) struct Jitter(AtomicU64);

impl Jitter {
    pub(super) fn new() -> Self {
        Self(AtomicU64::new(RandomState::new().hash_one(0)))
    }

    /// A number of at least 0 and less than 1.
    fn share(&self) -> f64 {
        const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.0.fetch_add(STEP, Ordering::Relaxed).wrapping_add(STEP);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        (z >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A time of at least zero and less than `most`, each as likely.
    pub(super) fn up_to(&self, most: Duration) -> Duration {
        // Rounding can reach past the longest time that there is.
        Duration::try_from_secs_f64(most.as_secs_f64() * self.share()).unwrap_or(most).min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::Jitter;
    use std::time::Duration;

    #[test]
    fn times_are_spread_over_all_of_the_range() {
        let jitter = Jitter::new();
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let time = jitter.up_to(Duration::from_secs(10));
            tenths[time.as_secs() as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (800..1200).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn the_longest_and_the_shortest_range_do_not_overflow() {
        let jitter = Jitter::new();
        assert_eq!(jitter.up_to(Duration::ZERO), Duration::ZERO);
        for _ in 0..100 {
            assert!(jitter.up_to(Duration::MAX) <= Duration::MAX);
        }
    }
}
