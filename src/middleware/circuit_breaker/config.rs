use std::num::NonZeroU32;
use std::time::Duration;

use crate::error::{ErrorKind, ErrorKinds};

/// Configuration of a [`CircuitBreakerLayer`](super::CircuitBreakerLayer): when circuits open and close, and how many
/// there are.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CircuitBreakerConfig {
    /// Consecutive failures that open the circuit; 5 by default. `None`: any number may fail.
    pub consecutive_failures: Option<u32>,
    /// Share of failed calls in the window that opens the circuit, above 0 and at most 1; 0.5 by default. `None`: any share
    /// may fail.
    pub failure_rate: Option<f64>,
    /// Duration above which a call is slow, whether it succeeds, fails or is cancelled. `None`, the default: none is slow.
    pub slow_call_duration: Option<Duration>,
    /// Share of slow calls in the window that opens the circuit, above 0 and at most 1; 1 by default.
    pub slow_call_rate: f64,
    /// Length of the sliding window, longer than zero; 10 seconds by default.
    pub window: Duration,
    /// Calls that must have ended in the window before shares of them open the circuit; 20 by default.
    pub min_calls: u32,
    /// How long the circuit stays open at first, longer than zero; 1 second by default. The time doubles whenever a probe
    /// fails or the circuit opens again soon after it has closed. A random part of up to a quarter is subtracted, so that
    /// many processes do not probe at the same time.
    pub initial_open_time: Duration,
    /// How long the circuit stays open at most; 60 seconds by default.
    pub max_open_time: Duration,
    /// Calls that are admitted at a time as probes once the open time is over, at least 1; 1 by default. A probe that fails
    /// or is slow opens the circuit again.
    pub max_probes: u32,
    /// Probes that must succeed to close the circuit; 1 by default.
    pub required_successes: u32,
    /// Kinds of errors, and of responses that are rejections, that are failures: `Internal`, `Unavailable` and
    /// `DeadlineExceeded` by default. All other kinds count neither as failures nor as successes.
    pub failures: ErrorKinds,
    /// Counts an expired deadline that the caller chose as a failure if it allowed at least this time. `None`, the default:
    /// none counts, as a client with short deadlines would otherwise close the service to all others.
    ///
    /// A server's own timeout always counts: that of a [`TimeoutLayer`](crate::layers::TimeoutLayer) inside the breaker,
    /// and a deadline that [is a server's timeout](crate::request::RequestContext::deadline_is_server_timeout).
    pub min_caller_timeout: Option<Duration>,
    /// Makes `poll_ready` pending while the circuit is open, instead of rejecting calls. A balancer then skips the service;
    /// one that rejects at once would have the lowest load and receive every call. Has no effect on circuits per operation
    /// or key, as readiness does not know the request.
    pub unready_while_open: bool,
    /// Operations or keys that have a circuit of their own; 1 024 by default. New ones past that share one, until idle
    /// circuits are removed: those without recent failures, and those that are not called any more.
    pub max_keys: usize,
    /// Has a circuit for each tenant in an operation or key, so that calls that fail for one tenant are rejected for that
    /// tenant alone. While the circuits of this many tenants are open, the operation's own circuit opens for all. `None`,
    /// the default: tenants have no circuits of their own.
    ///
    /// A tenant's circuit is created at its first failure. There are at most 4 096 of them, for all operations together;
    /// the tenants past that share one for each operation. Requests without a tenant belong to the operation's own circuit.
    /// Has no effect on one circuit for all requests.
    pub min_open_tenants: Option<NonZeroU32>,
}

impl Default for CircuitBreakerConfig {
    fn default() -> Self {
        Self {
            consecutive_failures: Some(5),
            failure_rate: Some(0.5),
            slow_call_duration: None,
            slow_call_rate: 1.0,
            window: Duration::from_secs(10),
            min_calls: 20,
            initial_open_time: Duration::from_secs(1),
            max_open_time: Duration::from_secs(60),
            max_probes: 1,
            required_successes: 1,
            failures: ErrorKinds::of(&[ErrorKind::Internal, ErrorKind::Unavailable, ErrorKind::DeadlineExceeded]),
            min_caller_timeout: None,
            unready_while_open: false,
            max_keys: 1024,
            min_open_tenants: None,
        }
    }
}
