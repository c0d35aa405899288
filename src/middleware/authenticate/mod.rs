//! Authenticates requests by an API key, a JSON web token or a TLS client certificate, and rejects the others.
//!
//! It differs from `tower-http`'s `AddAuthorization` and `AsyncRequireAuthorization` in that
//! * it has verifiers: [`ApiKeys`], which are compared in constant time, and [`Jwt`];
//! * it adds the [`Tenant`] of the credential to the request's extensions, where the other layers of this crate read
//!   it, such as a rate limit per tenant;
//! * a rejection is an error with a kind, which [`ErrorResponseLayer`](super::ErrorResponseLayer) turns into a response
//!   of the client's protocol: HTTP's 401 with `WWW-Authenticate` after [RFC 6750], gRPC's `UNAUTHENTICATED`.
//!
//! ```
//! use std::time::Duration;
//! use http::{Request, Response};
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
//! use tower_kernels::middleware::authenticate::{ApiKey, ApiKeys};
//! use tower_kernels::layers::{ErrorResponseLayer, AuthenticateLayer, RateLimiterLayer};
//! use tower_kernels::request::RequestContext;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let keys = ApiKeys::new([ApiKey::new("acme", "5f4e0c1b9ad84c6f8a3a")?])?;
//! let mut service = ServiceBuilder::new()
//!     .layer(ErrorResponseLayer::new())
//!     .layer(AuthenticateLayer::new(keys).exempt(|_, uri| uri.path() == "/health"))
//!     .layer(RateLimiterLayer::new(100, Duration::from_secs(1)).per_tenant())
//!     .service(service_fn(|request: Request<()>| async move {
//!         let tenant = request.tenant().map_or("anonymous", |tenant| &**tenant);
//!         Ok::<_, std::convert::Infallible>(Response::new(bytes::Bytes::from(format!("hello, {tenant}"))))
//!     }));
//!
//! let known = Request::get("/").header("x-api-key", "5f4e0c1b9ad84c6f8a3a").body(())?;
//! assert_eq!(service.ready().await?.call(known).await?.body(), "hello, acme");
//! let unknown = Request::get("/").header("authorization", "Bearer an-unknown-key-of-acme").body(())?;
//! let rejected = service.ready().await?.call(unknown).await?;
//! assert_eq!(rejected.status(), 401);
//! assert_eq!(rejected.headers()["www-authenticate"], r#"Bearer realm="kernels", error="invalid_token""#);
//! let probe = Request::get("/health").body(())?;
//! assert_eq!(service.ready().await?.call(probe).await?.body(), "hello, anonymous");
//! # Ok(())
//! # }
//! ```
//!
//! # Credentials
//!
//! A request carries its credential as `authorization: Bearer X` or `x-api-key: X`, in HTTP headers or gRPC metadata. A
//! request with two credentials is rejected. [`ApiKeys`] and [`Jwt`] read both headers; `keys.or(tokens)` tries one
//! after the other. For other credentials implement [`Verify`].
//!
//! [`AuthenticateLayer::client_certificates`] accepts the TLS client certificate of a connection as the credential of
//! its requests.
//!
//! # Tenant and priority
//!
//! The layer replaces a [`Tenant`] in the request's extensions, and a [`Priority`] if the credential has one. Both take
//! precedence over the `metadata` of a document or call, so a client cannot claim another tenant. Requests that are
//! [exempt](AuthenticateLayer::exempt) are passed on unchanged.
//!
//! # Rejections
//!
//! The response says whether the credential was missing or denied, and no more. The reason is an event at level `INFO`,
//! without the credential, and has a code for [counters](AuthenticateLayer::on_failure). The credential stays in the
//! request's headers. To keep these out of the logs of other layers, put `tower-http`'s
//! `SetSensitiveRequestHeadersLayer` outermost.
//!
//! # Cost
//!
//! An API key is hashed (SHA-256) and compared with all known keys, at about 2 ns each; only the request's extensions
//! are allocated. A token is parsed, with allocations, and its signature is verified, which takes about 3 us with
//! HS256. Public-key signatures take tens to hundreds of us, EdDSA the least, on the thread that calls the service.
//! `benches/RESULTS.md` has the figures.
//!
//! # Cancel safety
//!
//! Dropping the future drops the inner one.
//!
//! [RFC 6750]: https://www.rfc-editor.org/rfc/rfc6750
//! [`Tenant`]: crate::request::Tenant
//! [`Priority`]: crate::request::Priority

mod api_keys;
mod credential;
mod error;
mod jwt;
mod layer;
mod service;
mod verify;

pub use self::api_keys::{ApiKey, ApiKeys, InvalidApiKey};
pub use self::credential::Credential;
pub use self::error::AuthenticateError;
pub use self::jwt::{InvalidJwtKey, Jwt, JwtKey};
pub use self::layer::AuthenticateLayer;
pub use self::service::Authenticate;
pub use self::verify::{Denied, Identity, Verify};

/// The response future of an [`Authenticate`].
pub type ResponseFuture<F, E> = crate::middleware::CallOrReject<F, AuthenticateError<E>>;
