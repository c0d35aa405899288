//! Puts a layer around a service, or leaves it out, as a setting says.
//!
//! tower's `option_layer` asks that the service has the same error type with the layer as without. The layers of this crate
//! that reject calls have an error type of their own around that of the inner service, so the two differ and `option_layer`
//! does not compile. [`OptionalLayer`] converts the error of the service where the layer is left out, which every error
//! type of this crate's layers can be made from.
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
//! It works for every layer that leaves the type of requests and responses as it is and whose error type is [`From`] the
//! inner one: all of this crate but [`ErrorResponseLayer`](super::ErrorResponseLayer), which a server needs in any case, and
//! [`BatchLayer`](super::BatchLayer), whose inner service takes another type of request.
//!
//! # With tower's `option_layer`
//!
//! `option_layer` does compile where the errors are boxed on both sides of the layer. An error of this crate keeps its kind
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
//! One comparison at each poll. The service is of both types, so its futures are as large as the larger of the two.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one.

mod future;
mod layer;
mod service;

pub use self::future::ResponseFuture;
pub use self::layer::OptionalLayer;
pub use self::service::Optional;
