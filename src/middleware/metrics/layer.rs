use std::sync::Arc;

use tower_layer::Layer;

use super::handle::State;
use super::{Metrics, MetricsHandle};

/// Counts and times calls, for Prometheus. See the [module](super).
///
/// Clones share the metrics. The methods that configure the layer reset them: configure first, then clone.
#[derive(Clone, Debug)]
#[must_use]
pub struct MetricsLayer {
    state: Arc<State>,
}

/// The default maximum number of operations with time series of their own.
const MAX_OPERATIONS: usize = 512;

impl MetricsLayer {
    /// Creates metrics with the prefix `kernel_`.
    pub fn new() -> Self {
        Self { state: Arc::new(State::new("kernel".into(), MAX_OPERATIONS)) }
    }

    /// Sets the prefix of the metrics' names, without the underscore.
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { state: Arc::new(State::new(prefix.into(), self.state.operations.max())) }
    }

    /// Sets the maximum number of operations with series of their own.
    pub fn max_operations(self, max: usize) -> Self {
        Self { state: Arc::new(State::new(self.state.prefix.clone(), max)) }
    }

    /// Registers operations, which then have series of their own before their first call. Call it last: the methods
    /// above reset the metrics.
    pub fn operations<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        for name in names {
            self.state.find_or_insert(name.as_ref());
        }
        self
    }

    /// Returns all metrics as [OpenMetrics](super::Format::OpenMetrics) text.
    pub fn render(&self) -> String {
        self.handle().render()
    }

    /// Returns a handle that renders the metrics as text, a response or a route.
    pub fn handle(&self) -> MetricsHandle {
        MetricsHandle { state: Arc::clone(&self.state) }
    }
}

impl Default for MetricsLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for MetricsLayer {
    type Service = Metrics<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Metrics::new(inner, Arc::clone(&self.state))
    }
}
