//! Merges requests that wait at the same time into one call of a service of batches.
//!
//! A launch on a GPU, a query to a database or a write to a disk does many things for little more than the cost of one, while
//! each caller has one request. Around a `Service<Vec<R>>`, which returns a result for each request of a batch, this layer is a
//! `Service<R>`.
//!
//! It differs from batching by a timer and a size in that
//! * batches form *while the inner service is not ready*. If it is ready and nothing waits, a request is called at once, by its
//!   own future, as if the layer were not there. If it is busy, the requests that arrive meanwhile are sent together as soon as
//!   it is ready: the busier it is, the larger the batches, with nothing to tune. [`max_delay`](BatchLayer::max_delay) delays
//!   batches in addition;
//! * only requests with the same [key](BatchLayer::by_key) share a call, and each key has batches of its own. The batch with
//!   the oldest request is sent first;
//! * batches are bounded by the number of requests and by [weight](BatchPolicy::weight), calls in flight by key, and all waiting
//!   requests by the [`capacity`](BatchLayer::capacity);
//! * requests that are cancelled or past their deadline when the batch is sent are not in it.
//!
//! It differs from a [`CoalesceLayer`](super::CoalesceLayer) in that the requests of a call are different ones, each with a
//! response of its own.
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
//! // One round trip for all lookups of a batch, and one batch at a time.
//! let database = service_fn(|lookups: Vec<Lookup>| async move {
//!     tokio::time::sleep(std::time::Duration::from_millis(1)).await;
//!     let rows = lookups.len();
//!     Ok::<_, Infallible>(lookups.into_iter().map(|Lookup(id)| Ok((id, rows))).collect::<Vec<_>>())
//! });
//! let service = BatchLayer::new(100).max_in_flight(1).layer(database);
//!
//! let lookups = (0..10).map(|id| service.clone().oneshot(Lookup(id)));
//! let responses: Vec<_> = futures::future::join_all(lookups).await;
//! // The first was called at once, and the other nine together.
//! assert_eq!(responses[0].as_ref().unwrap(), &(0, 1));
//! assert_eq!(responses[9].as_ref().unwrap(), &(9, 9));
//! # }
//! ```
//!
//! # Errors
//!
//! An error of the inner service for one request is that request's alone ([`BatchError::Inner`]). If the inner service fails
//! with a whole batch, all its requests have the same error ([`BatchError::Shared`]), with the kind and retry-after of the
//! inner one.
//!
//! # Tasks
//!
//! The first request that has to wait spawns a dispatcher task, which sends batches and ends when none waits. Each batch runs in
//! a task of its own, which sends the responses to the callers, so a caller that does not poll holds up nobody. They run on the
//! Tokio runtime of that first caller. If there is no runtime, or it shuts down, or the inner service panics, all requests that
//! wait fail with [`BatchError::Stopped`], and the next request starts another dispatcher.
//!
//! A request without a key, or heavier than a batch may be, is called by its own future once the inner service is ready.
//!
//! # Readiness
//!
//! `poll_ready` reserves a permit to wait and, while nothing waits, the inner service. The permit is free again when the request
//! is sent. If the inner service fails to become ready, so does this service, and all requests that wait.
//!
//! # Cancel safety
//!
//! Dropping the future of a request that waits removes it from its batch, and frees its permit at once. If the batch runs, the
//! others still get their responses; once all futures of a batch have been dropped, so is the inner future.

mod dispatcher;
mod error;
mod future;
mod layer;
mod policy;
mod queue;
mod service;
#[cfg(all(test, tower_kernels_loom))]
mod tests;

pub use self::error::BatchError;
pub use self::future::ResponseFuture;
pub use self::layer::{BatchLayer, BatchSnapshot};
pub use self::policy::{BatchPolicy, ByKey, SingleKey};
pub use self::service::{Batch, BatchResponse, BatchService};
