use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response};
use prometheus_client::registry::Registry;

use super::encode::Encoder;
use super::page::{Format, respond};
use super::series::Operation;
use crate::request::operation_table::OperationTable;

/// The state that a layer, its clones and their services share.
#[derive(Debug)]
pub(super) struct State {
    pub(super) prefix: String,
    /// Operations with series of their own.
    pub(super) operations: OperationTable<Arc<Operation>>,
    /// Calls with a name that no call has shown to be known.
    pub(super) unknown: Arc<Operation>,
    /// Calls with a name beyond the bound on series.
    other: Arc<Operation>,
}

impl State {
    pub(super) fn new(prefix: String, max_operations: usize) -> Self {
        let [unknown, other] = [(); 2].map(|()| Arc::new(Operation::new()));
        Self { prefix, operations: OperationTable::new(max_operations), unknown, other }
    }

    /// The operation of this name, or `other` if the table is full.
    pub(super) fn find_or_insert(&self, name: &str) -> &Arc<Operation> {
        let found = self.operations.find_or_insert(name, || Arc::new(Operation::new()));
        found.map_or(&self.other, |(_, operation)| operation)
    }

    /// Every operation that has been called or registered, and its calls in flight.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Operation, u64)> {
        let others = [("unknown", &self.unknown), ("other", &self.other)];
        self.operations.iter().chain(others).map(|(name, operation)| (name, &**operation, operation.in_flight()))
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
    state: Arc<State>,
}

const INFALLIBLE: &str = "writing numbers to a string does not fail";

impl MetricsHandle {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }

    /// Returns all metrics as [OpenMetrics](Format::OpenMetrics) text.
    pub fn render(&self) -> String {
        Format::OpenMetrics.encode(&self.registry()).expect(INFALLIBLE)
    }

    /// The response to a request for the metrics, whichever server it comes to: in the [format](Format) that the request's
    /// headers ask for, compressed where they allow it. See [`respond`] for metrics beside these.
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
        respond(&self.registry(), headers).expect(INFALLIBLE)
    }

    /// A route of axum that shows the metrics, to `GET` and `HEAD`.
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
    /// In this order the page does not count the requests for itself: a layer is around the routes that are there when it is
    /// added.
    #[cfg(feature = "axum")]
    pub fn into_route<S: Clone + Send + Sync + 'static>(self) -> ::axum::routing::MethodRouter<S> {
        ::axum::routing::get(async move |headers: HeaderMap| self.respond(&headers).map(::axum::body::Body::from))
    }

    fn registry(&self) -> Registry {
        let mut registry = Registry::default();
        self.register(&mut registry);
        registry
    }

    /// Adds these metrics to a registry of your own, under the layer's prefix. Of several layers in one registry each needs
    /// a [prefix](super::MetricsLayer::prefix) of its own: a page may not have two metrics of the same name.
    ///
    /// ```
    /// use prometheus_client::{encoding::text, registry::Registry};
    /// use tower_kernels::layers::MetricsLayer;
    ///
    /// let mut registry = Registry::with_labels([("region".into(), "eu".into())].into_iter());
    /// MetricsLayer::new().operations(["linalg/saxpy"]).handle().register(&mut registry);
    ///
    /// let mut page = String::new();
    /// text::encode(&mut page, &registry).unwrap();
    /// assert!(page.contains(r#"kernel_requests_in_flight{region="eu",operation="linalg/saxpy"} 0"#), "{page}");
    /// ```
    pub fn register(&self, registry: &mut Registry) {
        let encoder = Encoder::new(Arc::clone(&self.state));
        registry.sub_registry_with_prefix(&self.state.prefix).register_collector(Box::new(encoder));
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
        for (name, operation, _) in self.state.iter() {
            for backend in &operation.read().backends {
                ended.extend(backend.outcomes().map(|(outcome, durations)| EndedCalls {
                    operation: name.to_owned(),
                    backend: backend.name,
                    outcome,
                    count: durations.count,
                    duration: Duration::try_from_secs_f64(durations.sum).unwrap_or(Duration::MAX),
                }));
            }
        }
        ended
    }

    /// Number of calls in flight.
    pub fn in_flight(&self) -> u64 {
        self.state.iter().map(|(.., in_flight)| in_flight).sum()
    }
}
