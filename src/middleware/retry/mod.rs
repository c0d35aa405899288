//! Retries calls that failed transiently, within a budget and the deadline.
//!
//! It differs from [`tower::retry`](https://docs.rs/tower/0.5/tower/retry) in that
//! * there is no policy to write: which failures are retried follows from [`Classify`](crate::error::Classify), and the
//!   wait from an exponential backoff with full jitter and the error's
//!   [retry-after](crate::error::Classify::retry_after);
//! * a [budget](Budget) bounds the retries of all callers together, so that they do not overload a service that is down;
//! * no attempt begins after the request's deadline, and the wait for readiness ends with it too;
//! * only requests that may run twice are cloned.
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
//! assert_eq!(retry.snapshot().retries, 1);
//! # }
//! ```
//!
//! # Where it belongs
//!
//! Inside a [`TimeoutLayer`](super::TimeoutLayer), whose deadline bounds all attempts together; another one inside bounds
//! each. Inside a [`CircuitBreakerLayer`](super::CircuitBreakerLayer), which then counts calls, or outside of one, which
//! then counts attempts: its rejections are `Unavailable` with a retry-after, so calls with enough time are retried then.
//!
//! Each attempt waits for readiness of its own, on a clone of the service. Over a balancer (behind a `Buffer`, as `tower`'s
//! cannot be cloned) it goes to another device: one whose readiness fails is skipped.
//! [`Local`](crate::backends::Local) already moves jobs from a lost device to another; its `Unavailable` means that there
//! was none.
//!
//! A call that waits for its next attempt holds no permit of the inner service.
//!
//! # Cost
//!
//! A request that may run twice is cloned, which for payloads of bytes is a reference count. The timer is created after a
//! failure.
//!
//! # Cancel safety
//!
//! Dropping the future drops the attempt that runs. The token of a planned attempt returns to the budget.

mod budget;
mod future;
mod layer;
mod policy;
mod service;

pub use self::budget::Budget;
pub(in crate::middleware) use self::budget::BudgetPermit;
pub use self::future::ResponseFuture;
pub use self::layer::RetryLayer;
pub use self::policy::RetrySnapshot;
pub use self::service::Retry;
