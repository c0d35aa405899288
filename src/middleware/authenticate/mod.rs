//! Lets through what says who makes it, by an API key or a JSON web token, and refuses the others.
//!
//! It differs from `tower-http`'s `AddAuthorization` and `AsyncRequireAuthorization` in that
//! * it brings what checks the credential: [`ApiKeys`], compared in constant time, and [`Jwt`];
//! * what the credential says goes on as the [`Tenant`] of the request, in its extensions, where the layers of this crate
//!   look for it: a quota or a time series for each;
//! * a refusal is an error that says what it is, and [`ErrorResponseLayer`](super::ErrorResponseLayer) answers it in the caller's
//!   protocol: HTTP's 401 with `WWW-Authenticate` after [RFC 6750], gRPC's `UNAUTHENTICATED`.
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
//!         let tenant = request.tenant().map_or("anybody", |tenant| &**tenant);
//!         Ok::<_, std::convert::Infallible>(Response::new(bytes::Bytes::from(format!("hello, {tenant}"))))
//!     }));
//!
//! let known = Request::get("/").header("x-api-key", "5f4e0c1b9ad84c6f8a3a").body(())?;
//! assert_eq!(service.ready().await?.call(known).await?.body(), "hello, acme");
//! let unknown = Request::get("/").header("authorization", "Bearer no-key-of-anybody").body(())?;
//! let refused = service.ready().await?.call(unknown).await?;
//! assert_eq!(refused.status(), 401);
//! assert_eq!(refused.headers()["www-authenticate"], r#"Bearer realm="kernels", error="invalid_token""#);
//! let probe = Request::get("/health").body(())?;
//! assert_eq!(service.ready().await?.call(probe).await?.body(), "hello, anybody");
//! # Ok(())
//! # }
//! ```
//!
//! # Which credential
//!
//! `authorization: Bearer X` or `x-api-key: X`, over HTTP and as the metadata of gRPC alike. A request with two is
//! refused. Both verifiers take either: `keys.or(tokens)` asks one after the other, and a [`Verify`] of your own takes
//! whatever else can be told from memory.
//!
//! On a connection whose TLS client certificate names the tenant, that certificate can stand for a credential of each
//! request: [`AuthenticateLayer::client_certificates`].
//!
//! # What a client can claim
//!
//! A [`Tenant`] that was in the extensions is replaced, and the [`Priority`] where the credential has one. What the
//! client itself says, in the `metadata` of a document or of a call, is weaker than these, so a tenant can be had with its
//! credential only. Requests that are [exempt](AuthenticateLayer::exempt) go on as they came.
//!
//! # What is told of a refusal
//!
//! The client hears whether there was a credential, and no more. Why it was denied is an event at level `INFO`, without
//! the credential, and a code for [counters](AuthenticateLayer::on_failure). The credential itself stays in the headers of the request; to keep those out of other people's logs,
//! put `tower-http`'s `SetSensitiveRequestHeadersLayer` outermost.
//!
//! # Cost
//!
//! An API key is hashed (SHA-256) and compared with each that is known, some 2 ns for each; nothing is allocated but the
//! request's extensions. A token is parsed, with allocations, and its signature checked: some 3 us with HS256. Public
//! keys cost far more (tens to hundreds of us, EdDSA the least), and that on the thread that drives the server. The
//! figures are in `benches/RESULTS.md`.
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
mod future;
mod jwt;
mod layer;
mod service;
mod verify;

pub use self::api_keys::{ApiKey, ApiKeys, InvalidApiKey};
pub use self::credential::Credential;
pub use self::error::AuthenticateError;
pub use self::future::ResponseFuture;
pub use self::jwt::{InvalidJwtKey, Jwt, JwtKey};
pub use self::layer::AuthenticateLayer;
pub use self::service::Authenticate;
pub use self::verify::{Denied, Identity, Or, Verify};
