//! How fast the line moves.

use std::time::{Duration, Instant};

/// The time between turns while somebody waits, smoothed over some eight of them.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// The last turn, unless nobody waited after it.
    last: Option<Instant>,
    /// Seconds; `None` until two turns have followed each other.
    interval: Option<f64>,
}

impl Pace {
    /// Somebody had a turn. An empty line says nothing of how fast it would move.
    pub(super) fn turn(&mut self, now: Instant, was_last: bool) {
        if let Some(last) = self.last {
            let seconds = now.saturating_duration_since(last).as_secs_f64();
            let interval = self.interval.get_or_insert(seconds);
            *interval += (seconds - *interval) / 8.0;
        }
        self.last = (!was_last).then_some(now);
    }

    /// How long so many turns take, and one more.
    pub(super) fn time(&self, turns: usize) -> Option<Duration> {
        Duration::try_from_secs_f64(self.interval? * (turns as f64 + 1.0)).ok()
    }
}
