use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::aimd::within;
use super::{Algorithm, Outcome, Sample};

/// Fewer calls when they take longer than they used to, a few more while they do not.
///
/// It is `Gradient2Limit` of Netflix's [concurrency-limits](https://github.com/Netflix/concurrency-limits): the mean of a
/// window of calls is held against the mean of many windows before it, and the limit is multiplied with how much shorter
/// the long mean is, once the short one passes it by more than the tolerance. Some calls are added each time, for which
/// there is no place to run: the queue whose growth is what shows in the latency. What is different here:
/// * a window in which a call was refused or late cuts the limit by a tenth, whatever the latency;
/// * windows are of 100 ms and at least 10 calls where the library's are of a second, as calls are shorter.
///
/// It needs nothing further in that refuses, but it takes what it sees most of the time for normal: latency that is
/// raised for good, as by a load that never lets up, becomes the new measure in a minute. [`Aimd`](super::Aimd) with a bound
/// on latency has no such drift.
#[derive(Clone, Debug)]
pub struct Gradient {
    limit: f64,
    range: RangeInclusive<usize>,
    tolerance: f64,
    queue: f64,
    smoothing: f64,
    least: Duration,
    long: Mean,
    window: Option<Window>,
}

/// Calls of a window, if it is to say something.
const ENOUGH: u32 = 10;
/// How many windows the long mean looks back on.
const LONG: f64 = 600.0;
/// So many windows count alike before older ones begin to fade.
const WARM: f64 = 10.0;

#[derive(Clone, Debug)]
struct Window {
    began: Instant,
    calls: u32,
    /// Seconds, of all its calls.
    took: f64,
    most_in_flight: usize,
    overloaded: bool,
}

#[derive(Clone, Debug, Default)]
struct Mean {
    windows: f64,
    seconds: f64,
}

impl Mean {
    fn add(&mut self, seconds: f64) -> f64 {
        self.windows = (self.windows + 1.0).min(LONG);
        let weight = if self.windows <= WARM { 1.0 / self.windows } else { 2.0 / (LONG + 1.0) };
        self.seconds += (seconds - self.seconds) * weight;
        self.seconds
    }
}

impl Gradient {
    /// Begins with `limit` calls, and keeps between 1 and 1000, or `limit` where that is more.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            limit: limit as f64,
            range: 1..=limit.max(1000),
            tolerance: 1.5,
            queue: 4.0,
            smoothing: 0.2,
            least: Duration::from_millis(100),
            long: Mean::default(),
            window: None,
        }
    }

    /// Keeps the limit in `range`.
    ///
    /// # Panics
    /// Where `range` is empty or begins with 0.
    #[must_use]
    #[track_caller]
    pub fn range(self, range: RangeInclusive<usize>) -> Self {
        Self { limit: within(self.limit, &range), range, ..self }
    }

    /// Lets calls take so many times as long as usual before the limit falls, 1.5 if nothing is said.
    ///
    /// # Panics
    /// Where it is below 1.
    #[must_use]
    #[track_caller]
    pub fn tolerance(self, tolerance: f64) -> Self {
        assert!(tolerance >= 1.0, "calls take as long as usual, so a tolerance is at least 1");
        Self { tolerance, ..self }
    }

    /// Lets so many calls wait further in, 4 if nothing is said: a fifth of them is what a window adds to the limit.
    #[must_use]
    pub fn queue(self, calls: usize) -> Self {
        Self { queue: calls as f64, ..self }
    }

    /// Looks at the latency each `window`, 100 ms if nothing is said.
    #[must_use]
    pub fn window(self, window: Duration) -> Self {
        Self { least: window, ..self }
    }

    fn close(&mut self, window: &Window) {
        let short = window.took / f64::from(window.calls);
        let long = self.long.add(short);
        // After a long overload the long mean is far too high; it comes down faster than it went up.
        if long > 2.0 * short {
            self.long.seconds *= 0.95;
        }
        if window.overloaded {
            self.limit = within(self.limit * 0.9, &self.range);
            return;
        }
        // What is not used is not tried.
        if (window.most_in_flight as f64) < self.limit / 2.0 {
            return;
        }
        let gradient = if short > 0.0 { (self.tolerance * long / short).clamp(0.5, 1.0) } else { 1.0 };
        let next = self.limit * gradient + self.queue;
        self.limit = within(self.limit + (next - self.limit) * self.smoothing, &self.range);
    }
}

impl Algorithm for Gradient {
    fn limit(&self) -> usize {
        self.limit as usize
    }

    fn observe(&mut self, call: &Sample) {
        let window = self.window.get_or_insert(Window {
            began: call.ended,
            calls: 0,
            took: 0.0,
            most_in_flight: 0,
            overloaded: false,
        });
        window.calls += 1;
        window.took += call.took().as_secs_f64();
        window.most_in_flight = window.most_in_flight.max(call.in_flight);
        window.overloaded |= call.outcome == Outcome::Overloaded;
        if window.calls >= ENOUGH
            && call.ended.saturating_duration_since(window.began) >= self.least
            && let Some(window) = self.window.take()
        {
            self.close(&window);
        }
    }
}
