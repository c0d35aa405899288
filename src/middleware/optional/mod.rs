//! Applies a layer to a service if it is configured, and leaves the service as it is otherwise.
//!
//! tower's `option_layer` requires the same error type with and without the layer. Layers of this crate that reject
//! calls wrap the error of the inner service in an error type of their own, so `option_layer` does not compile.
//! [`OptionalLayer`] converts the error of the service into that type when there is no layer.
//!
//! ```
//! use std::time::Duration;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::layers::{OptionalLayer, RateLimiterLayer, TimeoutLayer};
//!
//! struct Settings {
//!     calls_per_second: Option<u32>,
//!     timeout: Option<Duration>,
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let settings = Settings { calls_per_second: None, timeout: Some(Duration::from_secs(5)) };
//! let service = ServiceBuilder::new()
//!     .layer(OptionalLayer::new(settings.calls_per_second.map(|n| RateLimiterLayer::new(n, Duration::from_secs(1)))))
//!     .layer(OptionalLayer::new(settings.timeout.map(TimeoutLayer::new)))
//!     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::convert::Infallible>("hello")));
//! assert_eq!(service.oneshot(http::Request::new(())).await.unwrap(), "hello");
//! # }
//! ```
//!
//! It works for every layer that keeps the types of requests and responses, and whose error type implements [`From`]
//! the inner one. In this crate these are all but [`ErrorResponseLayer`](super::ErrorResponseLayer), which a server
//! always needs, and [`BatchLayer`](super::BatchLayer), whose inner service takes another type of request.
//!
//! # With tower's `option_layer`
//!
//! `option_layer` compiles if the errors are boxed on both sides of the layer. An error of this crate keeps its kind
//! in the box:
//!
//! ```
//! use std::time::Duration;
//! use tower::{BoxError, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::layers::RateLimiterLayer;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let limit = Some(RateLimiterLayer::new(10, Duration::from_secs(1)));
//! let service = ServiceBuilder::new()
//!     .option_layer(limit.map(|limit| ServiceBuilder::new().map_err(BoxError::from).layer(limit).into_inner()))
//!     .map_err(BoxError::from)
//!     .service(service_fn(async |_: http::Request<()>| Ok::<_, std::convert::Infallible>("hello")));
//! assert_eq!(service.oneshot(http::Request::new(())).await.unwrap(), "hello");
//! # }
//! ```
//!
//! # Cost
//!
//! One comparison per poll. The futures are as large as the larger of the two types.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner future.

mod future;
mod layer;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::OptionalLayer;
pub use self::service::Optional;
