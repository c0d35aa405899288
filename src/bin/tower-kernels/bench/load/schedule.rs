//! The times at which requests are due.

use std::time::Duration;

use super::super::args::Arrivals;

/// An endless iterator over the times at which requests of one thread are due, from the start.
///
/// At a constant rate, threads take turns. With Poisson arrivals, each thread has a process of its share of the rate, which
/// add up to one of the whole rate.
#[derive(Clone, Debug)]
pub(super) struct Schedule {
    times: Times,
}

#[derive(Clone, Debug)]
enum Times {
    Constant { next: u64, step: u64, rate: f64 },
    Poisson { seconds: f64, rate: f64, random: SplitMix },
}

impl Schedule {
    pub(super) fn new(arrivals: Arrivals, rate: f64, thread: usize, threads: usize) -> Self {
        let (thread, threads) = (thread as u64, threads as u64);
        let times = match arrivals {
            Arrivals::Constant => Times::Constant { next: thread, step: threads, rate },
            // Fixed seeds, so that runs that are compared have the same arrivals.
            Arrivals::Poisson => Times::Poisson { seconds: 0.0, rate: rate / threads as f64, random: SplitMix(thread) },
        };
        Self { times }
    }
}

impl Iterator for Schedule {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let seconds = match &mut self.times {
            // From the count, as adding intervals would accumulate rounding errors.
            Times::Constant { next, step, rate } => {
                let seconds = *next as f64 / *rate;
                *next += *step;
                seconds
            }
            Times::Poisson { seconds, rate, random } => {
                *seconds -= (1.0 - random.unit()).ln() / *rate;
                *seconds
            }
        };
        Some(Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX))
    }
}

/// SplitMix64: Steele, Lea and Flood, *Fast splittable pseudorandom number generators* (2014).
#[derive(Clone, Debug)]
struct SplitMix(u64);

impl SplitMix {
    /// A number in `0.0..1.0`.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All threads' times in the first `seconds`, in order.
    fn times(arrivals: Arrivals, rate: f64, threads: usize, seconds: u64) -> Vec<Duration> {
        let end = Duration::from_secs(seconds);
        let of = |thread| Schedule::new(arrivals, rate, thread, threads).take_while(move |&due| due < end);
        let mut times: Vec<_> = (0..threads).flat_map(of).collect();
        times.sort();
        times
    }

    #[test]
    fn threads_together_keep_a_constant_rate() {
        for threads in [1, 3] {
            let times = times(Arrivals::Constant, 1000.0, threads, 2);
            assert_eq!(times.len(), 2000);
            for (index, time) in times.iter().enumerate() {
                assert_eq!(time.as_micros().abs_diff(1000 * index as u128) / 2, 0, "{threads}: {index}");
            }
        }
    }

    #[test]
    fn a_constant_rate_does_not_drift() {
        let millionth = Schedule::new(Arrivals::Constant, 3.0, 0, 1).nth(3_000_000).unwrap();
        assert!(millionth.abs_diff(Duration::from_secs(1_000_000)) < Duration::from_micros(1), "{millionth:?}");
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_spread_of_a_poisson_process() {
        for threads in [1, 4] {
            let times = times(Arrivals::Poisson, 1000.0, threads, 100);
            // 100 000 expected, with a standard deviation of 316.
            assert!(times.len().abs_diff(100_000) < 1500, "{threads}: {}", times.len());
            let gaps: Vec<f64> = times.windows(2).map(|pair| (pair[1] - pair[0]).as_secs_f64()).collect();
            let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
            let variance = gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64;
            // The gaps of a Poisson process are exponential: their deviation is their mean.
            assert!((variance.sqrt() / mean - 1.0).abs() < 0.02, "{threads}: {}", variance.sqrt() / mean);
        }
    }

    #[test]
    fn two_runs_have_the_same_arrivals() {
        let once = times(Arrivals::Poisson, 100.0, 2, 10);
        assert_eq!(once, times(Arrivals::Poisson, 100.0, 2, 10));
    }
}
