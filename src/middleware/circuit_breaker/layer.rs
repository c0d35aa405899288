use std::fmt::Display;
use std::hash::Hash;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::circuits::{One, PerKey, PerOperation, Statuses};
use super::settings::{Settings, Slow};
use super::{CircuitBreaker, CircuitBreakerHandle, CircuitStatus};
use crate::error::ErrorKinds;

/// Refuses calls while too many fail. See the [module](super).
///
/// Clones share the circuits. The methods that configure the layer begin anew, so configure first and clone after; which
/// requests have a circuit of their own is said last.
#[derive(Debug)]
pub struct CircuitBreakerLayer<C = One> {
    circuits: Arc<C>,
}

/// How many keys have a circuit of their own if nothing else is said.
const MAX_KEYS: usize = 1024;

impl CircuitBreakerLayer {
    /// Opens after 5 failures in a row, or when half of 20 or more calls of the last 10 seconds have failed; stays open for
    /// 1 second at first and 60 at most; lets one probe through at a time, and closes when one has succeeded.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    fn with(settings: Settings) -> Self {
        Self { circuits: Arc::new(One::new(settings)) }
    }

    fn set(self, set: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = *self.circuits.0.settings();
        set(&mut settings);
        Self::with(settings)
    }

    /// Opens after so many failures with no success between them. `None`: not for that.
    #[must_use]
    pub fn consecutive_failures(self, most: impl Into<Option<u32>>) -> Self {
        let most = most.into().map(|most| most.max(1));
        self.set(|settings| settings.consecutive = most)
    }

    /// Opens when this share of the calls in the [window](Self::window) has failed. `None`: not for that.
    ///
    /// # Panics
    /// Where the share is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn failure_rate(self, share: impl Into<Option<f64>>) -> Self {
        let share = share.into();
        share.into_iter().for_each(check_share);
        self.set(|settings| settings.failure_rate = share)
    }

    /// Opens when this share of the calls in the [window](Self::window) has taken longer than `over`. A call that its
    /// caller leaves after that time counts among them, and so does a failure that took so long.
    ///
    /// # Panics
    /// Where the share is not above 0 and at most 1.
    #[must_use]
    #[track_caller]
    pub fn slow_calls(self, over: Duration, share: f64) -> Self {
        check_share(share);
        self.set(|settings| settings.slow = Some(Slow { over, share }))
    }

    /// What shares are counted over: the calls that ended in the last `length`, which must be `min_calls` or more.
    ///
    /// # Panics
    /// Where the window has no length.
    #[must_use]
    #[track_caller]
    pub fn window(self, length: Duration, min_calls: u32) -> Self {
        assert!(!length.is_zero(), "the window of a circuit breaker must be longer than zero");
        self.set(|settings| (settings.window, settings.min_calls) = (length, min_calls))
    }

    /// How long it stays open: `first`, and twice as long each time that the probes fail or that it opens again soon after
    /// it has closed, up to `most`. A random part of up to a quarter is taken off, so that many processes do not probe at
    /// one moment.
    ///
    /// # Panics
    /// Where `first` is zero.
    #[must_use]
    #[track_caller]
    pub fn open_for(self, first: Duration, most: Duration) -> Self {
        assert!(!first.is_zero(), "a circuit must stay open for longer than zero");
        self.set(|settings| (settings.open, settings.open_most) = (first, most.max(first)))
    }

    /// When the open time is over, lets `at_a_time` calls through as probes, and closes once `successes` of them have
    /// succeeded. One that fails, or is slow, opens the circuit again.
    #[must_use]
    pub fn probes(self, at_a_time: u32, successes: u32) -> Self {
        self.set(|settings| (settings.probes, settings.successes) = (at_a_time.max(1), successes.max(1)))
    }

    /// Which errors are failures, and which responses that are refusals. If nothing is said they are `Internal`,
    /// `Unavailable` and `DeadlineExceeded`. All other kinds decide nothing: neither are they failures nor successes.
    #[must_use]
    pub fn failures(self, kinds: impl Into<ErrorKinds>) -> Self {
        let kinds = kinds.into();
        self.set(|settings| settings.failures = kinds)
    }

    /// Counts a deadline that the caller chose and that has passed as a failure where it left the service this long. If
    /// nothing is said none counts: a client that allows too little time is not to close the service to all others.
    ///
    /// A server's own timeout always counts: that of a [`TimeoutLayer`](crate::layers::TimeoutLayer) further in, and a
    /// deadline that [is a server's timeout](crate::request::RequestContext::deadline_is_server_timeout).
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        self.set(|settings| settings.patience = Some(patience))
    }

    /// While it is open, has the service be not ready instead of refusing calls: what stands under a balancer is then
    /// passed over, where one that refuses at once would look like the quickest of all and be sent every call. Not for
    /// circuits per key, whose request is not known yet.
    #[must_use]
    pub fn unready_while_open(self) -> Self {
        self.set(|settings| settings.hold = true)
    }

    /// A circuit for each operation, such as each kernel, instead of one for all.
    #[must_use]
    pub fn per_operation(self) -> CircuitBreakerLayer<PerOperation> {
        CircuitBreakerLayer { circuits: Arc::new(PerOperation::new(*self.circuits.0.settings(), MAX_KEYS)) }
    }

    /// A circuit for each key. Requests for which `key` answers `None` share one.
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
        CircuitBreakerLayer { circuits: Arc::new(PerKey::new(*self.circuits.0.settings(), MAX_KEYS, key)) }
    }

    /// How the circuit is, as of now.
    pub fn status(&self) -> CircuitStatus {
        self.circuits.0.status()
    }
}

#[track_caller]
fn check_share(share: f64) {
    assert!(share > 0.0 && share <= 1.0, "a share of the calls must be above 0 and at most 1");
}

impl CircuitBreakerLayer<PerOperation> {
    /// Gives each tenant a circuit of its own for an operation, so that what fails for one is refused to that one alone.
    /// Once the circuits of `agreeing` tenants are open at the same time, the operation's own circuit opens, for all.
    /// Requests without a tenant go by the operation's own circuit.
    ///
    /// A tenant's circuit is made at its first failure. There are no more than 4 096 of them, for all operations together:
    /// the tenants that come after share one for each operation.
    #[must_use]
    pub fn per_tenant(self, agreeing: NonZeroU32) -> Self {
        let (settings, max) = (*self.circuits.settings(), self.circuits.max());
        Self { circuits: Arc::new(PerOperation::per_tenant(settings, max, agreeing)) }
    }

    /// Sets how many operations have a circuit of their own, 1 024 if nothing is said. Those that are new when so many are
    /// known share one, until some that have not failed lately, or that nobody asks for any more, are forgotten.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        let settings = *self.circuits.settings();
        let circuits = match self.circuits.agreeing() {
            Some(agreeing) => PerOperation::per_tenant(settings, max_keys, agreeing),
            None => PerOperation::new(settings, max_keys),
        };
        Self { circuits: Arc::new(circuits) }
    }
}

impl<K, F: Clone> CircuitBreakerLayer<PerKey<K, F>> {
    /// Sets how many keys have a circuit of their own, 1 024 if nothing is said. Those that are new when so many are known
    /// share the circuit of the requests without a key, until some that have not failed lately, or that nobody asks for any
    /// more, are forgotten.
    #[must_use]
    pub fn max_keys(self, max_keys: usize) -> Self {
        let key = self.circuits.key.clone();
        Self { circuits: Arc::new(PerKey::new(*self.circuits.settings(), max_keys, key)) }
    }
}

#[allow(private_bounds, reason = "all that choose circuits can be read; nobody else has to know how")]
impl<C: Statuses + 'static> CircuitBreakerLayer<C> {
    /// Reads the circuits, for health pages and metrics.
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

// By hand: a clone needs no `C: Clone`, the circuits are shared.
impl<C> Clone for CircuitBreakerLayer<C> {
    fn clone(&self) -> Self {
        Self { circuits: Arc::clone(&self.circuits) }
    }
}
