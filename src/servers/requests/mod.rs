//! Counts every request at the edge by what its client was told: the ones that never reach a kernel as well.
//!
//! It goes outermost, directly below the server, so that a refusal of any layer, a path that there is not, a body that
//! came too slowly and a client that hung up are all among them. It differs from
//! [`MetricsLayer`](crate::layers::MetricsLayer) in that this one counts calls of kernels, by kernel, from inside of the
//! servers, with what ran them and how long they took. `tower-http`'s `TraceLayer` has hooks and no counters, and does not
//! tell a response that was read to its end from one that was not.
//!
//! ```
//! use tower::{Layer, ServiceExt};
//! use tower_kernels::requests::{RequestMetrics, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let metrics = RequestMetrics::new();
//! let hello = tower::service_fn(|_: http::Request<String>| async {
//!     Ok::<_, std::convert::Infallible>(http::Response::new(String::new()))
//! });
//! metrics.layer(Transport::Rest).layer(hello).oneshot(http::Request::new(String::new())).await.unwrap();
//! assert_eq!(metrics.ended(Transport::Rest), [("ok", 1)]);
//! # }
//! ```
//!
//! # Metrics
//!
//! | name | type | labels | what |
//! |---|---|---|---|
//! | `kernel_server_requests_total` | counter | `transport`, `outcome` | requests that ended, by what their client was told |
//! | `kernel_server_requests_begun_total` | counter | `transport` | requests that began |
//! | `kernel_server_requests_in_flight` | gauge | `transport` | the difference of the two; on the page itself the request for that page |
//! | `kernel_authentication_failures_total` | counter | `transport`, `reason` | requests that were refused because of who makes them |
//!
//! On every page the sum of the outcomes and those in flight are the requests that began. `transport` is `rest`, `grpc`,
//! or `grpc_stream` for the single requests of `ExecuteStream`, each of which counts besides the call that brings it.
//!
//! # Outcomes
//!
//! `ok`; the codes of the [one table](crate::error), `cancelled` for a client that hung up before it had the response to
//! its end among them; and three that HTTP alone has: `method_not_allowed` (405), `request_timeout` (408: the body came
//! too slowly) and `unsupported_media_type` (415). What a response does not say itself is read from its status, HTTP's or
//! gRPC's. A request whose head the server could not read is none and is not counted.
//!
//! How it goes with the other counters: every call of a kernel in `kernel_requests_total` belongs to a request here.
//! Requests for other things, and those refused before the kernel was called, are here alone.
//!
//! # Cost
//!
//! Two additions for each request; a refusal of gRPC's is also decoded.
//!
//! # Cancel safety
//!
//! A future or a body that is dropped before its end counts as `cancelled`, or as `internal` where the service panicked.

mod body;
mod counts;
mod outcome;
mod service;

pub use self::body::CountedBody;
pub use self::counts::{RequestMetrics, Transport};
pub use self::service::{CountRequests, CountRequestsLayer, ResponseFuture};

#[cfg(feature = "grpc")]
pub(crate) use self::counts::Call;
