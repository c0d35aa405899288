use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::circuits::Circuits;
use super::settings::{MAX_TIME, Settings};
use super::{CircuitBreaker, CircuitBreakerHandle, CircuitSnapshot, PerOperation, SingleCircuit};
use crate::error::ErrorKinds;
use crate::middleware::derive::{derive_clone, derive_debug};

/// Rejects calls while too many fail. See the [module](super).
///
/// Clones share the circuits. The methods that configure the layer begin with new circuits, so configure first and clone
/// after.
pub struct CircuitBreakerLayer<K = SingleCircuit> {
    circuits: Arc<Circuits>,
    key: Arc<K>,
}

derive_clone!(CircuitBreakerLayer::<K> { circuits, key });
derive_debug!(CircuitBreakerLayer::<K> { circuits });

const DEFAULT_MAX_KEYS: usize = 1024;

impl CircuitBreakerLayer {
    /// Creates a layer that opens after 5 consecutive failures, or when half of 20 or more calls of the last 10 seconds
    /// have failed; that stays open for 1 second at first and 60 at most; and that admits one probe at a time and closes
    /// when one has succeeded.
    pub fn new() -> Self {
        Self { circuits: Arc::new(Circuits::new(Settings::default())), key: Arc::new(SingleCircuit) }
    }

    /// Has a circuit for each operation, such as a kernel or a route, instead of one for all.
    #[must_use]
    pub fn per_operation(self) -> CircuitBreakerLayer<PerOperation> {
        self.keyed(PerOperation)
    }

    /// Has a circuit for each key, a text. Requests for which `key` returns `None` share one.
    ///
    /// ```
    /// use tower_kernels::layers::CircuitBreakerLayer;
    ///
    /// let by_host = CircuitBreakerLayer::new()
    ///     .per_key(|request: &http::Request<()>| request.uri().host().map(str::to_owned));
    /// ```
    #[must_use]
    pub fn per_key<R, K, F>(self, key: F) -> CircuitBreakerLayer<F>
    where
        F: Fn(&R) -> Option<K>,
        K: AsRef<str>,
    {
        self.keyed(key)
    }

    fn keyed<K>(self, key: K) -> CircuitBreakerLayer<K> {
        let layer = self.set(|settings| settings.max_keys = Some(DEFAULT_MAX_KEYS));
        CircuitBreakerLayer { circuits: layer.circuits, key: Arc::new(key) }
    }

    /// Returns the current state of the circuit.
    pub fn snapshot(&self) -> CircuitSnapshot {
        self.circuits.shared.snapshot()
    }
}

impl<K> CircuitBreakerLayer<K> {
    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = self.circuits.settings;
        set(&mut settings);
        Self { circuits: Arc::new(Circuits::new(settings)), key: self.key }
    }

    /// Sets how many consecutive failures open the circuit. `None`: any number may fail.
    #[must_use]
    pub fn consecutive_failures(self, max: impl Into<Option<u32>>) -> Self {
        self.set(|settings| settings.consecutive_failures = max.into().map(|max| max.max(1)))
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
        self.set(|settings| (settings.slow_over, settings.slow_share) = (Some(over), share))
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
        self.set(|settings| settings.failures = kinds.into())
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

    /// Sets how many operations or keys have a circuit of their own: 1 024 by default. New ones past that share one, until
    /// idle circuits are removed: those without recent failures, and those that are not called any more. Has no effect on
    /// one circuit for all requests.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        self.set(|settings| settings.max_keys = settings.max_keys.map(|_| max_keys))
    }

    /// Returns a handle that reads the circuits, for health pages and metrics.
    pub fn handle(&self) -> CircuitBreakerHandle {
        CircuitBreakerHandle { circuits: Arc::clone(&self.circuits) }
    }
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
        self.set(|settings| settings.min_open_tenants = Some(min_open))
    }

    /// Returns the current state of all circuits, by operation; the shared one is last.
    pub fn snapshot(&self) -> Vec<CircuitSnapshot> {
        self.circuits.snapshots()
    }
}

#[track_caller]
fn check_share(share: f64) {
    assert!(share > 0.0 && share <= 1.0, "a share of the calls must be above 0 and at most 1");
}

impl Default for CircuitBreakerLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S, K> Layer<S> for CircuitBreakerLayer<K> {
    type Service = CircuitBreaker<S, K>;

    fn layer(&self, inner: S) -> Self::Service {
        CircuitBreaker::new(inner, Arc::clone(&self.key), Some(Arc::clone(&self.circuits)))
    }
}
