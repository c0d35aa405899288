//! Has another service answer what one cannot: a smaller device, the CPU, a replica further away.
//!
//! The other service is called with the same request when the first one's error, or the error of its readiness, is one of
//! the [chosen](FallbackLayer::on): `Unavailable` and `Overloaded` if nothing is said, among which are the refusals of a
//! [`CircuitBreakerLayer`](super::CircuitBreakerLayer) whose circuit is open. It has what is left of the request's deadline.
//!
//! It differs from [`RetryLayer`](super::RetryLayer) in that the second call goes to another service, at once and once; and
//! from [`Local`](crate::backends::Local), which moves jobs off a device that is lost by itself, in that it also takes in
//! services that are only full, on whatever errors and requests you choose.
//!
//! ```
//! use tower::{Layer, Service, ServiceExt, service_fn};
//! use tower_kernels::error::{Classify, ErrorKind};
//! use tower_kernels::layers::FallbackLayer;
//!
//! #[derive(Debug, thiserror::Error)]
//! #[error("the upstream is full")]
//! struct Full;
//! impl Classify for Full {
//!     fn kind(&self) -> ErrorKind {
//!         ErrorKind::Overloaded
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let fast = service_fn(|_: http::Request<()>| async { Err::<&str, _>(Full) });
//! let slow = service_fn(|_: http::Request<()>| async { Ok::<_, Full>("from the slow one") });
//! let layer = FallbackLayer::new(slow);
//! let mut service = layer.layer(fast);
//!
//! let answer = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert_eq!(answer, "from the slow one");
//! assert_eq!(layer.stats().fell_back, 1);
//! # }
//! ```
//!
//! # Readiness
//!
//! The service is ready when the first one is, or when that one's readiness has failed with a chosen error: then the next
//! call goes to the fallback, and the first one is asked again for the call after it. One that is full is not ready and
//! does not fail; with a [`LoadShedLayer`](super::LoadShedLayer) around it, it does, as `Overloaded`. The fallback is made
//! ready for each call that it is given, and not before, so it holds no places for calls that never come.
//!
//! # What is run twice
//!
//! A service that fails as `Unavailable` may have begun. Where that matters, [`FallbackLayer::only`] leaves requests out
//! that must not run twice: for kernels, all that are not [pure](crate::service::KernelRegistry::is_pure).
//!
//! # Cost
//!
//! The request is cloned, which for payloads of bytes is a count. The fallback is cloned when it is needed. A response that
//! is itself a refusal, such as an HTTP response of status 503, is not an error and is not fallen back on.
//!
//! # Cancel safety
//!
//! Dropping the future drops what runs, in either service.

mod choice;
mod error;
mod future;
mod layer;
mod service;
mod stats;

pub use self::choice::{Choose, Only, When};
pub use self::error::FallbackError;
pub use self::future::ResponseFuture;
pub use self::layer::FallbackLayer;
pub use self::service::Fallback;
pub use self::stats::FallbackStats;
