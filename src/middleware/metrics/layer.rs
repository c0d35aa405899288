use std::sync::Arc;

use tower_layer::Layer;

use super::handle::State;
use super::{Metrics, MetricsHandle};

/// Counts and measures calls. See the [module](super).
///
/// Clones share their figures. The methods that configure the layer begin anew, so configure first and clone after.
#[derive(Clone, Debug)]
pub struct MetricsLayer {
    state: Arc<State>,
}

/// How many operations have series of their own if nothing else is said.
const MAX_OPERATIONS: usize = 512;

impl MetricsLayer {
    /// Metrics whose names begin with `kernel_`.
    pub fn new() -> Self {
        Self { state: Arc::new(State::new("kernel".into(), MAX_OPERATIONS)) }
    }

    /// Sets what the metrics' names begin with, less the underscore.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<String>) -> Self {
        Self { state: Arc::new(State::new(prefix.into(), self.state.operations.max())) }
    }

    /// Sets how many operations have series of their own.
    #[must_use]
    pub fn max_operations(self, max: usize) -> Self {
        Self { state: Arc::new(State::new(self.state.prefix.clone(), max)) }
    }

    /// Gives these operations series of their own, as far as the bound allows, before a call has shown that the service
    /// knows them. Call it last: the methods above begin anew.
    #[must_use]
    pub fn operations<N: AsRef<str>>(self, names: impl IntoIterator<Item = N>) -> Self {
        for name in names {
            self.state.find_or_insert(name.as_ref());
        }
        self
    }

    /// All metrics as of now, as [OpenMetrics](super::Format::OpenMetrics).
    pub fn render(&self) -> String {
        self.handle().render()
    }

    /// What shows the metrics: as a route, as a response, or in a registry of your own.
    pub fn handle(&self) -> MetricsHandle {
        MetricsHandle::new(Arc::clone(&self.state))
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
