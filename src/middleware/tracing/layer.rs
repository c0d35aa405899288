use tower_layer::Layer;
use tracing::Level;

use super::Tracing;
use super::record::SERVER;

/// Creates a span for each call. See the [module](super).
#[derive(Clone, Copy, Debug)]
#[must_use]
pub struct TracingLayer {
    pub(super) level: Level,
    pub(super) kind: &'static str,
}

impl TracingLayer {
    /// Creates spans of level `INFO` and kind `server`.
    pub const fn new() -> Self {
        Self { level: Level::INFO, kind: SERVER }
    }

    /// Sets the level of the spans.
    pub const fn level(self, level: Level) -> Self {
        Self { level, ..self }
    }

    /// Creates spans of kind `internal`, for a stack that requests from outside do not arrive at.
    pub const fn internal(self) -> Self {
        Self { kind: "internal", ..self }
    }
}

impl Default for TracingLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for TracingLayer {
    type Service = Tracing<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Tracing::new(inner, *self)
    }
}
