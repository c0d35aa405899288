//! Turns the refusals of the layers and services below it into answers, so that the stack cannot fail.
//!
//! Servers take services whose error is [`Infallible`](std::convert::Infallible): `axum`'s `Router::layer`, `hyper`
//! and `tonic` have nowhere to put any other. Beneath this layer every layer of this crate, and any of yours whose
//! error can [`Classify`](crate::error::Classify) itself, sits directly on routes that know nothing of kernels.
//!
//! It differs from `axum`'s `HandleErrorLayer` in that the errors need not be boxed and told apart again by a handler:
//! each says of itself what it is, and the [table](crate::error) makes a status of that. Errors that are boxed, as
//! those of tower's `load_shed`, `timeout` and `buffer` are, are [told apart](fn@crate::error::classify) here.
//!
//! ```
//! use std::time::Duration;
//! use axum::{Router, body::Body, http::Request, routing::get};
//! use tower::{ServiceBuilder, ServiceExt};
//! use tower_kernels::layers::{ErrorResponseLayer, MetricsLayer, RateLimiterLayer, TimeoutLayer};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let app: Router = Router::new().route("/", get(async || "hello")).layer(
//!     ServiceBuilder::new()
//!         .layer(ErrorResponseLayer::new())
//!         .layer(MetricsLayer::new())
//!         .layer(RateLimiterLayer::new(1, Duration::from_secs(60)))
//!         .layer(TimeoutLayer::new(Duration::from_secs(5))),
//! );
//!
//! assert_eq!(app.clone().oneshot(Request::new(Body::empty())).await?.status(), 200);
//! let refused = app.oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(refused.status(), 429);
//! assert_eq!(refused.headers()["retry-after"], "60");
//! assert_eq!(refused.headers()["content-type"], "application/problem+json");
//! # Ok(())
//! # }
//! ```
//!
//! # In which protocol
//!
//! | layer | answers | asks of the response body |
//! |---|---|---|
//! | [`ErrorResponseLayer::new`] | as the request's content type asks: [`Grpc`] for `application/grpc…`, else [`Http`] | [`FromBytes`] |
//! | [`ErrorResponseLayer::http`] | a problem document after [RFC 9457], with `Retry-After` where it is known, or due | [`FromBytes`] |
//! | [`ErrorResponseLayer::grpc`] | a gRPC status in a response of headers alone | `Default` |
//!
//! `axum::body::Body` and `http_body_util::Full<Bytes>` serve for all three, `tonic::body::Body` and a `BoxBody` for the
//! last, which is the one for `tonic`'s `Server::builder().layer`. Every other body does with [`any_body`] between this
//! layer and the service. Compression goes outside of this layer, where it sees these answers as well. A [`Protocol`]
//! of your own writes refusals in any other way.
//!
//! # Readiness
//!
//! Pending stays pending. An inner service that fails to become ready is reported as ready, and the next call is
//! answered with the reason and does not reach it; then it is asked again. So a worker that is gone is an answer to
//! each caller, where a server would drop connection after connection.
//!
//! # Cost
//!
//! Where nothing is refused, one comparison before the call and one after it; [`ErrorResponseLayer::new`] also looks up
//! one header of the request. Nothing is allocated. A refusal allocates its text.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one. A failed readiness is kept for the next call of the same service; a clone
//! begins without it.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

mod body;
mod future;
mod grpc;
mod layer;
mod problem;
mod protocol;
mod rejection;
mod service;

pub use self::body::{AnyBody, FromBytes, any_body};
pub use self::future::ResponseFuture;
pub use self::layer::ErrorResponseLayer;
pub use self::protocol::{ByContentType, Grpc, Http, Protocol, Spoken};
pub use self::rejection::Refusal;
pub use self::service::Answer;
