//! Counts and logs every request at the edge by what its client was told: the ones that never reach a kernel as well.
//!
//! It goes outermost, directly below the server, so that a refusal of any layer, a path that there is not, a body that
//! came too slowly and a client that hung up are all among them. It differs from
//! [`MetricsLayer`](crate::layers::MetricsLayer) in that this one counts calls of kernels, by kernel, from inside of the
//! servers, with what ran them and how long they took. `tower-http`'s `TraceLayer` has hooks and no counters, and does not
//! tell a response that was read to its end from one that was not.
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
//! # Log
//!
//! A request gets an id on arrival: the client's `x-request-id`, where that is 1 to 128 visible ASCII characters, or a
//! new one, which replaces it. It is handled inside a span of the target `tower_kernels::request` that has this id as
//! `request_id`, and `kernel` and `tenant` once they are known, so every event has them, on whichever thread: a
//! kernel's panic on a worker as well as a rejected credential. Requests of `ExecuteStream` have spans of their own
//! within that of the call; their ids are the call's, a slash, and the number of the request.
//!
//! When it has ended, however it has, there is one event of the target `tower_kernels::access`, at level `DEBUG`, or
//! `INFO` after [`RequestMetrics::access_log`]. It is in no span, and its fields are:
//!
//! | field | when | what |
//! |---|---|---|
//! | `transport` | always | as in the metrics |
//! | `peer` | the server tells it, by a [`PeerAddress`](crate::request::PeerAddress) | address and port of the other end of the connection |
//! | `method`, `path` | always | of HTTP; a path of gRPC is its service and method. Query strings are left out |
//! | `kernel` | one was asked for | its id, as the client wrote it |
//! | `tenant` | known | on whose behalf |
//! | `request_id` | always | as above |
//! | `status` | REST, and there was a response; gRPC, where it is not 200 | the status of HTTP |
//! | `grpc_status` | gRPC, and there was a response | the number of the status |
//! | `outcome` | always | as in the metrics |
//! | `incomplete` | the response was not sent to its end | why: its client hung up, for one |
//! | `bytes_in`, `bytes_out` | always | of the bodies: what was read of the request's, and sent of the response's |
//! | `duration_ms` | always | from the head of the request to the end of the response |
//!
//! # Cost
//!
//! Two additions for each request; a refusal of gRPC's is also decoded. Where a subscriber takes the span, an
//! allocation and what the subscriber does; where it takes the line, one more.
//!
//! # Cancel safety
//!
//! A future or a body that is dropped before its end counts as `cancelled`, or as `internal` where the service panicked.

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
