//! Makes a second attempt when a call takes longer than most, and returns the response that comes first.
//!
//! The few slow calls of a service are often slow for a reason of their own: a busy machine, a lost packet. A second attempt
//! at requests that [may run twice](HedgeLayer::new) shortens the tail latency to about twice the usual latency, for a few
//! per cent more work.
//!
//! It differs from [`tower::hedge`](https://docs.rs/tower/0.5/tower/hedge) in that
//! * a [budget](super::retry::Budget) bounds the second attempts: when all calls are slow because the service is
//!   overloaded, it gets only a few per cent more;
//! * latencies are learned for each operation, as one kernel's may be a thousand times another's;
//! * the timer is created at the first `Pending`, and nothing is boxed;
//! * an attempt that fails does not end the call while the other goes on.
//!
//! ```
//! use std::sync::atomic::{AtomicU32, Ordering};
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::HedgeLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! static CALLS: AtomicU32 = AtomicU32::new(0);
//! let slow_first = service_fn(|_: http::Request<()>| async {
//!     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!         tokio::time::sleep(Duration::from_secs(3600)).await;
//!     }
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! let hedge = HedgeLayer::new(|request: &http::Request<()>| request.method().is_safe()).after(Duration::from_millis(50));
//! let mut service = hedge.layer(slow_first);
//!
//! let start = tokio::time::Instant::now();
//! service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert!(start.elapsed() < Duration::from_millis(60));
//! assert_eq!((hedge.snapshot().hedged, hedge.snapshot().won), (1, 1));
//! # }
//! ```
//!
//! # When a call is hedged
//!
//! After a [fixed time](HedgeLayer::after), or after a [quantile](HedgeLayer::after_quantile) of the latencies of the same
//! operation, by default the 95th percentile. It is learned from the calls that succeed, exact to an eighth, and recent calls
//! count more: the counts are halved every thousand calls. Up to 256 operations have latencies of their own, and the others
//! share theirs.
//!
//! There is no second attempt before some 100 calls have succeeded, nor one that would begin after the request's deadline.
//!
//! The second attempt waits for readiness of its own, on a clone of the service, while the first goes on. If its readiness
//! fails, or the first attempt ends before it is ready, it is not made, and its token returns to the budget.
//!
//! A call that fails before the second attempt is made has failed: [`RetryLayer`](super::RetryLayer) retries failures.
//!
//! # Cost
//!
//! A request that may run twice is cloned, which for payloads of bytes is a reference count. The service is cloned when a
//! second attempt is made.
//!
//! # Cancel safety
//!
//! Dropping the future drops both attempts. When one has ended the call, the other is dropped before the response is
//! returned.

mod future;
mod latency;
mod layer;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::{HedgeLayer, HedgeSnapshot};
pub use self::service::Hedge;
pub use super::retry::Budget;
