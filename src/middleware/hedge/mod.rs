//! Makes a second attempt when the first takes longer than almost all calls do, and takes the answer that comes first.
//!
//! The few slow calls of a service are often slow for a reason of their own: a machine that is busy with something else, a
//! packet that was lost. Where a request [may run twice](HedgeLayer::new) a second attempt, made late, brings the slowest of
//! them down to about twice the usual for a few per cent more work.
//!
//! It differs from [`tower::hedge`](https://docs.rs/tower/0.5/tower/hedge) in that
//! * a [budget](super::retry::Budget) bounds the second attempts: when all calls are slow, which is when the service has
//!   too much to do, it gets no more than a few per cent on top;
//! * latencies are learned for each operation, as one kernel's may be a thousand times another's;
//! * the timer is made at the first `Pending`, and nothing is boxed;
//! * a second attempt that fails does not end the call while the first goes on, nor the other way around.
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
//! let unlucky_first = service_fn(|_: http::Request<()>| async {
//!     if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!         tokio::time::sleep(Duration::from_secs(3600)).await;
//!     }
//!     Ok::<_, std::convert::Infallible>(http::Response::new(()))
//! });
//! let hedge = HedgeLayer::new(|request: &http::Request<()>| request.method().is_safe()).after(Duration::from_millis(50));
//! let mut service = hedge.layer(unlucky_first);
//!
//! let begun = tokio::time::Instant::now();
//! service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert!(begun.elapsed() < Duration::from_millis(60));
//! assert_eq!((hedge.stats().hedged, hedge.stats().won), (1, 1));
//! # }
//! ```
//!
//! # When
//!
//! After a [fixed time](HedgeLayer::after), or after the time that [95 in 100](HedgeLayer::after_quantile) calls of the same
//! operation take at most. That is learned from the calls that succeed, told apart within an eighth, the later ones counting
//! more: the counts are halved every thousand calls. Up to 256 operations that have answered have latencies of their own,
//! and the others share.
//!
//! There is no second attempt before some 100 calls have ended, nor one that would begin after the request's deadline.
//!
//! The second attempt waits for readiness of its own, on a clone of the service, while the first goes on. One that fails to
//! become ready, or whose first answers meanwhile, is not made, and its token is given back.
//!
//! A call that fails before the second attempt is made has failed: to try again is what
//! [`RetryLayer`](super::RetryLayer) does.
//!
//! # Cost
//!
//! A request that may run twice is cloned, which for payloads of bytes is a count. The service is cloned when a second
//! attempt is made.
//!
//! # Cancel safety
//!
//! Dropping the future drops both attempts. When one has answered the other is dropped before the answer is returned.

mod future;
mod latency;
mod layer;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::{HedgeLayer, HedgeStats};
pub use self::service::Hedge;
pub use super::retry::Budget;
