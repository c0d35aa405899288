//! Lets equal requests that are in flight at one time share one run: single flight.
//!
//! It differs from Go's `singleflight` and from `tower-resilience`'s layer in that
//! * nobody's leaving harms the others: the run belongs to all who wait for it, whoever of them is polled drives it, and
//!   it is cancelled when the last one has left;
//! * nothing is spawned, so a run is never on another task, in another span or beyond its callers' control;
//! * everyone waits until their own deadline and no longer, and nobody fails because somebody else's time was up;
//! * nothing is shared unless a [`CacheKey`](super::cache_key::CacheKey) says which requests ask for the same, and requests are compared in full.
//!
//! It keeps nothing: who asks when the run has ended begins a new one. [`CacheLayer`](super::CacheLayer) keeps answers; with this layer
//! inside it, an answer that is not kept any more is worked out once and not by all who ask for it meanwhile.
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
//! assert_eq!((coalesce.led(), coalesce.joined()), (1, 1));
//! # }
//! ```
//!
//! # Who joins whom
//!
//! A call joins a run of the same question if that is of its own [priority](crate::request::Priority) or a higher one, so that what is
//! urgent does not wait behind what is not; else it begins a run of its own, which those after it join. A call that
//! joins takes no place in the inner service.
//!
//! # Deadlines
//!
//! A run carries the deadline of the call that began it, as it would without this layer: queues, timeouts and breakers
//! inside see what is true. If it ends because of that deadline (or because it was cancelled), that is an answer to the one
//! call only. The others, whose time is not up, go again: one of them waits for readiness, begins a new run with its own
//! deadline, and the rest join it. Where callers of one question differ much in how long they wait, the work that a
//! hasty one began is lost with it; [`CoalesceLayer::run_for`] gives each run a time of its own instead.
//!
//! # Errors
//!
//! All who wait are told the same error, behind an `Arc`; it keeps its meaning. If a poll of the run panics, the panic
//! goes to whoever polled it and the others are told [`CoalesceError::Panicked`].
//!
//! # Cancel safety
//!
//! Dropping the future leaves the run to the others. If that was the last one, the inner future is dropped, and with it
//! the work is cancelled.

mod again;
mod caller;
mod error;
mod flight;
mod flights;
mod future;
mod layer;
mod service;

pub use self::error::CoalesceError;
pub use self::flights::Flights;
pub use self::future::ResponseFuture;
pub use self::layer::{CoalesceHandle, CoalesceLayer};
pub use self::service::Coalesce;
