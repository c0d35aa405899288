use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::{ErrorKind, ErrorKinds};

/// When circuits open and close, and how many there are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Settings {
    /// Consecutive failures that open the circuit.
    pub(super) consecutive_failures: Option<u32>,
    /// Share of failed calls in the window that opens the circuit.
    pub(super) failure_rate: Option<f64>,
    /// How long a call takes at most that is not slow. `None`: no call is.
    pub(super) slow_over: Option<Duration>,
    /// Share of slow calls in the window that opens the circuit.
    pub(super) slow_share: f64,
    pub(super) window: Duration,
    /// Calls that the window must have before shares count.
    pub(super) min_calls: u32,
    /// The open time doubles from here up to the maximum, less a random part of up to a quarter.
    pub(super) initial_open_time: Duration,
    pub(super) max_open_time: Duration,
    /// Concurrent probes.
    pub(super) max_probes: u32,
    /// Successful probes that close the circuit.
    pub(super) required_successes: u32,
    /// Error kinds that are failures.
    pub(super) failures: ErrorKinds,
    /// The shortest timeout chosen by a caller whose expiry is a failure. `None`: no such expiry is.
    pub(super) min_caller_timeout: Option<Duration>,
    /// Whether `poll_ready` is pending while the circuit is open.
    pub(super) unready_while_open: bool,
    /// Keys with a circuit of their own. `None`: one circuit for all requests.
    pub(super) max_keys: Option<usize>,
    /// Open circuits of tenants that open the circuit of the operation. `None`: tenants have no circuits of their own.
    pub(super) min_open_tenants: Option<NonZeroU32>,
}

/// The longest window and open time: 30 years, as a time further away may not fit an `Instant`.
pub(super) const MAX_TIME: Duration = Duration::from_secs(86_400 * 365 * 30);

impl Default for Settings {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_over: None,
            slow_share: 1.0,
            window: Duration::from_secs(10),
            min_calls: 20,
            initial_open_time: Duration::from_secs(1),
            max_open_time: Duration::from_secs(60),
            max_probes: 1,
            required_successes: 1,
            failures: ErrorKinds::of(&[ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::DeadlineExceeded]),
            min_caller_timeout: None,
            unready_while_open: false,
            max_keys: None,
            min_open_tenants: None,
        }
    }
}
