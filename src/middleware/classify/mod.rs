//! Gives errors of other crates a kind, and requests of other crates a context, for the layers of this crate.
//!
//! The layers of this crate handle errors by their [kind](crate::error::ErrorKind): a circuit breaker counts failures
//! but not overload, and a retry waits for the error's retry-after. Your own error types implement
//! [`Classify`](crate::error::Classify). For error types of other crates, and for errors in a
//! [`BoxError`](tower::BoxError), put a [`ClassifyLayer`] directly around the service that returns them:
//!
//! ```
//! use std::io;
//! use std::time::Duration;
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::error::{Classification, Classify, ErrorKind};
//! use tower_kernels::layers::{CircuitBreakerLayer, ClassifyLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! let classify = ClassifyLayer::new().errors(|error: &io::Error| match error.kind() {
//!     io::ErrorKind::ConnectionRefused => {
//!         Classification::new(ErrorKind::Unavailable).with_retry_after(Duration::from_secs(5))
//!     }
//!     io::ErrorKind::TimedOut => ErrorKind::DeadlineExceeded.into(),
//!     _ => ErrorKind::Internal.into(),
//! });
//! let mut service = ServiceBuilder::new()
//!     .layer(CircuitBreakerLayer::new())
//!     .layer(classify)
//!     .service(service_fn(async |_: http::Request<()>| {
//!         Err::<http::Response<()>, _>(io::Error::from(io::ErrorKind::ConnectionRefused))
//!     }));
//!
//! let error = service.ready().await.unwrap().call(http::Request::new(())).await.unwrap_err();
//! assert_eq!(error.kind(), ErrorKind::Unavailable);
//! assert_eq!(error.retry_after(), Some(Duration::from_secs(5)));
//! # }
//! ```
//!
//! # Order of the rules
//!
//! The rules are applied to the error and then to each of its [sources](std::error::Error::source): first those of the
//! layer, in the order in which they were added, then the [built-in ones](fn@crate::error::classify). The first match
//! decides. Without a match, the kind is [`Internal`](crate::error::ErrorKind::Internal), or the one set with
//! [`otherwise`](ClassifyLayer::otherwise).
//!
//! # Boxed errors
//!
//! tower's `Buffer`, `LoadShed` and `Timeout` box errors, which hides their type. Errors of this crate are recognised
//! in a box. Your own error types are not, even if they implement `Classify`. Put [`ClassifyLayer::keep`] between the
//! service and the layer that boxes its errors:
//!
//! ```
//! # #[derive(Debug, thiserror::Error)]
//! # #[error("full")]
//! # struct MyError;
//! # impl tower_kernels::error::Classify for MyError {
//! #     fn kind(&self) -> tower_kernels::error::ErrorKind { tower_kernels::error::ErrorKind::Overloaded }
//! # }
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::error::{AnyError, ErrorKind};
//! use tower_kernels::layers::ClassifyLayer;
//!
//! let service = ServiceBuilder::new()
//!     .buffer(16)
//!     .layer(ClassifyLayer::new().keep::<MyError>())
//!     .service(service_fn(async |_: u32| Err::<u32, _>(MyError)));
//! let error: tower::BoxError = service.oneshot(1).await.unwrap_err();
//! assert_eq!(error.classify().kind, ErrorKind::Overloaded);
//! # }
//! ```
//!
//! # Requests
//!
//! The layers read the tenant, priority and deadline of a request through
//! [`RequestContext`](crate::request::RequestContext). Requests of another type are wrapped in a [`WithContext`], which
//! implements it.
//!
//! # Cost
//!
//! A call that succeeds costs one reference count and one comparison. An error is boxed, unless it is boxed already.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner future. The layer is ready when the inner service is.

mod error;
mod future;
mod layer;
mod service;
mod with_context;

pub use self::error::ClassifiedError;
pub use self::future::ResponseFuture;
pub use self::layer::ClassifyLayer;
pub use self::service::Classified;
pub use self::with_context::WithContext;
