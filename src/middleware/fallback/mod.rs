//! Calls a fallback service when the primary one fails: a smaller device, the CPU, a replica elsewhere.
//!
//! The fallback is called with the same request when the error of the primary service, or of its readiness, is of one of the
//! [chosen kinds](FallbackLayer::on): `Unavailable` and `Overloaded` by default, which include the rejections of a
//! [`CircuitBreakerLayer`](super::CircuitBreakerLayer). The request's deadline applies to both calls together.
//!
//! It differs from [`RetryLayer`](super::RetryLayer) in that the second call goes to another service, at once and once; and
//! from [`Local`](crate::backends::Local), which moves jobs off a lost device, in that it works for any services, errors and
//! requests.
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
//! let slow = service_fn(|_: http::Request<()>| async { Ok::<_, Full>("from the slow service") });
//! let layer = FallbackLayer::new(slow);
//! let mut service = layer.layer(fast);
//!
//! let response = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap();
//! assert_eq!(response, "from the slow service");
//! assert_eq!(layer.snapshot().fell_back, 1);
//! # }
//! ```
//!
//! # Readiness
//!
//! The service is ready when the primary one is, or when that one's readiness has failed with a chosen error: then the next
//! call goes to the fallback, and the one after it polls the primary service again. A full service is not ready and does not
//! fail; with a [`LoadShedLayer`](super::LoadShedLayer) around it, it fails as `Overloaded`. The fallback's readiness is
//! polled for each call that it gets, so it holds no permits for calls that never come.
//!
//! # Requests that run twice
//!
//! A service that fails as `Unavailable` may have begun. [`FallbackLayer::only`] excludes requests that must not run twice:
//! for kernels, all that are not [pure](crate::service::KernelRegistry::is_pure).
//!
//! # Cost
//!
//! The request is cloned, which for payloads of bytes is a reference count. The fallback is cloned when it is called. A
//! response that is a rejection, such as an HTTP response of status 503, is not an error and is not fallen back on.
//!
//! # Cancel safety
//!
//! Dropping the future drops the call that runs, in either service.

mod error;
mod future;
mod layer;
mod policy;
mod service;

pub use self::error::FallbackError;
pub use self::future::ResponseFuture;
pub use self::layer::FallbackLayer;
pub use self::policy::{FallbackPolicy, FallbackSnapshot};
pub use self::service::Fallback;
