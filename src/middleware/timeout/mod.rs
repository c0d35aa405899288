//! Applies a timeout to calls, and passes the deadline on to the inner service.
//!
//! It differs from [`tower::timeout`](https://docs.rs/tower/0.5/tower/timeout) in that
//! * the deadline is the earlier of the request's own and the layer's, and is written into the request, so that
//!   whatever handles it further in (a queue, a kernel, a client of another machine) gives up at the same moment;
//! * a request whose deadline has passed is rejected without calling the inner service;
//! * it fires over an inner future that uses up the whole of Tokio's cooperative budget at each poll;
//! * the timer is created at the first `Pending`: a response that is ready at once costs one reading of the clock;
//! * the error nests the inner one and is not boxed.
//!
//! A response that is ready wins over a deadline that has passed in the meantime.
//!
//! `poll_ready` comes before there is a request to read a deadline from, so the layer cannot bound it. [`oneshot`] does: it
//! waits until the service is ready, but no longer than the request's deadline, and then calls it.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::TimeoutLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let slow = service_fn(|_: http::Request<()>| async {
//!     tokio::time::sleep(Duration::from_secs(3600)).await;
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! let mut service = TimeoutLayer::new(Duration::from_secs(30)).layer(slow);
//!
//! let error = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::DeadlineExceeded);
//! # }
//! ```
//!
//! # Cost
//!
//! The clock is read once, in `call`: the deadline counts from there, and the inner service is to know it. Under a
//! [`MetricsLayer`](super::MetricsLayer) it is that layer's reading. Writing the deadline into a request with a field for
//! it allocates nothing; an [`http::Request`] takes it as an extension, which allocates unless it has one already.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one. When the deadline passes, the inner future is dropped before the error is
//! returned, so that its work stops then and not when the caller drops what is left.

mod error;
mod future;
mod layer;
mod oneshot;
mod service;

pub use self::error::TimeoutError;
pub use self::future::ResponseFuture;
pub use self::layer::TimeoutLayer;
pub use self::oneshot::{Oneshot, oneshot};
pub use self::service::Timeout;
