//! Converts errors of the layers and services inside it into HTTP or gRPC responses, so that the stack cannot fail.
//!
//! Servers take services whose error is [`Infallible`](std::convert::Infallible): `axum`'s `Router::layer`, `hyper`
//! and `tonic` accept no other. Inside this layer every layer of this crate, and any of yours whose error implements
//! [`Classify`](crate::error::Classify), works on routes that know nothing of kernels.
//!
//! It differs from `axum`'s `HandleErrorLayer` in that errors need not be boxed and matched by a handler: each has a kind,
//! which the [table](crate::error) maps to a status. Boxed errors, as those of tower's `load_shed`, `timeout` and `buffer`,
//! are [classified](fn@crate::error::classify).
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
//! let rejected = app.oneshot(Request::new(Body::empty())).await?;
//! assert_eq!(rejected.status(), 429);
//! assert_eq!(rejected.headers()["retry-after"], "60");
//! assert_eq!(rejected.headers()["content-type"], "application/problem+json");
//! # Ok(())
//! # }
//! ```
//!
//! # Protocols
//!
//! | layer | response | bound of the body |
//! |---|---|---|
//! | [`ErrorResponseLayer::new`] | [`Grpc`] for requests of content type `application/grpc…`, else [`Http`] | [`FromBytes`] |
//! | [`ErrorResponseLayer::http`] | a problem document after [RFC 9457], with `Retry-After` where it is known, or with a 429 or 503 | [`FromBytes`] |
//! | [`ErrorResponseLayer::grpc`] | a gRPC status in a response of headers alone | `Default` |
//!
//! `axum::body::Body` and `http_body_util::Full<Bytes>` serve for all three, `tonic::body::Body` and a `BoxBody` for the
//! last, which is the one for `tonic`'s `Server::builder().layer`. Every other body does with [`any_body`] between this layer
//! and the service. Compression goes outside of this layer, where it sees these responses as well. A [`Protocol`] of your own
//! writes them in any other way.
//!
//! # Readiness
//!
//! `Pending` is passed on. If the inner service fails to become ready, the layer reports readiness, and the next call gets
//! the error response and does not reach the service, which is then polled again. So a worker that is gone is a response to
//! each caller, where a server would drop connection after connection.
//!
//! # Cost
//!
//! One comparison before the call and one after it; [`ErrorResponseLayer::new`] also reads one header of the request. Only
//! error responses allocate.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one. A readiness error is stored for the next call of the same service; a clone
//! starts without it.
//!
//! [RFC 9457]: https://www.rfc-editor.org/rfc/rfc9457

mod body;
mod future;
mod grpc;
mod layer;
mod protocol;
mod rejection;
mod service;

pub use self::body::{AnyBody, FromBytes, any_body};
pub use self::future::ResponseFuture;
pub use self::layer::ErrorResponseLayer;
pub use self::protocol::{ByContentType, Grpc, Http, Protocol, RequestProtocol};
pub use self::rejection::Rejection;
pub use self::service::ErrorResponse;
