use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use prometheus_client::registry::Registry;

use super::encode::Encoder;
use super::page::{render, respond};
use super::series::Operation;
use crate::request::operation_table::OperationTable;

/// The metrics, shared by a layer, its clones and their services.
#[derive(Debug)]
pub(super) struct State {
    pub(super) prefix: String,
    /// Operations with series of their own.
    pub(super) operations: OperationTable<Arc<Operation>>,
    /// Calls of operations that the service is not known to have.
    pub(super) unknown: Arc<Operation>,
    /// Calls of operations beyond the maximum.
    other: Arc<Operation>,
}

impl State {
    pub(super) fn new(prefix: String, max_operations: usize) -> Self {
        let [unknown, other] = [(); 2].map(|()| Arc::default());
        Self { prefix, operations: OperationTable::new(max_operations), unknown, other }
    }

    /// Returns the operation of this name, or `other` if the table is full.
    pub(super) fn find_or_insert(&self, name: &str) -> &Arc<Operation> {
        let found = self.operations.find_or_insert(name, Arc::default);
        found.map_or(&self.other, |(_, operation)| operation)
    }

    /// Returns the operations with their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Arc<Operation>)> {
        self.operations.iter().chain([("unknown", &self.unknown), ("other", &self.other)])
    }
}

/// Calls of one operation with one outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct EndedCalls {
    /// The operation, or `unknown`, or `other`.
    pub operation: String,
    /// The backend that ran them, if the response names one.
    pub backend: Option<&'static str>,
    /// `ok`, or the [code](crate::error::ErrorKind::code) of the failure.
    pub outcome: &'static str,
    /// Number of calls.
    pub count: u64,
    /// Sum of their durations.
    pub duration: Duration,
}

/// Reads the metrics of a [`MetricsLayer`](super::MetricsLayer).
#[derive(Clone, Debug)]
pub struct MetricsHandle {
    pub(super) state: Arc<State>,
}

impl MetricsHandle {
    /// Returns all metrics as [OpenMetrics](super::Format::OpenMetrics) text, under the layer's prefix.
    ///
    /// Appended to other OpenMetrics text it makes a page with all metrics, for [`respond`]. Several layers of one page
    /// need different [prefixes](super::MetricsLayer::prefix), because a page must not have two metrics of the same name.
    pub fn render(&self) -> String {
        render(|registry| self.register(registry))
    }

    /// Returns the response to a request for the metrics, in the [format](super::Format) that its headers prefer,
    /// compressed if they allow it. It works with any server. [`respond`] does the same for a page with other metrics.
    ///
    /// ```
    /// use http::{HeaderMap, header};
    /// use tower_kernels::layers::MetricsLayer;
    ///
    /// let metrics = MetricsLayer::new().handle();
    /// let response = metrics.respond(&HeaderMap::new());
    /// assert_eq!(response.headers()[header::CONTENT_TYPE], "text/plain; version=0.0.4; charset=utf-8");
    /// ```
    pub fn respond(&self, headers: &HeaderMap) -> Response<Bytes> {
        respond(&self.render(), headers)
    }

    /// Returns an axum route that responds to `GET` and `HEAD` with the metrics.
    ///
    /// ```
    /// use axum::{Router, routing::get};
    /// use tower_kernels::layers::MetricsLayer;
    ///
    /// let metrics = MetricsLayer::new();
    /// let app: Router = Router::new()
    ///     .route("/users/{id}", get(async || "a user"))
    ///     .layer(metrics.clone())
    ///     .route("/metrics", metrics.handle().into_route());
    /// ```
    /// In this order requests for the metrics are not counted: a layer applies to the routes that were added before it.
    #[cfg(feature = "axum")]
    pub fn into_route<S: Clone + Send + Sync + 'static>(self) -> ::axum::routing::MethodRouter<S> {
        ::axum::routing::get(async move |headers: HeaderMap| self.respond(&headers).map(::axum::body::Body::from))
    }

    /// Adds these metrics to a registry, under the layer's prefix.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let encoder = Box::new(Encoder(Arc::clone(&self.state)));
        registry.sub_registry_with_prefix(&self.state.prefix).register_collector(encoder);
    }

    /// Returns the calls that have ended, by operation, backend and outcome.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use tower::{Layer, ServiceExt, service_fn};
    /// use tower_kernels::layers::MetricsLayer;
    ///
    /// let metrics = MetricsLayer::new();
    /// let fine = metrics.layer(service_fn(|_: http::Request<()>| async { Ok::<_, std::convert::Infallible>(http::Response::new(())) }));
    /// fine.oneshot(http::Request::new(())).await.unwrap();
    ///
    /// let ended = metrics.handle().ended();
    /// assert_eq!((ended[0].operation.as_str(), ended[0].outcome, ended[0].count), ("GET", "ok", 1));
    /// assert_eq!(ended[0].backend, None);
    /// # }
    /// ```
    pub fn ended(&self) -> Vec<EndedCalls> {
        let mut ended = Vec::new();
        for (name, operation) in self.state.iter() {
            for backend in &operation.read().backends {
                ended.extend(backend.outcomes().map(|(outcome, durations)| EndedCalls {
                    operation: name.to_owned(),
                    backend: backend.name,
                    outcome,
                    count: durations.count(),
                    duration: Duration::from_nanos(durations.sum()),
                }));
            }
        }
        ended
    }

    /// Number of calls in flight.
    pub fn in_flight(&self) -> u64 {
        self.state.iter().map(|(_, operation)| operation.in_flight()).sum()
    }
}
