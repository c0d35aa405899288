//! Lets equal requests that are in flight at the same time share one run (single flight).
//!
//! It differs from Go's `singleflight` and from `tower-resilience`'s layer in that
//! * no cancelled call affects the others: the run belongs to all its callers, whichever is polled drives it, and it is
//!   cancelled with the last;
//! * nothing is spawned, so a run stays in its callers' tasks and spans;
//! * each call waits until its own deadline, and none fails because of the deadline of another;
//! * nothing is shared unless a [`CacheKey`](super::cache_key::CacheKey) says which requests are equal, and keys are compared
//!   in full.
//!
//! It caches nothing: a call after the end of the run starts a new one. [`CacheLayer`](super::CacheLayer) caches responses;
//! with this layer inside, calls that miss the cache at the same time share one run.
//!
//! ```
//! use std::time::Duration;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::CoalesceLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() {
//! let coalesce = CoalesceLayer::new(|request: &http::Request<()>| Some(request.uri().path().to_owned()));
//! let mut service = coalesce.layer(service_fn(|request: http::Request<()>| async move {
//!     tokio::time::sleep(Duration::from_secs(1)).await;
//!     Ok::<_, std::convert::Infallible>(request.uri().path().len())
//! }));
//! let first = service.ready().await.unwrap().call(http::Request::new(()));
//! let second = service.ready().await.unwrap().call(http::Request::new(()));
//! let (first, second) = tokio::join!(first, second);
//! assert_eq!((first.unwrap(), second.unwrap()), (1, 1));
//! assert_eq!((coalesce.snapshot().led, coalesce.snapshot().joined), (1, 1));
//! # }
//! ```
//!
//! # Priorities
//!
//! A call joins a run of its own [priority](crate::request::Priority) or a higher one, so that urgent calls do not wait for
//! less urgent runs; otherwise it leads a new run, which later calls join. A call that joins takes no permit of the inner
//! service.
//!
//! # Deadlines
//!
//! A run has the deadline of the call that leads it, so queues, timeouts and circuit breakers inside see the right one. If it
//! ends because of that deadline, or because it was cancelled, only the leader fails. The others call again: one of them
//! waits for readiness and leads a new run with its own deadline, and the rest join it. The work of the first run is lost
//! then; where the deadlines of equal calls differ much, [`CoalesceLayer::min_run_time`] gives runs more time than their
//! leader has.
//!
//! # Errors
//!
//! All callers of a run get the same error, behind an `Arc`, with its classification. If a poll of the run panics, the panic
//! goes to the caller that polled it and the others get [`CoalesceError::Panicked`].
//!
//! # Cancel safety
//!
//! Dropping the future leaves the run to the other callers. The last one drops the inner future, which cancels the work.

mod caller;
mod error;
mod flight;
mod flights;
mod future;
mod layer;
mod service;

pub use self::error::CoalesceError;
pub use self::flights::{CoalesceSnapshot, Flights};
pub use self::future::ResponseFuture;
pub use self::layer::{CoalesceHandle, CoalesceLayer};
pub use self::service::Coalesce;
