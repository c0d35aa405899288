//! Random delays, so that callers that failed together do not retry together.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::random::SplitMix64;

/// A source of random delays that threads share.
#[derive(Debug)]
pub(super) struct Jitter(SplitMix64);

impl Jitter {
    /// A source seeded with the process's random hash keys.
    pub(super) fn new() -> Self {
        Self(SplitMix64::new(RandomState::new().hash_one(0)))
    }

    /// A delay from zero up to but not including `max`, evenly distributed.
    pub(super) fn up_to(&self, max: Duration) -> Duration {
        let fraction = (self.0.next() >> 11) as f64 / (1_u64 << 53) as f64;
        // Rounding can exceed `Duration::MAX`.
        Duration::try_from_secs_f64(max.as_secs_f64() * fraction).unwrap_or(max).min(max)
    }
}

#[cfg(test)]
mod tests {
    use super::Jitter;
    use std::time::Duration;

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let jitter = Jitter::new();
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let delay = jitter.up_to(Duration::from_secs(10));
            tenths[delay.as_secs() as usize] += 1;
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
