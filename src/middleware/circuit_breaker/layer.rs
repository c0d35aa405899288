use std::sync::Arc;
use std::time::Duration;

use tower_layer::Layer;

use super::circuits::Circuits;
use super::{CircuitBreaker, CircuitBreakerConfig, CircuitSnapshot, PerOperation, SingleCircuit};
use crate::middleware::derive::{derive_clone, derive_debug};

/// Rejects calls while too many fail. See the [module](super).
///
/// Clones share the circuits. [`per_operation`](Self::per_operation) and [`per_key`](Self::per_key) begin with new ones.
#[must_use]
pub struct CircuitBreakerLayer<K = SingleCircuit> {
    circuits: Arc<Circuits>,
    key: Arc<K>,
}

derive_clone!(CircuitBreakerLayer::<K> { circuits, key });
derive_debug!(CircuitBreakerLayer::<K> { circuits });

/// The longest window and open time: 30 years, as a time further away may not fit an `Instant`.
const MAX_TIME: Duration = Duration::from_secs(86_400 * 365 * 30);

impl CircuitBreakerLayer {
    /// Creates a layer with one circuit, which opens after 5 consecutive failures, or when half of 20 or more calls of the
    /// last 10 seconds have failed; that stays open for 1 second at first and 60 at most; and that admits one probe at a
    /// time and closes when one has succeeded.
    pub fn new() -> Self {
        Self::with_config(CircuitBreakerConfig::default())
    }

    /// Creates a layer with one circuit for all requests.
    ///
    /// # Panics
    /// If a rate is not above 0 and at most 1, or the window, the initial open time or the number of probes is zero.
    #[track_caller]
    pub fn with_config(mut config: CircuitBreakerConfig) -> Self {
        let is_share = |share: f64| share > 0.0 && share <= 1.0;
        assert!(config.failure_rate.is_none_or(is_share), "`failure_rate` must be above 0 and at most 1");
        assert!(is_share(config.slow_call_rate), "`slow_call_rate` must be above 0 and at most 1");
        assert!(!config.window.is_zero(), "`window` must be longer than zero");
        assert!(!config.initial_open_time.is_zero(), "`initial_open_time` must be longer than zero");
        assert!(config.max_probes > 0, "`max_probes` must be at least 1");
        config.window = config.window.min(MAX_TIME);
        config.initial_open_time = config.initial_open_time.min(MAX_TIME);
        config.max_open_time = config.max_open_time.clamp(config.initial_open_time, MAX_TIME);
        Self { circuits: Arc::new(Circuits::single(config)), key: Arc::new(SingleCircuit) }
    }

    /// Has a circuit for each operation, such as a kernel or a route, instead of one for all.
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
    pub fn per_key<R, K, F>(self, key: F) -> CircuitBreakerLayer<F>
    where
        F: Fn(&R) -> Option<K>,
        K: AsRef<str>,
    {
        self.keyed(key)
    }

    fn keyed<K>(self, key: K) -> CircuitBreakerLayer<K> {
        CircuitBreakerLayer { circuits: Arc::new(Circuits::keyed(self.circuits.shared.config)), key: Arc::new(key) }
    }

    /// Returns the current state of the circuit.
    pub fn snapshot(&self) -> CircuitSnapshot {
        self.circuits.shared.snapshot()
    }
}

impl<K> CircuitBreakerLayer<K> {
    /// Returns the current state of all circuits, by name; the shared one is last.
    pub fn snapshots(&self) -> Vec<CircuitSnapshot> {
        self.circuits.snapshots()
    }
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
