//! Tells the other layers what the errors of a foreign service mean, and what its requests ask for.
//!
//! The layers of this crate treat errors by their [kind](crate::error::ErrorKind): a circuit breaker counts failures and
//! not overload, a retry waits as long as it was told. An error type of your own says its kind by implementing
//! [`Classify`](crate::error::Classify). For an error type of another crate, which you cannot implement a trait for, and
//! for errors in a [`BoxError`](tower::BoxError), put a [`ClassifyLayer`] directly around the service that returns them:
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
//!     io::ErrorKind::ConnectionRefused => Classification::new(ErrorKind::Unavailable).with_retry_after(Duration::from_secs(5)),
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
//! # Which rule applies
//!
//! The error and then its [sources](std::error::Error::source) are looked at. To each, the rules apply in the order in which
//! they were given, and then [what is known](fn@crate::error::classify) without any rule. The first that applies decides.
//! Where none does, the kind is [`Internal`](crate::error::ErrorKind::Internal), or that of
//! [`otherwise`](ClassifyLayer::otherwise).
//!
//! # Errors of your own in boxes
//!
//! tower's `Buffer`, `LoadShed`, `Timeout` and `BoxError` forget the type of an error. Errors of this crate are recognised
//! in there; an error type of your own is not, even if it implements `Classify`. Put
//! [`ClassifyLayer::keep`] between the service and the layer that boxes:
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
//! What the layers want to know of a request (its tenant, priority, deadline) is
//! [`RequestContext`](crate::request::RequestContext). [`ClassifyRequestLayer`] adds it to requests of a foreign type, as
//! [`WithContext`].
//!
//! # Cost
//!
//! A call that succeeds pays for one comparison and for counting a reference. An error is put into a box, unless it is in
//! one already.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one. Readiness is that of the inner service.

mod error;
mod future;
mod layer;
mod request;
mod service;

pub use self::error::ClassifiedError;
pub use self::future::ResponseFuture;
pub use self::layer::ClassifyLayer;
pub use self::request::{ClassifiedRequests, ClassifyRequestLayer, WithContext};
pub use self::service::Classified;
