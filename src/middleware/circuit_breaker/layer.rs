use std::fmt::Display;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::circuits::{PerKey, PerOperation, SingleCircuit, Snapshots};
use super::settings::{MAX_TIME, Settings, SlowCalls};
use super::{CircuitBreaker, CircuitBreakerHandle, CircuitSnapshot};
use crate::error::ErrorKinds;

/// Rejects calls while too many fail. See the [module](super).
///
/// Clones share the circuits. The methods that configure the layer begin with new circuits, so configure first and clone
/// after. Choose [`per_operation`](Self::per_operation) or [`per_key`](Self::per_key) last.
#[derive(Debug)]
pub struct CircuitBreakerLayer<C = SingleCircuit> {
    circuits: Arc<C>,
}

const DEFAULT_MAX_KEYS: usize = 1024;

impl CircuitBreakerLayer {
    /// Creates a layer that opens after 5 consecutive failures, or when half of 20 or more calls of the last 10 seconds
    /// have failed; that stays open for 1 second at first and 60 at most; and that admits one probe at a time and closes
    /// when one has succeeded.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { circuits: Arc::new(SingleCircuit::new(settings)) }
    }

    fn settings(&self) -> &Settings {
        &self.circuits.0.settings
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = *self.settings();
        set(&mut settings);
        Self::with(settings)
    }

    /// Sets how many consecutive failures open the circuit. `None`: any number may fail.
    #[must_use]
    pub fn consecutive_failures(self, max: impl Into<Option<u32>>) -> Self {
        let max = max.into().map(|max| max.max(1));
        self.set(|settings| settings.consecutive_failures = max)
    }

    /// Sets the share of failed calls in the [window](Self::window) that opens the circuit, above 0 and up to 1. `None`:
    /// any share may fail.
    ///
    /// # Panics
    /// If the share is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn failure_rate(self, share: impl Into<Option<f64>>) -> Self {
        let share = share.into();
        share.into_iter().for_each(check_share);
        self.set(|settings| settings.failure_rate = share)
    }

    /// Opens the circuit when this share of the calls in the [window](Self::window) has taken longer than `over`. Calls
    /// that fail or are cancelled after that time count as slow too.
    ///
    /// # Panics
    /// If the share is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn slow_calls(self, over: Duration, share: f64) -> Self {
        check_share(share);
        self.set(|settings| settings.slow_calls = Some(SlowCalls { over, share }))
    }

    /// Sets the length of the sliding window, and how many calls must have ended in it before shares of them open the
    /// circuit.
    ///
    /// # Panics
    /// If the length is zero.
    #[must_use]
    #[track_caller]
    pub fn window(self, length: Duration, min_calls: u32) -> Self {
        assert!(!length.is_zero(), "the window of a circuit breaker must be longer than zero");
        self.set(|settings| (settings.window, settings.min_calls) = (length.min(MAX_TIME), min_calls))
    }

    /// Sets how long the circuit stays open: `initial`, and twice as long each time that a probe fails or that it opens
    /// again soon after it has closed, up to `max`. A random part of up to a quarter is subtracted, so that many processes
    /// do not probe at the same time.
    ///
    /// # Panics
    /// If `initial` is zero.
    #[must_use]
    #[track_caller]
    pub fn open_for(self, initial: Duration, max: Duration) -> Self {
        assert!(!initial.is_zero(), "a circuit must stay open for longer than zero");
        let initial = initial.min(MAX_TIME);
        let max = max.clamp(initial, MAX_TIME);
        self.set(|settings| (settings.initial_open_time, settings.max_open_time) = (initial, max))
    }

    /// Sets how many calls are admitted at a time as probes once the open time is over, and how many of them must succeed
    /// to close the circuit. A probe that fails or is slow opens it again.
    #[must_use]
    pub fn probes(self, max_concurrent: u32, required_successes: u32) -> Self {
        self.set(|settings| {
            (settings.max_probes, settings.required_successes) = (max_concurrent.max(1), required_successes.max(1));
        })
    }

    /// Sets which kinds of errors, and of responses that are rejections, are failures: `Internal`, `Unavailable` and
    /// `DeadlineExceeded` by default. All other kinds count neither as failures nor as successes.
    #[must_use]
    pub fn failures(self, kinds: impl Into<ErrorKinds>) -> Self {
        let kinds = kinds.into();
        self.set(|settings| settings.failures = kinds)
    }

    /// Counts an expired deadline that the caller chose as a failure if it allowed at least `min`. By default none counts,
    /// as a client with short deadlines would otherwise close the service to all others.
    ///
    /// A server's own timeout always counts: that of a [`TimeoutLayer`](crate::layers::TimeoutLayer) inside the breaker,
    /// and a deadline that [is a server's timeout](crate::request::RequestContext::deadline_is_server_timeout).
    #[must_use]
    pub fn min_caller_timeout(self, min: Duration) -> Self {
        self.set(|settings| settings.min_caller_timeout = Some(min))
    }

    /// Makes `poll_ready` pending while the circuit is open, instead of rejecting calls. A balancer then skips the service;
    /// one that rejects at once would have the lowest load and receive every call. Has no effect on circuits per operation
    /// or key, as readiness does not know the request.
    #[must_use]
    pub fn unready_while_open(self) -> Self {
        self.set(|settings| settings.unready_while_open = true)
    }

    /// Has a circuit for each operation, such as a kernel or a route, instead of one for all.
    #[must_use]
    pub fn per_operation(self) -> CircuitBreakerLayer<PerOperation> {
        CircuitBreakerLayer { circuits: Arc::new(PerOperation::new(*self.settings(), DEFAULT_MAX_KEYS, None)) }
    }

    /// Has a circuit for each key. Requests for which `key` returns `None` share one.
    ///
    /// ```
    /// use tower_kernels::layers::CircuitBreakerLayer;
    ///
    /// let by_host = CircuitBreakerLayer::new()
    ///     .per_key(|request: &http::Request<()>| request.uri().host().map(str::to_owned));
    /// ```
    #[must_use]
    pub fn per_key<R, K, F>(self, key: F) -> CircuitBreakerLayer<PerKey<K, F>>
    where
        F: Fn(&R) -> Option<K>,
        K: Hash + Eq + Clone + Display,
    {
        CircuitBreakerLayer { circuits: Arc::new(PerKey::new(*self.settings(), DEFAULT_MAX_KEYS, key)) }
    }

    /// Returns the current state of the circuit.
    pub fn snapshot(&self) -> CircuitSnapshot {
        self.circuits.0.snapshot()
    }
}

#[track_caller]
fn check_share(share: f64) {
    assert!(share > 0.0 && share <= 1.0, "a share of the calls must be above 0 and at most 1");
}

impl CircuitBreakerLayer<PerOperation> {
    /// Has a circuit for each tenant in an operation, so that calls that fail for one tenant are rejected for that tenant
    /// alone. While the circuits of `min_open` tenants are open, the operation's own circuit opens for all. Requests
    /// without a tenant belong to the operation's own circuit.
    ///
    /// A tenant's circuit is created at its first failure. There are at most 4 096 of them, for all operations together;
    /// the tenants past that share one for each operation.
    #[must_use]
    pub fn per_tenant(self, min_open: NonZeroU32) -> Self {
        let PerOperation { settings, max, .. } = *self.circuits;
        Self { circuits: Arc::new(PerOperation::new(settings, max, Some(min_open))) }
    }

    /// Sets how many operations have a circuit of their own: 1 024 by default. New ones past that share one, until idle
    /// circuits are removed: those without recent failures, and those that are not called any more.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        let min_open_tenants = self.circuits.min_open_tenants();
        Self { circuits: Arc::new(PerOperation::new(self.circuits.settings, max_keys, min_open_tenants)) }
    }

    /// Returns the current state of all circuits, by operation; the shared one is last.
    pub fn snapshot(&self) -> Vec<CircuitSnapshot> {
        self.circuits.snapshots()
    }
}

impl<K, F> CircuitBreakerLayer<PerKey<K, F>> {
    /// Sets how many keys have a circuit of their own: 1 024 by default. New ones past that share the circuit of the
    /// requests without a key, until idle circuits are removed: those without recent failures, and those that are not
    /// called any more.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self
    where
        F: Clone,
    {
        let key = self.circuits.key.clone();
        Self { circuits: Arc::new(PerKey::new(self.circuits.settings, max_keys, key)) }
    }
}

#[allow(private_bounds, reason = "implemented by every choice of circuits; no caller needs its methods")]
impl<C: Snapshots + 'static> CircuitBreakerLayer<C> {
    /// Returns a handle that reads the circuits, for health pages and metrics.
    pub fn handle(&self) -> CircuitBreakerHandle {
        let circuits: Arc<C> = Arc::clone(&self.circuits);
        CircuitBreakerHandle::new(circuits)
    }
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, C> Layer<S> for CircuitBreakerLayer<C> {
    type Service = CircuitBreaker<S, C>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, Arc::clone(&self.circuits))
    }
}

// By hand, as a derive would require `C: Clone`.
impl<C> Clone for CircuitBreakerLayer<C> {
    fn clone(&self) -> Self {
        Self { circuits: Arc::clone(&self.circuits) }
    }
}
