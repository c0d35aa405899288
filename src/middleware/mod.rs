//! Layers for any Tower service. None of them knows of kernels.
//!
//! Each has a module with its service, future, error and snapshot, and a cargo feature. All layer types are in
//! [`layers`](crate::layers) as well, to be imported at once.
//!
//! From the outside of a stack to the inside:
//!
//! | layer | what it does | where |
//! |---|---|---|
//! | [`ErrorResponseLayer`] | Converts errors into HTTP or gRPC responses. | outermost, directly below the server |
//! | [`MetricsLayer`] | Counts and times calls. | around all layers that reject, so that rejections are counted |
//! | [`TracingLayer`] | Creates a span for each call. | inside metrics, around all layers that reject |
//! | [`AuthenticateLayer`] | Authenticates the caller and sets the tenant (HTTP and gRPC). | `call` |
//! | [`RateLimiterLayer`] | Limits the rate of calls, in total, per tenant or per key. | `call` |
//! | [`CacheLayer`] | Caches responses. | `call`, inside the layers that authorize |
//! | [`CoalesceLayer`] | Lets equal calls in flight share one inner call. | `call` |
//! | [`LoadShedLayer`] | Rejects calls that would wait too long or miss their deadline. | `call` |
//! | [`FallbackLayer`] | Calls another service when the first fails. | on chosen errors |
//! | [`CircuitBreakerLayer`] | Rejects calls while too many fail. | `poll_ready` and `call` |
//! | [`TimeoutLayer`] | Applies a timeout, and passes the deadline on. | `call`, and while the response is pending |
//! | [`RetryLayer`] | Retries calls that failed transiently, within the deadline and a budget. | on chosen errors |
//! | [`HedgeLayer`] | Makes a second attempt when the first is slow, within a budget. | after a delay |
//! | [`PriorityQueueLayer`] | Queues calls by priority, tenant and deadline. | between `call` and the inner readiness |
//! | [`ConcurrencyLayer`] | Limits the number of calls in flight. | `poll_ready` |
//! | [`BatchLayer`] | Merges calls into calls of an inner service that takes batches. | while the inner service is not ready |
//!
//! Two more do not act on calls: [`ClassifyLayer`] assigns kinds to the errors of a foreign service, and [`OptionalLayer`]
//! adds a layer or leaves it out.
//!
//! They need [`RequestContext`] of a request, [`ResponseContext`] of a response, and of an error [`Classify`] or that it is a
//! [`BoxError`](tower::BoxError). A request of your own implements the first with an empty `impl` block. [A
//! page](crate::compile_errors) explains what the compiler says where one of them is missing.
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
//! let response = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert_eq!(*response.body(), "hello");
//! assert!(metrics.render().contains(r#"outcome="ok"} 1"#));
//! # }
//! ```
//!
//! # Guarantees of all layers
//!
//! * They call the service that was polled ready, never a clone of it.
//! * A call that a layer rejects does not reach the inner service. What the inner service's readiness reserved stays
//!   reserved for the next call, and is released when the service is dropped.
//! * Their futures are named types, and a call whose response is ready at once allocates nothing, but for the `Vec` that a
//!   service of batches takes and the run that `CoalesceLayer` shares.
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
// - `inner_service!(Service::<S> { inner })` writes the accessors and forwards `Load` and `NamedService`, and
//   `clone_service!(Service::<S> { inner, shared, ready: false })` a `Clone` that does not copy what one service reserved.
// - `derive_clone!` and `derive_debug!` write what the standard derives write, without their bounds on type parameters.
// - `CallOrReject<F, Error>` is the future of a layer that calls the inner service or rejects the call, and
//   `CallWhenReady<S, Request>` that of a call which waits until the inner service is ready.
// - `LazyTimer` creates its `Sleep` at the first poll, `CloneSource` yields services for further attempts, `random_delay`
//   draws delays, `clock::now` is the time within a `call`.
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
mod call_when_ready;
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
mod derive;
#[cfg(feature = "error-response")]
pub mod error_response;
#[cfg(feature = "fallback")]
pub mod fallback;
#[cfg(feature = "hedge")]
pub mod hedge;
mod inner_service;
mod jitter;
pub(crate) mod lazy_timer;
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
