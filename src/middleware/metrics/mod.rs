//! Counts and times calls, and exports the metrics to Prometheus.
//!
//! It differs from `axum-prometheus` and `tower_http::metrics` in that
//! * it works for any request, and distinguishes rejections and failures by the [`Classify`](crate::error::Classify) of
//!   the error or the response;
//! * a call that is dropped before completion is counted as `cancelled`;
//! * there is no global recorder: the layer holds the metrics, and its clones share them;
//! * a call reads the clock twice and adds to counters behind a lock that few threads share, without allocations or
//!   formatting;
//! * the number of time series is bounded, whatever clients send.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::MetricsLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let metrics = MetricsLayer::new().prefix("greeter");
//! let hello = service_fn(|_: http::Request<()>| async {
//!     Ok::<_, std::convert::Infallible>(http::Response::new("hello"))
//! });
//! let mut service = metrics.layer(hello);
//! service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//!
//! let text = metrics.render();
//! assert!(text.contains(r#"greeter_requests_total{operation="GET",outcome="ok"} 1"#), "{text}");
//! # }
//! ```
//!
//! # With axum and other servers
//!
//! Metrics of an axum router by route, and a route for Prometheus:
//!
#![cfg_attr(feature = "axum", doc = "```")]
#![cfg_attr(not(feature = "axum"), doc = "```ignore")]
//! use axum::{Router, routing::get};
//! use tower_kernels::layers::MetricsLayer;
//!
//! let metrics = MetricsLayer::new().prefix("shop");
//! let app: Router = Router::new()
//!     .route("/users/{id}", get(async || "a user"))
//!     .layer(metrics.clone())
//!     .route("/metrics", metrics.handle().into_route());
//! ```
//!
//! Calls are counted as `shop_requests_total{operation="GET /users/{id}",outcome="ok"}`. With other servers
//! [`MetricsHandle::respond`] returns the response to a request for the metrics. [`MetricsHandle::render`] returns them as
//! text, to which other metrics can be appended, and [`respond`] returns the response with such a page.
//!
//! The response is in Prometheus's text format or OpenMetrics, whichever the request's `Accept` prefers (see
//! [`Format`]), and compressed with gzip if its `Accept-Encoding` allows it.
//!
//! # Names of operations
//!
//! The label `operation` is the [`RequestContext::operation`](crate::request::RequestContext::operation) of the
//! request. For a [`KernelRequest`](crate::service::KernelRequest) it is the kernel's id. For an [`http::Request`] it
//! is the first of these that applies:
//!
//! | request | `operation` |
//! |---|---|
//! | with an [`Operation`](crate::request::Operation) in its extensions | the name in it |
//! | gRPC | `helloworld.Greeter/SayHello` |
//! | matched to a route by axum (feature `axum`) | `GET /users/{id}` |
//! | any other | `GET`; `HTTP` for non-standard methods |
//!
//! Names do not contain the path, because the number of paths is unbounded. The name is `GET` for a request that
//! matches no route, for services added with `nest_service`, and for all requests if the layer is around the whole
//! router, where no route has been matched yet. Add the layer with `Router::layer`, as above, or `route_layer`.
//!
//! An extension sets any other name:
//!
//! ```
//! use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::layers::MetricsLayer;
//! use tower_kernels::request::Operation;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let metrics = MetricsLayer::new();
//! let mut service = ServiceBuilder::new()
//!     .map_request(|mut request: http::Request<()>| {
//!         let table = request.uri().path().split('/').nth(1).unwrap_or_default();
//!         let operation = if ["users", "orders"].contains(&table) { format!("read {table}") } else { "other table".into() };
//!         request.extensions_mut().insert(Operation::new(operation));
//!         request
//!     })
//!     .layer(metrics.clone())
//!     .service(service_fn(async |_| Ok::<_, std::convert::Infallible>(http::Response::new(()))));
//! let request = http::Request::get("/users/7").body(()).unwrap();
//! service.ready().await.unwrap().call(request).await.unwrap();
//! assert!(metrics.render().contains(r#"kernel_requests_total{operation="read users",outcome="ok"} 1"#));
//! # }
//! ```
//!
//! All layers with state per operation (circuit breaker, load shedding, hedging, priority queue, tracing) use the same
//! name.
//!
//! # The metrics
//!
//! | name, after the prefix (`kernel`) | type | labels | meaning |
//! |---|---|---|---|
//! | `requests_total` | counter | `operation`, `backend`, `outcome` | calls that have ended |
//! | `request_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `outcome` | time from the call to the response |
//! | `requests_in_flight` | gauge | `operation` | calls in flight |
//! | `request_payload_bytes` | histogram, 64 B to 4 GiB | `operation` | payload size, for requests that have one |
//! | `queue_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend` | time from the call to the start of its execution |
//! | `batch_size` | histogram, 1 to 1 024 | `operation`, `backend` | requests that were executed in one batch |
//! | `duration_estimate_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | execution time divided by its estimate |
//! | `device_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `phase` | time measured by the device, in the phases `upload`, `kernel` and `download` |
//! | `device_roofline_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | fraction of the device's peak that the kernel reached |
//!
//! The last five come from the response's [`Execution`](crate::request::Execution), if it has one. The last two are of
//! the calls that a device has [timed](crate::request::DeviceTimes), which are a sample, and so are their counts.
//! Metrics without values are omitted, so a service without kernels never has these five.
//!
//! `outcome` is `ok`, the [code](crate::error::ErrorKind::code) of the error or of the response's failure, or
//! `cancelled` for a call that was dropped before completion. There is no label `backend` for errors, nor for responses
//! that do not name a backend, such as those of a service without kernels.
//!
//! # Bound on the series
//!
//! `operation` comes from the request, so a client may be able to invent names. A name gets time series of its own when
//! a call has shown that the service has the operation, by the outcome `ok` or `internal`. Other calls count under
//! `unknown`: a layer can reject a call whatever its name, and 404 and gRPC's `UNIMPLEMENTED` mean that the operation
//! does not exist. [`MetricsLayer::operations`] registers operations that are known in advance. Beyond
//! [`MetricsLayer::max_operations`], 512 by default, calls count under `other`, and so do names longer than
//! [`MAX_NAME_BYTES`](crate::request::limits::MAX_NAME_BYTES). The names of backends are literals of the program.
//!
//! Names of axum's routes are allocated once per route and method and never freed. Beyond 1 024 routes a route is named
//! by its path alone.
//!
//! # Cancel safety
//!
//! A future that is dropped before completion counts as `cancelled`, or as `internal` if it is dropped by a panic. The
//! servers of this crate drop a call at its deadline, which also counts as `cancelled`. With a
//! [`TimeoutLayer`](super::TimeoutLayer) inside this layer the call ends before that, as `deadline_exceeded`.

mod encode;
mod future;
mod handle;
mod histogram;
mod layer;
pub(crate) mod page;
mod series;
mod service;

pub use self::future::ResponseFuture;
pub use self::handle::{EndedCalls, MetricsHandle};
pub use self::layer::MetricsLayer;
pub(crate) use self::page::render;
pub use self::page::{Format, respond};
pub use self::service::Metrics;
