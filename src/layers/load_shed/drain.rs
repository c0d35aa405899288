//! How fast what is ahead gets less.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Estimated work done in a unit of time: 4 where four places do what was estimated in the time that was estimated.
///
/// It is measured while there is more to do than there are places, as at other times it says how much was asked for.
/// Estimates that are all off by the same factor are off in it as well, so that what is ahead over it still is a time.
#[derive(Debug)]
pub(super) struct Drain {
    /// As told; `None` where the rate itself is all that is known of it.
    parallelism: Option<usize>,
    /// The bits of a float.
    rate: AtomicU64,
    window: Mutex<Window>,
}

#[derive(Debug, Default)]
struct Window {
    /// `None` while places are free.
    since: Option<Instant>,
    ended: usize,
    /// Nanoseconds.
    work: u64,
    /// Whether anything has been measured before.
    measured: bool,
}

/// So much says something: this many calls, four of each place, and for this long.
const ENOUGH: usize = 16;
const LONG_ENOUGH: Duration = Duration::from_millis(5);

impl Drain {
    pub(super) fn new(parallelism: Option<usize>) -> Self {
        let begin = parallelism.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Self { parallelism, rate: AtomicU64::new((begin as f64).to_bits()), window: Mutex::default() }
    }

    pub(super) fn rate(&self) -> f64 {
        f64::from_bits(self.rate.load(Ordering::Relaxed))
    }

    /// As many as run beside each other, as far as that is known.
    pub(super) fn places(&self) -> usize {
        self.parallelism.unwrap_or_else(|| (self.rate().round() as usize).max(1))
    }

    /// With so many ahead the next one is expected to wait. Where the parallelism is learned there is one place more
    /// than is known of, or it would never be seen that there are more.
    pub(super) fn is_busy(&self, in_flight: usize) -> bool {
        in_flight >= self.places() + usize::from(self.parallelism.is_none())
    }

    /// One of `in_flight` has ended; where it did its work, it was estimated at `work`.
    pub(super) fn ended(&self, in_flight: usize, work: Option<u64>, now: Instant) {
        let places = self.places();
        let mut window = self.window.lock().unwrap_or_else(PoisonError::into_inner);
        // With this one gone, is there still one for each place?
        if in_flight <= places {
            window.since = None;
            return;
        }
        let Some(since) = window.since else {
            *window = Window { since: Some(now), ended: 0, work: 0, ..*window };
            return;
        };
        let Some(work) = work else { return };
        window.ended += 1;
        window.work = window.work.saturating_add(work);
        let elapsed = now.saturating_duration_since(since);
        if window.ended >= ENOUGH.max(4 * places) && elapsed >= LONG_ENOUGH {
            let measured = window.work as f64 / elapsed.as_nanos() as f64;
            let rate = self.rate();
            // The number of processors is no more than a guess.
            let weight = if window.measured || self.parallelism.is_some() { 0.25 } else { 1.0 };
            let next = (rate + (measured - rate) * weight).max(0.001);
            self.rate.store(next.to_bits(), Ordering::Relaxed);
            *window = Window { since: Some(now), ended: 0, work: 0, measured: true };
        }
    }
}
