//! How fast the queue drains.

use std::time::{Duration, Instant};

/// The mean time between turns while calls wait, over about the last eight turns.
#[derive(Debug, Default)]
pub(super) struct ServiceRate {
    /// The last turn, unless it emptied the queue.
    last: Option<Instant>,
    /// Seconds; `None` until two turns have followed each other.
    interval: Option<f64>,
}

impl ServiceRate {
    /// Records a turn. The time in which the queue is empty says nothing about its rate.
    pub(super) fn observe(&mut self, now: Instant, is_empty: bool) {
        if let Some(last) = self.last {
            let seconds = now.saturating_duration_since(last).as_secs_f64();
            let interval = self.interval.get_or_insert(seconds);
            *interval += (seconds - *interval) / 8.0;
        }
        self.last = (!is_empty).then_some(now);
    }

    /// The expected time until this many turns and one more have passed.
    pub(super) fn time_for(&self, turns: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.interval? * (turns as f64 + 1.0)).ok()
    }
}
