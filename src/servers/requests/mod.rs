//! Counts and logs all requests of a server by outcome.
//!
//! It is the outermost layer, so that rejections of other layers, unknown paths, slow bodies and cancelled requests are counted
//! too. [`MetricsLayer`](crate::layers::MetricsLayer) instead counts calls of kernels inside of the servers, by kernel and with
//! their duration. `tower-http`'s `TraceLayer` has hooks but no counters, and does not detect responses that were not read
//! completely.
//!
//! ```
//! use tower::{Layer, ServiceExt};
//! use tower_kernels::requests::{RequestBody, RequestMetrics, Transport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let metrics = RequestMetrics::new();
//! let hello = tower::service_fn(|_: http::Request<RequestBody<String>>| async {
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
//! | `kernel_server_requests_total` | counter | `transport`, `outcome` | requests that ended |
//! | `kernel_server_requests_begun_total` | counter | `transport` | requests that began |
//! | `kernel_server_requests_in_flight` | gauge | `transport` | requests in flight, including that for the metrics |
//! | `kernel_authentication_failures_total` | counter | `transport`, `reason` | requests that failed authentication |
//!
//! Requests that began are always the sum of all outcomes and those in flight. `transport` is `rest`, `grpc`, or
//! `grpc_stream` for the requests of an `ExecuteStream` or a `ModelStreamInfer`, which are counted in addition to its call.
//!
//! # Outcomes
//!
//! `ok`; the codes of the [table](crate::error), of which `cancelled` includes clients that closed the connection before the end
//! of the response; and three that only HTTP has: `method_not_allowed` (405), `request_timeout` (408: the body arrived
//! too slowly) and `unsupported_media_type` (415). The outcome of responses of other services follows from their HTTP
//! or gRPC status. Requests whose head could not be parsed are not counted.
//!
//! Every call of a kernel in `kernel_requests_total` belongs to a request here. Other requests, and those rejected
//! before the kernel was called, are counted only here.
//!
//! # Log
//!
//! The id of a request is the client's `x-request-id` if that is 1 to 128 visible ASCII characters, and is generated
//! otherwise. The request is handled in a span of target `tower_kernels::request` with the field `request_id`, and
//! `kernel` and `tenant` once they are known. All events of the request are in it, on any thread, such as a panic of
//! the kernel. Requests of an `ExecuteStream` or a `ModelStreamInfer` have spans within that of the call; their ids are the
//! id of the call, a slash, and their number.
//!
//! At the end of each request there is one event of target `tower_kernels::access`, at level `DEBUG`, or `INFO` with
//! [`RequestMetrics::access_log`]. It is in no span and has these fields:
//!
//! | field | when | what |
//! |---|---|---|
//! | `transport` | always | as in the metrics |
//! | `peer` | there is a [`PeerAddress`](crate::request::PeerAddress) extension | address and port of the other end of the connection |
//! | `method`, `path` | always | of HTTP; a path of gRPC is its service and method. Without the query |
//! | `kernel` | known | its id, as in the request |
//! | `tenant` | known | tenant of the request |
//! | `request_id` | always | as above |
//! | `status` | REST, and there was a response; gRPC, where it is not 200 | the status of HTTP |
//! | `grpc_status` | gRPC, and there was a response | the number of the status |
//! | `outcome` | always | as in the metrics |
//! | `incomplete` | the response was not sent completely | why, such as that the client closed the connection |
//! | `bytes_in`, `bytes_out` | always | bytes read of the request's body and sent of the response's |
//! | `duration_ms` | always | from the head of the request to the end of the response |
//!
//! # Cost
//!
//! Two additions per request; the details of a gRPC error are decoded. If a subscriber is interested in the span, an
//! allocation and the work of the subscriber; if it is interested in the event, one more.
//!
//! # Cancel safety
//!
//! A future or a body that is dropped before its end is counted as `cancelled`, or as `internal` if the service
//! panicked.

mod access;
mod body;
mod counts;
mod outcome;
mod service;
#[cfg(feature = "grpc")]
mod stream;

pub use self::body::{CountedBody, RequestBody};
pub use self::counts::{RequestMetrics, Transport};
pub use self::service::{CountRequests, CountRequestsLayer, ResponseFuture};

#[cfg(feature = "grpc")]
pub(crate) use self::{counts::Call, stream::StreamRequests};
