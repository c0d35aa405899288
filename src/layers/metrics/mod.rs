//! Counts calls and how they ended, measures how long they took, and writes it as Prometheus reads it.
//!
//! It differs from `axum-prometheus` and `tower_http::metrics` in that
//! * it works for any request, and knows refusals and failures apart by [`Classify`](crate::error::Classify), in the
//!   error and in the response;
//! * a call that is dropped before its end is counted, as `cancelled`;
//! * there is no global recorder: the layer holds the figures, and its clones share them;
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
//! assert!(text.contains(r#"greeter_requests_total{operation="GET",backend="none",outcome="ok"} 1"#), "{text}");
//! # }
//! ```
//!
//! # The metrics
//!
//! | name, after the prefix (`kernel`) | type | labels | what |
//! |---|---|---|---|
//! | `requests_total` | counter | `operation`, `backend`, `outcome` | calls that ended |
//! | `request_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `outcome` | from the call to the answer |
//! | `requests_in_flight` | gauge | `operation` | calls that have not ended |
//! | `request_payload_bytes` | histogram, 64 B to 4 GiB | `operation` | where the request knows its size |
//! | `queue_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend` | from the call to the start of the work |
//! | `batch_size` | histogram, 1 to 1 024 | `operation`, `backend` | how many requests shared the launch |
//! | `duration_estimate_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | time the work took, over the estimate |
//! | `device_duration_seconds` | histogram, 1 µs to 17 s | `operation`, `backend`, `phase` | time on the device, by its own clock, in `upload`, `kernel` and `download` |
//! | `device_roofline_ratios` | histogram, 1/64 to 64 | `operation`, `backend` | how near the kernel came to the device's peak, 1 being there |
//!
//! The last five come from the response's [`Execution`](crate::service::Execution), where it has one; the last two only of
//! calls that a device has [timed](crate::service::DeviceTimes), which is a sample. Their counts are of the sample, too.
//!
//! `outcome` is `ok`, or the [code](crate::error::ErrorKind::code) of the error or of the response's failure, or
//! `cancelled` for a call that was dropped before its end. `backend` is `none` where the response does not say.
//!
//! # What bounds the series
//!
//! `operation` comes from the request, so a client may be able to make it up. A name gets series of its own once a call
//! has shown that the service knows it: it ended `ok`, `internal` or `unsupported`. Until then, and for names that never
//! do, calls count under `unknown`: refusals, for one, can be made without a look at the name.
//! [`MetricsLayer::operations`] names those that are known in advance. Past
//! [`MetricsLayer::max_operations`], 512 if nothing is said, further names count under `other`. The names of backends
//! are literals of the program.
//!
//! # Cancel safety
//!
//! The future counts the call as `cancelled` when it is dropped before its end, and as `internal` when that is because of
//! a panic. A call that is dropped because its time is up is one of them, as the servers of this crate do it: with a
//! [`TimeoutLayer`](super::TimeoutLayer) inside of this one it ends before that, as `deadline_exceeded`.

mod encode;
mod future;
mod handle;
mod histogram;
mod layer;
mod series;
mod service;
mod thread;

pub use self::future::ResponseFuture;
pub use self::handle::{EndedCalls, MetricsHandle};
pub use self::layer::MetricsLayer;
pub use self::service::Metrics;
