//! Layers that make a service safe to put in front of users. None of them knows of kernels.
//!
//! Each has a module with its service, its future, its error, and what reads how it is. The layers themselves are in
//! [`layers`](crate::layers) as well, from where they can be imported all at once.
//!
//! | layer | the question it answers | where it acts |
//! |---|---|---|
//! | [`ErrorResponseLayer`] | What is the caller told of a refusal? | around all of them, directly below an HTTP or gRPC server |
//! | [`MetricsLayer`] | How many calls, how long, and how did they end? | outermost, so that the refusals of the others are counted |
//! | [`TracingLayer`] | What became of this one call? | inside metrics, around all that can refuse |
//! | [`AuthenticateLayer`] | Who is this? (feature `auth`, HTTP and gRPC) | in `call`: it tells the tenant to those inside it, or refuses |
//! | [`LoadShedLayer`] | Can this still be answered in time? | in `call`: it refuses what the work ahead leaves no time for |
//! | [`RateLimiterLayer`] | Has this caller had its share? | in `call`: it takes a token, or refuses, or waits for one |
//! | [`CacheLayer`] | Is the answer known already? (feature `cache`) | in `call`, inside whatever decides who may ask |
//! | [`CoalesceLayer`] | Is somebody asking the same just now? | in `call`: equal requests in flight share one run |
//! | [`FallbackLayer`] | Who else can answer? | on chosen errors of what is inside it |
//! | [`CircuitBreakerLayer`] | Does the inner service answer at all? | in `poll_ready` and `call`: it refuses while failures are too many, and probes |
//! | [`TimeoutLayer`] | Is anybody still waiting for the answer? | at `call` it sets the deadline, from the first `Pending` on it keeps it |
//! | [`RetryLayer`] | Would it succeed at a second try? | on chosen errors, within the deadline and a budget |
//! | [`HedgeLayer`] | Would another be faster? | a while after the call, once, within a budget |
//! | [`PriorityQueueLayer`] | Who is next? | between `call` and the readiness of what is inside it |
//! | [`ConcurrencyLayer`] | How many at a time? | in `poll_ready`: it reserves a place |
//! | [`BatchLayer`] | Who else can share the call? | while what is inside it, a service of batches, is not ready |
//!
//! Two more are no protection of their own: [`ClassifyLayer`] tells the others what the errors of a foreign service mean,
//! and [`OptionalLayer`] leaves a layer out where a setting says so.
//!
//! What they ask of a request and a response is [`RequestContext`] and [`ResponseContext`]; what they ask of an error
//! is [`Classify`], or that it is a [`BoxError`](tower::BoxError). A request of your own implements the first with an empty
//! `impl` block. What the compiler says where one of these is missing, and what to do, is on
//! [a page of its own](crate::compile_errors).
//!
//! ```
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let metrics = MetricsLayer::new();
//! let mut service = ServiceBuilder::new()
//!     .layer(metrics.clone())
//!     .layer(TracingLayer::new())
//!     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)))
//!     .layer(TimeoutLayer::new(Duration::from_secs(30)))
//!     .service(service_fn(|_: http::Request<()>| async {
//!         Ok::<_, std::convert::Infallible>(http::Response::new("hello"))
//!     }));
//!
//! let answer = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert_eq!(*answer.body(), "hello");
//! assert!(metrics.render().contains(r#"outcome="ok"} 1"#));
//! # }
//! ```
//!
//! # Guarantees of all layers
//!
//! * They call the service that was polled ready, never a clone of it.
//! * A call that a layer rejects does not reach the inner service. What the inner service's readiness reserved stays
//!   reserved for the next call, and is released when the service is dropped.
//! * Their futures are named types, nothing is boxed, and a call whose response is ready at once allocates nothing, but for
//!   the `Vec` that a service of batches takes.
//! * State that limits or counts lives in the layer: clones of a layer, and all services made by it, share it.
//!   `layer.snapshot()` reads it.
//! * Time is Tokio's, so `tokio::time::pause` works.
//! * `tower::load::Load` is forwarded, so `tower::balance` works over any stack, and with the feature `grpc` so is tonic's
//!   `NamedService`.
//!
//! [`RequestContext`]: crate::request::RequestContext
//! [`ResponseContext`]: crate::request::ResponseContext
//! [`Classify`]: crate::error::Classify

pub use self::call_or_reject::CallOrReject;
#[cfg(doc)]
use crate::layers::*;

// How a layer is written. Each has a folder with `layer.rs`, `service.rs`, `future.rs` and `error.rs`; `rate_limit` is the
// model. What they have in common is written once:
// - `inner_service!(Service<S> { inner })` writes the accessors and forwards `Load` and `NamedService`, and
//   `clone_service!(Service<S> { inner, shared, ready: false })` a `Clone` that does not copy what one service reserved.
// - `CallOrReject<F, Error>` is the future of a layer that calls the inner service or rejects the call.
// - `LazyTimer` creates its `Sleep` at the first poll, `CloneSource` yields services for further attempts, `Jitter` spreads
//   delays, `clock::now` is the time within a `call`.
// - `crate::text::{prefix, truncated}` cut texts, `crate::random::SplitMix64` draws numbers.
// - `Layer::snapshot()` returns a `#[non_exhaustive]` struct `...Snapshot` with plain public fields: all state that callers
//   can read, and the only way to read it.

#[cfg(feature = "auth")]
pub mod authenticate;
#[cfg(feature = "batch")]
pub mod batch;
#[cfg(feature = "cache")]
pub mod cache;
#[cfg(any(feature = "cache", feature = "coalesce"))]
pub mod cache_key;
mod call_or_reject;
#[cfg(feature = "circuit-breaker")]
pub mod circuit_breaker;
#[cfg(feature = "classify")]
pub mod classify;
mod clock;
mod clone_source;
#[cfg(feature = "coalesce")]
pub mod coalesce;
#[cfg(feature = "concurrency")]
pub mod concurrency;
#[cfg(feature = "error-response")]
pub mod error_response;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "hedge")]
pub mod hedge;
mod inner_service;
mod jitter;
mod lazy_timer;
#[cfg(feature = "load-shed")]
pub mod load_shed;
#[cfg(feature = "metrics")]
pub mod metrics;
#[cfg(feature = "optional")]
pub mod optional;
#[cfg(any(feature = "load-shed", feature = "priority-queue"))]
mod per_share;
#[cfg(feature = "priority-queue")]
pub mod priority_queue;
#[cfg(feature = "rate-limit")]
pub mod rate_limit;
#[cfg(feature = "retry")]
pub mod retry;
#[cfg(feature = "timeout")]
pub mod timeout;
#[cfg(feature = "tracing")]
pub mod tracing;
