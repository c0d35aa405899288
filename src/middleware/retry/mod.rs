//! Makes calls again that failed in passing, within a budget and the deadline.
//!
//! It differs from [`tower::retry`](https://docs.rs/tower/0.5/tower/retry) in that
//! * there is no policy to write: which failures are worth another try follows from
//!   [`Classify`](crate::error::Classify), and the wait before it from a backoff with full jitter and from what the error
//!   says of [when to retry](crate::error::Classify::retry_after);
//! * a [budget](Budget) bounds the attempts of all callers together, so that a service that is down is not brought further
//!   down by those who try again;
//! * no attempt is made that comes after the request's deadline, and the wait for readiness ends with it too;
//! * only a request that may run twice is cloned.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::RetryLayer;
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the upstream is restarting")]
//! struct Restarting;
//! impl Classify for Restarting {
//!     fn kind(&self) -> ErrorKind {
//!         ErrorKind::Unavailable
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let retry = RetryLayer::new(|request: &http::Request<()>| request.method().is_idempotent());
//! let mut service = retry.layer(service_fn(|_: http::Request<()>| async {
//!     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 { Err(Restarting) } else { Ok(http::Response::new(())) }
//! }));
//!
//! service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert_eq!(CALLS.load(Ordering::Relaxed), 2);
//! assert_eq!(retry.stats().retries, 1);
//! # }
//! ```
//!
//! # Where it stands
//!
//! Inside a [`TimeoutLayer`](super::TimeoutLayer), whose deadline then bounds all attempts together; one more inside of it
//! bounds each. Inside a [`CircuitBreakerLayer`](super::CircuitBreakerLayer), which then counts calls and not attempts, or
//! outside of one, which then counts attempts: what it refuses is `Unavailable` and says when to retry, so a call that can
//! wait so long is made again then.
//!
//! Each attempt waits for readiness of its own, on a clone of the service. Over a balancer (behind a `Buffer`, for
//! `tower`'s cannot be cloned) that means another choice: a device whose readiness fails is left out, and one that
//! is loaded is passed over. [`Local`](crate::backends::Local) moves jobs from a lost device to another by itself; what
//! comes out of it as `Unavailable` found none.
//!
//! A call that waits for its next attempt holds no place in the inner service.
//!
//! # Cost
//!
//! A request that may run twice is cloned, which for payloads of bytes is a count, and the call holds on to a clone source
//! of the service. The timer is made when a call has failed.
//!
//! # Cancel safety
//!
//! Dropping the future drops the attempt that runs. One that was only planned gives its token back.

mod budget;
mod future;
mod layer;
mod policy;
mod service;
mod stats;

pub use self::budget::Budget;
pub use self::future::ResponseFuture;
pub use self::layer::RetryLayer;
pub use self::service::Retry;
pub use self::stats::RetryStats;
