//! Turns a service of batches into a service of requests: whoever waits at the same time shares a call.
//!
//! Much that computes does many things for little more than one: a launch on a GPU, a query to a database, a write to a
//! disk. Callers have one request each. This layer stands between: around a `Service<Vec<R>>` that answers each request
//! of a batch, it is a `Service<R>`.
//!
//! It differs from what is usual, a timer and a size, in that
//! * batches form *while the inner service is not ready*. If it is ready and nothing waits, a request is called at once,
//!   by its caller, as if the layer were not there. If it is busy, what comes meanwhile goes together as soon as it is
//!   ready again: the busier it is, the larger are the batches, with nothing to tune.
//!   [`max_delay`](BatchLayer::max_delay) is there for those who would rather wait.
//! * only requests of one [key](BatchLayer::by_key) share a call, and each key has a batch of its own that forms. The one
//!   with the oldest request is sent first.
//! * batches are bounded by count and by [weight](BatchLayer::weigh), and what waits in all by
//!   [`capacity`](BatchLayer::capacity): while so many wait the service is not ready.
//! * a request whose deadline has passed, or whose caller has left, is not in the batch when it is sent.
//!
//! ```
//! use std::convert::Infallible;
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::layers::BatchLayer;
//! use tower_kernels::request::RequestContext;
//!
//! struct Lookup(u64);
//! impl RequestContext for Lookup {}
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // One round trip answers them all; it takes one batch at a time.
//! let database = service_fn(|lookups: Vec<Lookup>| async move {
//!     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
//!     let rows = lookups.len();
//!     Ok::<_, Infallible>(lookups.into_iter().map(|Lookup(id)| Ok((id, rows))).collect::<Vec<_>>())
//! });
//! let service = BatchLayer::new(100).in_flight(1).layer(database);
//!
//! let lookups = (0..10).map(|id| service.clone().oneshot(Lookup(id)));
//! let answers: Vec<_> = futures::future::join_all(lookups).await;
//! // The first went at once, and the other nine together.
//! assert_eq!(answers[0].as_ref().unwrap(), &(0, 1));
//! assert_eq!(answers[9].as_ref().unwrap(), &(9, 9));
//! # }
//! ```
//!
//! # Errors
//!
//! What the inner service says of one request is that request's alone ([`BatchError::Inner`]). If it fails with a whole
//! batch, all of the batch have the same error ([`BatchError::Shared`]), and it says of itself what it would have said
//! alone.
//!
//! # Tasks
//!
//! Where a request has to wait, a task is started that sends batches until nothing waits; each batch runs in a task of its
//! own, which hands the answers out. So nobody waits for a caller that does not poll, several batches are under way where
//! the inner service is ready for several, and there is no task while there is nothing to do. They run on the Tokio
//! runtime of the caller that found none. Without a runtime, or if it ends, or if the inner service panics, all who wait
//! are told ([`BatchError::Stopped`]), and the next request starts afresh.
//!
//! A request without a key, and one that weighs more than a batch may, is called by its caller's own future, once the
//! inner service is ready for it.
//!
//! # Readiness
//!
//! `poll_ready` reserves a place to wait, and while nothing waits the inner service's readiness with it. The place is free
//! again when the request is sent. If the inner service's readiness fails, so does the service's, and so do those who
//! wait.
//!
//! # Cancel safety
//!
//! A future that is dropped while it waits takes its request out of the batch, and its place is free at once. Dropped
//! while the batch runs, the others get their answers; when all have been dropped, so is the inner service's future.

mod crew;
mod error;
mod future;
mod join;
mod layer;
mod queue;
mod run;
mod service;
#[cfg(all(test, tower_kernels_loom))]
mod tests;

pub use self::error::BatchError;
pub use self::future::ResponseFuture;
pub use self::join::{ByKey, Join, Together, Weighed};
pub use self::layer::{BatchLayer, BatchStats};
pub use self::service::{Answers, Batch};
