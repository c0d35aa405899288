use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use super::aimd::within;
use super::{Algorithm, Outcome, Sample};

/// Lowers the limit when latency rises above its long-term mean, and raises it slowly otherwise.
///
/// This is `Gradient2Limit` of Netflix's [concurrency-limits](https://github.com/Netflix/concurrency-limits): the mean latency
/// of a window of calls is compared with the mean over many windows. The limit is multiplied by the ratio of the long mean to
/// the short one once the short one exceeds it by more than the tolerance. A few calls beyond the estimated capacity are
/// always added: the queue whose growth shows in the latency. Differences:
/// * a window with an overloaded call cuts the limit by a tenth, whatever the latency;
/// * windows last 100 ms and at least 10 calls, where the library's last a second, as calls are shorter.
///
/// The inner service need not reject anything. But a latency that stays high, as under a load that never ends, becomes the new
/// long-term mean within a minute. [`Aimd`](super::Aimd) with a latency threshold has no such drift.
#[derive(Clone, Debug)]
#[must_use]
pub struct Gradient {
    limit: f64,
    range: RangeInclusive<usize>,
    tolerance: f64,
    queue: f64,
    smoothing: f64,
    min_window: Duration,
    long: Mean,
    window: Option<Window>,
}

/// Least number of calls in a window.
const MIN_CALLS: u32 = 10;
/// Windows in the long mean.
const LONG_WINDOWS: f64 = 600.0;
/// Windows that count alike before the long mean becomes exponential.
const WARMUP_WINDOWS: f64 = 10.0;

#[derive(Clone, Debug)]
struct Window {
    started: Instant,
    calls: u32,
    /// Sum over its calls, in seconds.
    latency: f64,
    max_in_flight: usize,
    overloaded: bool,
}

#[derive(Clone, Debug, Default)]
struct Mean {
    windows: f64,
    seconds: f64,
}

impl Mean {
    fn add(&mut self, seconds: f64) -> f64 {
        self.windows = (self.windows + 1.0).min(LONG_WINDOWS);
        let weight = if self.windows <= WARMUP_WINDOWS { 1.0 / self.windows } else { 2.0 / (LONG_WINDOWS + 1.0) };
        self.seconds += (seconds - self.seconds) * weight;
        self.seconds
    }
}

impl Gradient {
    /// Starts at `limit`, and stays between 1 and 1000, or `limit` if that is more.
    pub fn new(limit: usize) -> Self {
        let limit = limit.max(1);
        Self {
            limit: limit as f64,
            range: 1..=limit.max(1000),
            tolerance: 1.5,
            queue: 4.0,
            smoothing: 0.2,
            min_window: Duration::from_millis(100),
            long: Mean::default(),
            window: None,
        }
    }

    /// Keeps the limit within `range`.
    ///
    /// # Panics
    /// If `range` is empty or starts at 0.
    #[track_caller]
    pub fn range(self, range: RangeInclusive<usize>) -> Self {
        Self { limit: within(self.limit, &range), range, ..self }
    }

    /// Sets the ratio of short-term to long-term latency above which the limit falls. The default is 1.5.
    ///
    /// # Panics
    /// If it is below 1.
    #[track_caller]
    pub fn tolerance(self, tolerance: f64) -> Self {
        assert!(tolerance >= 1.0, "the tolerance must be at least 1");
        Self { tolerance, ..self }
    }

    /// Sets how many calls beyond the estimated capacity are allowed: a fifth of them is added per window. The default is 4.
    pub fn queue(self, calls: usize) -> Self {
        Self { queue: calls as f64, ..self }
    }

    /// Sets the least duration of a window. The default is 100 ms.
    pub fn window(self, window: Duration) -> Self {
        Self { min_window: window, ..self }
    }

    fn close(&mut self, window: &Window) {
        let short = window.latency / f64::from(window.calls);
        let long = self.long.add(short);
        // After a long overload the long mean is far too high; it comes down faster than it went up.
        if long > 2.0 * short {
            self.long.seconds *= 0.95;
        }
        if window.overloaded {
            self.limit = within(self.limit * 0.9, &self.range);
            return;
        }
        // A limit that is not used is not raised.
        if (window.max_in_flight as f64) < self.limit / 2.0 {
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
            started: call.finished,
            calls: 0,
            latency: 0.0,
            max_in_flight: 0,
            overloaded: false,
        });
        window.calls += 1;
        window.latency += call.latency().as_secs_f64();
        window.max_in_flight = window.max_in_flight.max(call.in_flight);
        window.overloaded |= call.outcome == Outcome::Overloaded;
        if window.calls >= MIN_CALLS
            && call.finished.saturating_duration_since(window.started) >= self.min_window
            && let Some(window) = self.window.take()
        {
            self.close(&window);
        }
    }
}
