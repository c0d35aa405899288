//! How fast what is ahead gets less.
//!
//! The work of a call that has ended is what it took by itself, where that is known, and not what it was expected to take:
//! an estimate that is off would be in the rate as well, and stay there once the estimate has been put right.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::estimate::nanos;
use crate::sync::Mutex;

/// Work done in a unit of time: 4 where four places do what they do in the time that each of it takes by itself.
///
/// It is measured while there is more to do than there are places, as at other times it says how much was asked for.
#[derive(Debug)]
pub(super) struct Drain {
    /// As told; `None` where the rate itself is all that is known of it.
    parallelism: Option<usize>,
    /// As many as run beside each other, as far as that is known.
    places: AtomicUsize,
    /// The bits of a float.
    rate: AtomicU64,
    /// Whether the last call that ended left one for each place: a look at it, where there is nothing to measure, is all
    /// that a call costs.
    busy: AtomicBool,
    /// Whether the rate was told or has been measured, and is no guess.
    known: AtomicBool,
    /// Whether a call has been refused since a place was free.
    refused: AtomicBool,
    window: Mutex<Window>,
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
pub(super) enum End {
    /// It was work of so many nanoseconds.
    Answered(u64),
    Unanswered,
    /// Nothing was known of how long it would take, so what is measured meanwhile says nothing.
    Unknown,
}

/// What was done while there was more to do than there are places, in one stretch or in many.
#[derive(Debug, Default)]
struct Window {
    /// `None` while places are free.
    stretch: Option<Stretch>,
    /// Nanoseconds.
    elapsed: u64,
    ended: usize,
    /// Nanoseconds.
    work: u64,
    /// Whether anything has been measured before.
    measured: bool,
}

/// A time without a free place.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    since: Instant,
    /// When the last call ended.
    last: Instant,
}

/// So much says something: this many calls, four of each place, and for so many nanoseconds.
const ENOUGH: usize = 16;
const LONG_ENOUGH: u64 = 5_000_000;

impl Drain {
    pub(super) fn new(parallelism: Option<usize>) -> Self {
        let begin = parallelism.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
        Self {
            parallelism,
            places: AtomicUsize::new(begin),
            rate: AtomicU64::new((begin as f64).to_bits()),
            busy: AtomicBool::new(false),
            known: AtomicBool::new(parallelism.is_some()),
            refused: AtomicBool::new(false),
            window: Mutex::default(),
        }
    }

    /// Whether there is more to go by than the number of processors.
    #[inline]
    pub(super) fn is_known(&self) -> bool {
        self.known.load(Ordering::Relaxed)
    }

    /// Nanoseconds until so many of work are done.
    pub(super) fn time(&self, work: u64) -> u64 {
        (work as f64 / f64::from_bits(self.rate.load(Ordering::Relaxed))) as u64
    }

    /// As many as run beside each other, as far as that is known.
    #[inline]
    pub(super) fn places(&self) -> usize {
        self.places.load(Ordering::Relaxed)
    }

    /// With so many ahead the next one is expected to wait. Where the parallelism is learned there is one place more
    /// than is known of, or it would never be seen that there are more.
    #[inline]
    pub(super) fn is_busy(&self, in_flight: usize) -> bool {
        in_flight >= self.places() + usize::from(self.parallelism.is_none())
    }

    /// A call has been refused for what is ahead of it.
    pub(super) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// For how long no place has been free, if calls have been refused since.
    pub(super) fn stands_for(&self, now: Instant) -> Duration {
        if !self.refused.load(Ordering::Relaxed) || !self.busy.load(Ordering::Relaxed) {
            return Duration::ZERO;
        }
        let stretch = self.window.lock().stretch;
        stretch.map_or(Duration::ZERO, |stretch| now.saturating_duration_since(stretch.since))
    }

    /// Whether [`ended`](Self::ended) has to hear that one of `in_flight` has ended.
    #[inline]
    pub(super) fn is_concerned(&self, in_flight: usize) -> bool {
        in_flight > self.places() || self.busy.load(Ordering::Relaxed)
    }

    /// One of `in_flight` has ended.
    #[inline(never)]
    pub(super) fn ended(&self, in_flight: usize, end: End, now: Instant) {
        let places = self.places();
        // With this one gone, is there still one for each place?
        let busy = in_flight > places;
        let mut window = self.window.lock();
        self.busy.store(busy, Ordering::Relaxed);
        if !busy {
            self.refused.store(false, Ordering::Relaxed);
        }
        let before = window.stretch.take();
        let since = before.map_or(now, |before| before.since);
        window.stretch = busy.then_some(Stretch { since, last: now });
        // There has been one for each place since the last one ended, if that left so many.
        let Some(before) = before else { return };
        window.elapsed += nanos(now.saturating_duration_since(before.last));
        match end {
            End::Unanswered => return,
            End::Unknown => {
                *window = Window { stretch: window.stretch, measured: window.measured, ..Window::default() };
                return;
            }
            End::Answered(work) => {
                window.ended += 1;
                window.work = window.work.saturating_add(work);
            }
        }
        if window.ended >= ENOUGH.max(4 * places) && window.elapsed >= LONG_ENOUGH {
            self.learn(&window);
            *window = Window { stretch: window.stretch, measured: true, ..Window::default() };
        }
    }

    fn learn(&self, window: &Window) {
        let measured = window.work as f64 / window.elapsed as f64;
        let rate = f64::from_bits(self.rate.load(Ordering::Relaxed));
        // The number of processors is no more than a guess.
        let weight = if window.measured || self.parallelism.is_some() { 0.25 } else { 1.0 };
        let next = (rate + (measured - rate) * weight).max(0.001);
        self.rate.store(next.to_bits(), Ordering::Relaxed);
        self.known.store(true, Ordering::Relaxed);
        if self.parallelism.is_none() {
            self.places.store((next.round() as usize).max(1), Ordering::Relaxed);
        }
    }
}
