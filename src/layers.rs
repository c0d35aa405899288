//! The layers, and nothing else, so that they can be imported with `use tower_kernels::layers::*`.
//!
//! [`middleware`](crate::middleware) says what each of them does and when to use it, and has a module for each.
//!
//! Neither this module nor [`service`](crate::service) has modules of its own, or types with the names of common ones. Imported all at once,
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
#[cfg(feature = "batch")]
pub use crate::middleware::batch::BatchLayer;
#[cfg(feature = "cache")]
pub use crate::middleware::cache::CacheLayer;
#[cfg(feature = "circuit-breaker")]
pub use crate::middleware::circuit_breaker::CircuitBreakerLayer;
#[cfg(feature = "classify")]
pub use crate::middleware::classify::ClassifyLayer;
#[cfg(feature = "coalesce")]
pub use crate::middleware::coalesce::CoalesceLayer;
#[cfg(feature = "concurrency")]
pub use crate::middleware::concurrency::ConcurrencyLayer;
#[cfg(feature = "error-response")]
pub use crate::middleware::error_response::ErrorResponseLayer;
#[cfg(feature = "fallback")]
pub use crate::middleware::fallback::FallbackLayer;
#[cfg(feature = "hedge")]
pub use crate::middleware::hedge::HedgeLayer;
#[cfg(feature = "load-shed")]
pub use crate::middleware::load_shed::LoadShedLayer;
#[cfg(feature = "metrics")]
pub use crate::middleware::metrics::MetricsLayer;
#[cfg(feature = "optional")]
pub use crate::middleware::optional::OptionalLayer;
#[cfg(feature = "priority-queue")]
pub use crate::middleware::priority_queue::PriorityQueueLayer;
#[cfg(feature = "rate-limit")]
pub use crate::middleware::rate_limit::RateLimiterLayer;
#[cfg(feature = "retry")]
pub use crate::middleware::retry::RetryLayer;
#[cfg(feature = "timeout")]
pub use crate::middleware::timeout::TimeoutLayer;
#[cfg(feature = "tracing")]
pub use crate::middleware::tracing::TracingLayer;
