//! Limits the rate of calls, in total or per key, and rejects or delays those over the quota.
//!
//! It differs from [`tower::limit::rate`](https://docs.rs/tower/0.5/tower/limit/rate) in that
//! * the state lives in the layer: clones of the layer and of its services draw from one quota, where `tower`'s counts
//!   anew in each service (and cannot be cloned);
//! * tokens come back one at a time ([GCRA], by [`governor`]), not all at the end of a window;
//! * there can be a quota for each key of the request, such as its tenant;
//! * by default a call over the quota is rejected, and the error says when to retry. A service that is not ready would
//!   block callers whose own quota is not used up; [`RateLimiterLayer::wait`] delays each call on its own.
//!
//! It differs from `tower_governor` in that it works for any request, not HTTP only, boxes nothing, and bounds the
//! memory that its keys take.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::Classify;
//! use tower_kernels::layers::RateLimiterLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let hello = service_fn(|name: &'static str| async move { Ok::<_, std::convert::Infallible>(name.len()) });
//! let mut service = RateLimiterLayer::new(2, Duration::from_secs(1)).layer(hello);
//!
//! assert!(service.ready().await.unwrap().call("first").await.is_ok());
//! assert!(service.ready().await.unwrap().call("second").await.is_ok());
//! let error = service.ready().await.unwrap().call("third").await.unwrap_err();
//! assert_eq!(error.retry_after(), Some(Duration::from_millis(500)));
//! # }
//! ```
//!
//! # What a quota of 100 a second means
//!
//! 100 calls can be made at once; from then on a token comes back every 10 ms. Any second that begins with a full quota
//! may therefore see up to 199 calls, and no longer stretch sees more than 100 a second on average.
//! [`RateLimiterLayer::burst`] sets how many can be made at once.
//!
//! # Keys
//!
//! Requests without a key share one quota of the same size, so that leaving the key out gains nothing. So do keys that
//! are new when [as many as are allowed](RateLimiterLayer::max_keys) are known. A key whose quota is full again
//! is forgotten, by a sweep that some call makes at most once a second, and only when 1 024 keys or twice those that the
//! last sweep left are known.
//!
//! [`RateLimiterLayer::limit_for`] gives a key a quota of another size. Such a key is known at all times, whatever number
//! of others is.
//!
//! # Cancel safety
//!
//! A token is taken in `call` and not given back when the future is dropped: the call has been made. A call that waits
//! has not taken one yet, and stops counting as waiting when it is dropped.
//!
//! [GCRA]: https://en.wikipedia.org/wiki/Generic_cell_rate_algorithm

mod error;
mod keyed;
mod layer;
mod limit;
mod service;
mod wait;

pub use self::error::{InvalidQuota, RateLimitError};
pub use self::keyed::{ByTenant, PerKey, RequestKey};
pub use self::layer::{RateLimitSnapshot, RateLimiterLayer};
pub use self::limit::{Limit, Shared};
pub use self::service::RateLimiter;
pub use self::wait::{Wait, WaitFuture, WaitLayer, WaitSnapshot};

/// The response future of a [`RateLimiter`].
pub type ResponseFuture<F, E> = crate::middleware::CallOrReject<F, RateLimitError<E>>;
