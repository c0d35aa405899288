//! The layers, and nothing else, so that they can be imported with `use tower_kernels::layers::*`.
//!
//! [`middleware`] says what each of them does and when to use it, and has a module for each.
//!
//! Neither this module nor [`service`] has modules of its own, or types with the names of common ones. Imported all at once,
//! they shadow no crate and nothing of the standard library or of tower:
//!
//! ```
//! use std::time::Duration;
//! use tower::*;
//! use tower_kernels::layers::*;
//! use tower_kernels::service::*;
//!
//! tracing::info!("the crate `tracing`, and not the layer");
//! let service = ServiceBuilder::new()
//!     .layer(MetricsLayer::new())
//!     .layer(TimeoutLayer::new(Duration::from_secs(30)))
//!     .layer(timeout::TimeoutLayer::new(Duration::from_secs(60))) // tower's
//!     .service(service_fn(async |request: KernelRequest| Ok::<_, KernelError>(request.payload)));
//! ```

#[cfg(feature = "auth")]
pub use crate::middleware::authenticate::AuthenticateLayer;
#[cfg(feature = "cache")]
pub use crate::middleware::cache::CacheLayer;
pub use crate::middleware::{
    batch::BatchLayer, circuit_breaker::CircuitBreakerLayer, classify::ClassifyLayer, coalesce::CoalesceLayer,
    concurrency::ConcurrencyLayer, error_response::ErrorResponseLayer, fallback::FallbackLayer, hedge::HedgeLayer,
    load_shed::LoadShedLayer, metrics::MetricsLayer, optional::OptionalLayer, priority_queue::PriorityQueueLayer,
    rate_limit::RateLimiterLayer, retry::RetryLayer, timeout::TimeoutLayer, tracing::TracingLayer,
};
