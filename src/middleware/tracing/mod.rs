//! Creates a span for each call, with fields from the request and the response.
//!
//! It differs from [`tower_http::trace`](https://docs.rs/tower-http/latest/tower_http/trace) in that
//! * it works for any request: the fields come from [`RequestContext`] and [`ResponseContext`];
//! * the names are [OpenTelemetry's](https://opentelemetry.io/docs/specs/semconv/), so `tracing-opentelemetry` exports it without any mapping;
//! * whether the span is enabled is decided once, in `call`: without a subscriber, or below the level, the future only
//!   polls the inner one;
//! * a call that is dropped before completion is recorded as cancelled;
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
//! If a server of this crate has created a span for the request, and that is the current one, the layer creates none and
//! records the fields below into the server's. That one has the target `tower_kernels::request`, the level
//! `ERROR` (so that what is logged about a request has its id at any level of the log) and besides these fields:
//! `request_id`, `kernel` and `tenant`. REST and gRPC create it, also for each request of an `ExecuteStream`.
//! [`internal`](TracingLayer::internal) layers always create their own.
//!
//! | field | when | what |
//! |---|---|---|
//! | `otel.name` | always | the operation: a kernel id, a route |
//! | `otel.kind` | always | `server`, or `internal` by [`TracingLayer::internal`] |
//! | `priority` | always | `low`, `normal` or `high` |
//! | `tenant` | the request has one | the tenant |
//! | `trace_id`, `parent_span_id` | the request has a trace context | W3C's, in hexadecimal |
//! | `request.size`, `response.size` | the size is known | bytes |
//! | `request.operands` | the request refers to operands, and they were resolved before the layer | names and versions, 8 at most |
//! | `execution.backend`, `execution.device` | the response has an execution | the backend and device that ran it |
//! | `execution.queued`, `execution.duration` | the same | seconds |
//! | `execution.batch_size` | the same | requests in the launch |
//! | `execution.choice` | responses of kernels that more than one backend could have run | the predicted times to the response, and why this backend: `CPU 12.0µs, CUDA 85.0µs (predicted)` |
//! | `execution.operands` | the same, and the request refers to operands | names and versions, 8 at most |
//! | `execution.operands_resident` | the same | whether the device had copies of all of them before the run |
//! | `execution.device_upload`, `execution.device_kernel`, `execution.device_download` | the device measured it | seconds, by the device's clock |
//! | `execution.device_roofline` | the same, and its peak is known | fraction of the peak that the kernel reached |
//! | `error.type` | it failed | the [code](crate::error::ErrorKind::code); `cancelled` for a call dropped before completion |
//! | `otel.status_code` | the server is at fault | `ERROR`, for kinds whose HTTP status is 500 or above |
//!
//! A call that fails also emits an event in the span, with the error's message: at level `ERROR` for a bug or a lost
//! device, `WARN` for overload and deadlines, `DEBUG` for errors of the caller.
//!
//! # Cancel safety
//!
//! The inner future is polled and dropped inside the span, so that what it logs when it is cancelled is part of it.

mod future;
mod layer;
mod record;
mod scope;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::TracingLayer;
pub(crate) use self::scope::RequestScope;
pub use self::service::Tracing;

#[cfg(doc)]
use crate::request::{RequestContext, ResponseContext};
