use std::time::{Duration, Instant};

use crate::error::{ErrorKind, ErrorKinds};
use crate::middleware::clock;
use crate::middleware::jitter::Jitter;

/// When a circuit opens and closes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// So many failures after one another.
    pub(super) consecutive: Option<u32>,
    /// The share of the window's calls that failed.
    pub(super) failure_rate: Option<f64>,
    pub(super) slow: Option<Slow>,
    pub(super) window: Duration,
    /// A share of fewer calls says nothing.
    pub(super) min_calls: u32,
    pub(super) open: Duration,
    pub(super) open_most: Duration,
    /// Probes at a time.
    pub(super) probes: u32,
    /// Probes that must succeed.
    pub(super) successes: u32,
    pub(super) failures: ErrorKinds,
    /// A deadline of the caller's own that left this long and has passed is a failure. `None`: none ever is.
    pub(super) patience: Option<Duration>,
    /// Whether it is not ready while it is open.
    pub(super) hold: bool,
    /// What times are counted from.
    pub(super) epoch: Instant,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Slow {
    pub(super) over: Duration,
    pub(super) share: f64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive: Some(5),
            failure_rate: Some(0.5),
            slow: None,
            window: Duration::from_secs(10),
            min_calls: 20,
            open: Duration::from_secs(1),
            open_most: Duration::from_secs(60),
            probes: 1,
            successes: 1,
            failures: ErrorKinds::of(&[ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::DeadlineExceeded]),
            patience: None,
            hold: false,
            epoch: clock::read(),
        }
    }
}

impl Settings {
    /// How long a circuit stays open that opens for the `trips`th time after one another: twice as long each time, up to
    /// the bound, less a random part of up to a quarter.
    pub(super) fn open_time(&self, trips: u32, jitter: &Jitter) -> Duration {
        let doubled = 1_u32.checked_shl(trips.saturating_sub(1)).unwrap_or(u32::MAX);
        let time = self.open.saturating_mul(doubled).min(self.open_most);
        time - jitter.up_to(time / 4)
    }
}
