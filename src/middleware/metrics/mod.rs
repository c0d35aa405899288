//! Counts and times calls, and exports the metrics to Prometheus.
//!
//! It differs from `axum-prometheus` and `tower_http::metrics` in that
//! * it works for any request, and distinguishes rejections and failures by [`Classify`](crate::error::Classify), in the
//!   error and in the response;
//! * a call that is dropped before completion is counted as `cancelled`;
//! * there is no global recorder: the layer holds the metrics, and its clones share them;
//! * a call costs two readings of the clock and some additions to cells of its own thread: no lock, no allocation, no
//!   formatted label;
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
//! # In a program of your own
//!
//! On a router of axum, with the page that Prometheus reads:
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
//! Its calls are counted as `shop_requests_total{operation="GET /users/{id}",outcome="ok"}`. For any other server
//! [`MetricsHandle::respond`] makes the response to a request for the page, and [`respond`] does so for a registry of your
//! own, to which [`MetricsHandle::register`] has added these metrics.
//!
//! The page is Prometheus's text format or OpenMetrics, as the request's `Accept` prefers (see [`Format`]), and compressed
//! with gzip where its `Accept-Encoding` takes that.
//!
//! # Names of operations
//!
//! The label `operation` is what [`RequestContext::operation`](crate::request::RequestContext::operation) says. That of a
//! [`KernelRequest`](crate::service::KernelRequest) is the kernel's id. That of an [`http::Request`] is the first of these
//! that there is:
//!
//! | of | `operation` |
//! |---|---|
//! | a request with an [`Operation`](crate::request::Operation) among its extensions | what that says |
//! | a call of gRPC | `helloworld.Greeter/SayHello` |
//! | a request for which axum has found a route (feature `axum`) | `GET /users/{id}` |
//! | any other | `GET`; `HTTP` for methods that HTTP does not know |
//!
//! Paths are in no name, as there is no end of them. A request that no route takes is `GET`, and so is every request to
//! a layer that is around the whole router, where no route has been found yet: add it with `Router::layer`, as above, or
//! `route_layer`. Services that `nest_service` has nested have no route either.
//!
//! A name that none of this gives is an extension, which may own it:
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
//! Every layer that keeps something for each operation (circuit breaker, load shedding, hedging, priority queue, tracing)
//! goes by the same name.
//!
//! # The metrics
//!
//! | name, after the prefix (`kernel`) | type | labels | what |
//! |---|---|---|---|
//! | `requests_total` | counter | `operation`, `backend`, `outcome` | calls that ended |
//! | `request_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `outcome` | from the call to the response |
//! | `requests_in_flight` | gauge | `operation` | calls that have not ended |
//! | `request_payload_bytes` | histogram, 64 B to 4 GiB | `operation` | where the request knows its size |
//! | `queue_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend` | from the call to the start of the work |
//! | `batch_size` | histogram, 1 to 1 024 | `operation`, `backend` | how many requests shared the launch |
//! | `duration_estimate_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | time the work took, over the estimate |
//! | `device_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `phase` | time on the device, by its own clock, in `upload`, `kernel` and `download` |
//! | `device_roofline_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | how near the kernel came to the device's peak, 1 being there |
//!
//! The last five come from the response's [`Execution`](crate::request::Execution), where it has one; the last two only of
//! calls that a device has [timed](crate::request::DeviceTimes), which is a sample. Their counts are of the sample, too.
//! A metric that has nothing to tell is not on the page: around a service that runs no kernels these five never are.
//!
//! `outcome` is `ok`, or the [code](crate::error::ErrorKind::code) of the error or of the response's failure, or
//! `cancelled` for a call that was dropped before completion. There is no label `backend` where the response does not say what
//! ran the call, as that of a service without kernels does not, nor an error.
//!
//! # Bound on the series
//!
//! `operation` comes from the request, so a client may be able to make it up. A name gets series of its own once a call
//! has shown that the service knows it: it ended `ok` or `internal`. Until then, and for names that never do, calls count
//! under `unknown`: rejections can be made without a look at the name, and 404 and gRPC's `UNIMPLEMENTED` say that it is
//! none. [`MetricsLayer::operations`] names those that are known in advance. Past [`MetricsLayer::max_operations`], 512 if
//! nothing is said, further names count under `other`, and so do names of more than
//! [`MAX_NAME_BYTES`](crate::request::limits::MAX_NAME_BYTES). The names of backends are literals of the program.
//!
//! Names of axum's routes are made once for each route and method, and kept as long as the program runs; past 1 024 routes a
//! further one is called by its path alone.
//!
//! # Cancel safety
//!
//! The future counts the call as `cancelled` when it is dropped before completion, and as `internal` when that is because of
//! a panic. A call dropped at its deadline, as the servers of this crate do, is one of them: with a
//! [`TimeoutLayer`](super::TimeoutLayer) inside of this one it ends before that, as `deadline_exceeded`.

mod encode;
mod future;
mod handle;
mod histogram;
mod layer;
mod page;
mod series;
mod service;
mod thread;

pub use self::future::ResponseFuture;
pub use self::handle::{EndedCalls, MetricsHandle};
pub use self::layer::MetricsLayer;
pub use self::page::{Format, respond};
pub use self::service::Metrics;
