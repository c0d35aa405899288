//! [`RunTimes`]: predicts what a run of a kernel takes from what its earlier runs took.

use std::sync::atomic::{AtomicI64, AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::{BackendKind, Cost};

/// The measured run times of a kernel: for each backend and each octave of the [cost](Cost), their ratio to the estimate.
///
/// Until a few runs were measured the estimate itself is the prediction, so a process starts with what the kernel says of
/// itself. It takes a kibibyte and no locks. Of two measurements that come at the same moment, one may be lost.
#[derive(Debug)]
pub(crate) struct RunTimes {
    sizes: [[AtomicU64; OCTAVES]; BACKENDS],
    /// Nanoseconds that may still be spent on runs whose purpose is to measure them.
    exploration: AtomicI64,
    /// Short runs that have to come before the kernel is run on a caller's thread again.
    short_runs_due: AtomicU32,
}

const BACKENDS: usize = 2;
const OCTAVES: usize = u64::BITS as usize;

/// Runs of a size that count as its first ones. They load code and allocate memory for those that follow, so the fastest of
/// them counts, and nothing is predicted from fewer.
pub(crate) const FIRST_RUNS: u32 = 3;
/// The weight of a run that is not one of the first.
const WEIGHT: f32 = 1.0 / 8.0;
/// A run counts as at most so many times the prediction: one that was interrupted by something else says little.
const OUTLIER: f32 = 8.0;

/// The highest ratio, which keeps sums of ratios finite.
const MAX_RATIO: f32 = 1e18;

/// The exploration of a kernel that has not run yet.
const FIRST_EXPLORATION: Duration = Duration::from_millis(250);
/// The most that a kernel can save up for exploration, and so the most that a single exploration takes.
const MAX_EXPLORATION: Duration = Duration::from_secs(1);
/// One part in so many of the run time of a kernel is spent on exploration.
const EXPLORATION_PART: i64 = 100;

/// A run on a caller's thread keeps the other tasks of a runtime waiting, and one of more than this for too long.
const LONGEST_INLINE: Duration = Duration::from_millis(1);
/// Short runs on workers after which a kernel is run on a caller's thread again, when it was found to be too long for that.
const SHORT_RUNS: u32 = 64;

/// The bytes that are moved in the time of an arithmetic operation, to make one size of a cost.
const BYTES_PER_OPERATION: u64 = 4;

impl RunTimes {
    pub(crate) fn new() -> Self {
        Self {
            sizes: std::array::from_fn(|_| std::array::from_fn(|_| AtomicU64::new(0))),
            exploration: AtomicI64::new(nanos(FIRST_EXPLORATION)),
            short_runs_due: AtomicU32::new(0),
        }
    }

    /// Corrects the estimate of a run by what runs of its size took, or else those of the nearest size that was run.
    pub(crate) fn predict(&self, backend: BackendKind, cost: Cost, estimate: Duration) -> Duration {
        match self.nearest(backend, octave(cost)) {
            Some(Measured { ratio, .. }) => scale(estimate, ratio),
            None => estimate,
        }
    }

    /// Returns how many runs of this size were measured.
    pub(crate) fn runs(&self, backend: BackendKind, cost: Cost) -> u32 {
        self.at(backend, octave(cost)).map_or(0, |measured| measured.runs)
    }

    /// Records that a run took `took` for which the estimate was `estimate`.
    pub(crate) fn record(&self, backend: BackendKind, cost: Cost, estimate: Duration, took: Duration) {
        let ratio = took.as_secs_f32() / estimate.max(Duration::from_nanos(1)).as_secs_f32();
        let ratio = ratio.clamp(f32::MIN_POSITIVE, MAX_RATIO);
        let slot = &self.sizes[backend as usize][octave(cost)];
        let measured = match Measured::unpack(slot.load(Ordering::Relaxed)) {
            None => Measured { ratio, runs: 1 },
            Some(first) if first.runs < FIRST_RUNS => Measured { ratio: first.ratio.min(ratio), runs: first.runs + 1 },
            Some(known) => Measured {
                ratio: known.ratio + WEIGHT * (ratio.min(OUTLIER * known.ratio) - known.ratio),
                runs: known.runs.saturating_add(1),
            },
        };
        slot.store(measured.pack(), Ordering::Relaxed);
        let earned = nanos(took) / EXPLORATION_PART;
        if self.exploration.load(Ordering::Relaxed) < nanos(MAX_EXPLORATION) - earned {
            self.exploration.fetch_add(earned, Ordering::Relaxed);
        }
    }

    /// Returns whether the kernel may be run on a caller's thread, if the run is predicted to be short enough.
    pub(crate) fn may_run_inline(&self) -> bool {
        self.short_runs_due.load(Ordering::Relaxed) == 0
    }

    /// Records that a run which was predicted to be short enough for a caller's thread took `took`, whether or not it
    /// succeeded. The prediction is a mean, which says little of a kernel whose runs of one size differ.
    pub(crate) fn record_predicted_short(&self, took: Duration) {
        let due = self.short_runs_due.load(Ordering::Relaxed);
        if took > LONGEST_INLINE {
            self.short_runs_due.store(SHORT_RUNS, Ordering::Relaxed);
        } else if due > 0 {
            self.short_runs_due.store(due - 1, Ordering::Relaxed);
        }
    }

    /// Takes `time` from what may be spent on exploration. `false` if there is less.
    pub(crate) fn try_explore(&self, time: Duration) -> bool {
        let time = nanos(time);
        let enough = self.exploration.load(Ordering::Relaxed) >= time;
        if enough {
            self.exploration.fetch_sub(time, Ordering::Relaxed);
        }
        enough
    }

    fn at(&self, backend: BackendKind, octave: usize) -> Option<Measured> {
        Measured::unpack(self.sizes[backend as usize].get(octave)?.load(Ordering::Relaxed))
    }

    /// Returns the nearest size of which enough runs were measured.
    fn nearest(&self, backend: BackendKind, octave: usize) -> Option<Measured> {
        let known = |octave| self.at(backend, octave).filter(|measured| measured.runs >= FIRST_RUNS);
        let below = |distance: usize| octave.checked_sub(distance).and_then(known);
        (0..OCTAVES).find_map(|distance| known(octave + distance).or_else(|| below(distance)))
    }
}

/// What the runs of one size on one backend took.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    /// The measured time over the estimate.
    ratio: f32,
    /// Never 0.
    runs: u32,
}

impl Measured {
    fn pack(self) -> u64 {
        u64::from(self.ratio.to_bits()) << 32 | u64::from(self.runs)
    }

    fn unpack(bits: u64) -> Option<Self> {
        let runs = bits as u32;
        (runs > 0).then(|| Self { ratio: f32::from_bits((bits >> 32) as u32), runs })
    }
}

fn octave(cost: Cost) -> usize {
    let size = cost.bytes.max(cost.operations.saturating_mul(BYTES_PER_OPERATION));
    size.max(1).ilog2() as usize
}

fn scale(time: Duration, by: f32) -> Duration {
    Duration::try_from_secs_f64(time.as_secs_f64() * f64::from(by)).unwrap_or(Duration::MAX)
}

fn nanos(time: Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CPU: BackendKind = BackendKind::Cpu;
    const CUDA: BackendKind = BackendKind::Cuda;

    fn of_bytes(bytes: u64) -> Cost {
        Cost { bytes, ..Cost::default() }
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Records so many runs that they count.
    fn measure(times: &RunTimes, backend: BackendKind, cost: Cost, estimate: Duration, took: Duration) {
        (0..FIRST_RUNS).for_each(|_| times.record(backend, cost, estimate, took));
    }

    fn assert_close(time: Duration, expected: Duration) {
        let ratio = time.as_secs_f64() / expected.as_secs_f64();
        assert!((0.99..1.01).contains(&ratio), "{time:?} where {expected:?} is expected");
    }

    #[test]
    fn an_estimate_is_the_prediction_until_a_few_runs_were_measured() {
        let times = RunTimes::new();
        assert_eq!(times.predict(CPU, of_bytes(1 << 20), millis(10)), millis(10));
        times.record(CPU, of_bytes(1 << 20), millis(10), millis(40));
        assert_eq!(times.predict(CPU, of_bytes(1 << 20), millis(10)), millis(10), "the first may have loaded code");
        measure(&times, CPU, of_bytes(1 << 20), millis(10), millis(40));
        assert_close(times.predict(CPU, of_bytes(1 << 20), millis(10)), millis(40));
        assert_close(times.predict(CPU, of_bytes((1 << 21) - 1), millis(20)), millis(80));
        assert_eq!(times.predict(CUDA, of_bytes(1 << 20), millis(10)), millis(10), "another backend");
        assert_eq!((times.runs(CPU, of_bytes(1 << 20)), times.runs(CPU, of_bytes(1 << 30))), (FIRST_RUNS + 1, 0));
    }

    #[test]
    fn a_size_that_was_not_run_is_predicted_by_the_nearest_that_was() {
        let times = RunTimes::new();
        measure(&times, CPU, of_bytes(1 << 10), millis(1), millis(2));
        measure(&times, CPU, of_bytes(1 << 20), millis(1), millis(5));
        for (exponent, expected) in [(0, 2), (12, 2), (17, 5), (20, 5), (63, 5)] {
            assert_close(times.predict(CPU, of_bytes(1 << exponent), millis(1)), millis(expected));
        }
        assert_close(times.predict(CPU, Cost { operations: 1 << 18, ..Cost::default() }, millis(1)), millis(5));
        assert_close(times.predict(CPU, Cost { operations: u64::MAX, ..Cost::default() }, millis(1)), millis(5));
    }

    #[test]
    fn the_fastest_of_the_first_runs_counts_and_then_their_mean() {
        let times = RunTimes::new();
        let cost = of_bytes(64);
        for took in [500, 20, 30] {
            times.record(CUDA, cost, millis(10), millis(took));
        }
        assert_close(times.predict(CUDA, cost, millis(10)), millis(20));
        times.record(CUDA, cost, millis(10), millis(10_000));
        let after_an_outlier = times.predict(CUDA, cost, millis(10));
        assert!(after_an_outlier < millis(40), "{after_an_outlier:?}");
        (0..100).for_each(|_| times.record(CUDA, cost, millis(10), millis(70)));
        assert_close(times.predict(CUDA, cost, millis(10)), millis(70));
    }

    #[test]
    fn estimates_of_no_time_and_of_all_time_do_no_harm() {
        let times = RunTimes::new();
        measure(&times, CPU, Cost::default(), Duration::ZERO, millis(1));
        assert_eq!(times.predict(CPU, Cost::default(), Duration::ZERO), Duration::ZERO);
        measure(&times, CPU, of_bytes(1 << 40), Duration::MAX, Duration::MAX);
        assert!(times.predict(CPU, of_bytes(1 << 40), Duration::MAX) > millis(1));
        measure(&times, CUDA, of_bytes(1), Duration::from_nanos(1), Duration::MAX);
        assert_eq!(times.predict(CUDA, of_bytes(1), Duration::MAX), Duration::MAX);
    }

    #[test]
    fn a_long_run_keeps_the_kernel_off_the_callers_threads_until_enough_were_short() {
        let times = RunTimes::new();
        times.record_predicted_short(LONGEST_INLINE);
        assert!(times.may_run_inline());
        times.record_predicted_short(millis(2));
        (1..SHORT_RUNS).for_each(|_| times.record_predicted_short(Duration::ZERO));
        assert!(!times.may_run_inline());
        times.record_predicted_short(millis(2));
        for _ in 0..SHORT_RUNS {
            assert!(!times.may_run_inline());
            times.record_predicted_short(Duration::ZERO);
        }
        assert!(times.may_run_inline());
    }

    #[test]
    fn exploration_takes_a_hundredth_of_the_run_time() {
        let times = RunTimes::new();
        assert!(times.try_explore(millis(200)) && !times.try_explore(millis(100)) && times.try_explore(millis(50)));
        assert!(!times.try_explore(Duration::from_nanos(1)));
        (0..10).for_each(|_| times.record(CPU, of_bytes(1), millis(1), Duration::from_secs(1)));
        assert!(times.try_explore(millis(100)) && !times.try_explore(Duration::from_nanos(1)));
        (0..1000).for_each(|_| times.record(CPU, of_bytes(1), millis(1), Duration::from_secs(1)));
        assert!(!times.try_explore(MAX_EXPLORATION + millis(1)), "it is bounded");
    }
}
