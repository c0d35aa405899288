//! Random delays, so that callers that failed together do not retry together.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;
use std::time::Duration;

use crate::random::SplitMix64;

/// Seeded with the process's random hash keys.
static RANDOM: LazyLock<SplitMix64> = LazyLock::new(|| SplitMix64::new(RandomState::new().hash_one(0)));

/// Returns a random delay from zero up to but not including `max`, evenly distributed.
pub(super) fn random_delay(max: Duration) -> Duration {
    let fraction = (RANDOM.next() >> 11) as f64 / (1_u64 << 53) as f64;
    // Rounding can exceed `Duration::MAX`.
    Duration::try_from_secs_f64(max.as_secs_f64() * fraction).unwrap_or(max).min(max)
}

#[cfg(test)]
mod tests {
    use super::random_delay;
    use std::time::Duration;

    #[test]
    fn delays_are_spread_over_the_whole_range() {
        let mut tenths = [0; 10];
        for _ in 0..10_000 {
            let delay = random_delay(Duration::from_secs(10));
            tenths[delay.as_secs() as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (800..1200).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn the_longest_and_the_shortest_range_do_not_overflow() {
        assert_eq!(random_delay(Duration::ZERO), Duration::ZERO);
        for _ in 0..100 {
            assert!(random_delay(Duration::MAX) <= Duration::MAX);
        }
    }
}
