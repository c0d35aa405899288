//! One span for each call, with what the request and the response say of themselves.
//!
//! It differs from [`tower_http::trace`](https://docs.rs/tower-http/latest/tower_http/trace) in that
//! * it works for any request: the fields come from [`RequestContext`] and [`ResponseContext`];
//! * the names are [OpenTelemetry's](https://opentelemetry.io/docs/specs/semconv/), so `tracing-opentelemetry` makes a proper span of it without any mapping;
//! * whether anybody listens is decided once, in `call`: without a subscriber, or below the level, the future carries an
//!   empty span and does nothing else than poll the inner one;
//! * a call that is dropped before its end is recorded as cancelled;
//! * there are no hooks. A layer of your own inside this one adds to the span with [`tracing::Span::record`] or events.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::TracingLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let hello = service_fn(|_: http::Request<()>| async {
//!     tracing::info!("inside the span of the call");
//!     Ok::<_, std::convert::Infallible>(http::Response::new("hello"))
//! });
//! let mut service = TracingLayer::new().layer(hello);
//! service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! # }
//! ```
//!
//! # The span
//!
//! It is called `request`, its target is `tower_kernels::middleware::tracing`, its parent is the span that is current at
//! the call.
//!
//! Where a server of this crate has made a span for the request, and that is the current one, the layer makes none of
//! its own and writes the fields below into the server's. That one has the target `tower_kernels::request`, the level
//! `ERROR` (so that what is logged about a request has its id at any level of the log) and besides these fields:
//! `request_id`, `kernel` and `tenant`. REST and gRPC make it, also for each request of an `ExecuteStream`.
//! [`internal`](TracingLayer::internal) layers always make their own.
//!
//! | field | when | what |
//! |---|---|---|
//! | `otel.name` | always | the operation: a kernel id, a route |
//! | `otel.kind` | always | `server`, or `internal` by [`TracingLayer::internal`] |
//! | `priority` | always | `low`, `normal` or `high` |
//! | `tenant` | the request has one | on whose behalf |
//! | `trace_id`, `parent_span_id` | the request has a trace context | W3C's, in hexadecimal |
//! | `request.size`, `response.size` | known without work | bytes |
//! | `execution.backend`, `execution.device` | the response says so | what ran it |
//! | `execution.queued`, `execution.duration` | the response says so | seconds |
//! | `execution.batch_size` | the response says so | how many requests shared the launch |
//! | `execution.device_upload`, `execution.device_kernel`, `execution.device_download` | the device has timed it | seconds, by the device's own clock |
//! | `execution.device_roofline` | the same, and it tells its peak | how near the kernel came to that, 1 being there |
//! | `error.type` | it failed | the [code](crate::error::ErrorKind::code); `cancelled` for a call dropped before its end |
//! | `otel.status_code` | this side failed | `ERROR`, for kinds whose HTTP status is 500 or above |
//!
//! A call that fails also makes an event in the span, with the error's message: at level `ERROR` for a defect or a lost
//! device, `WARN` for overload and deadlines, `DEBUG` for what the caller did.
//!
//! # Cancel safety
//!
//! The inner future is polled and dropped inside the span, so that what it logs when it is cancelled is found there.

mod future;
mod layer;
mod record;
#[cfg_attr(
    not(all(feature = "auth", feature = "axum", feature = "grpc", feature = "hyper")),
    allow(dead_code, reason = "each server uses its part of what they share")
)]
mod scope;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::TracingLayer;
#[cfg(any(feature = "auth", feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use self::scope::RequestScope;
pub use self::service::Tracing;

#[cfg(doc)]
use crate::request::{RequestContext, ResponseContext};
