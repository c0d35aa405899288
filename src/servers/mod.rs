//! Thin adapters: each brings requests of one stack to any `Service<KernelRequest>`, and its answers back.
//!
//! | module | feature | what it is |
//! |---|---|---|
//! | `actix` | `actix` | actors that run kernels, and a supervisor |
//! | `axum` | `axum` | REST: a router to serve or to nest, with health, metrics and OpenAPI; with `docs` a page that shows it |
//! | `grpc` | `grpc` | gRPC over tonic: a server, a client, health and reflection |
//! | `hyper` | `hyper` | any pipeline as a service of hyper's, and a server with a graceful end |
//! | `requests` | `axum`, `grpc` or `hyper` | counts requests at the edge, by what their client was told |
//! | `http` | `axum` or `hyper` | what those two share: bodies, deadlines, problem documents, tensors |

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(any(feature = "axum", feature = "grpc"))]
mod devices;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(any(feature = "axum", feature = "hyper"))]
#[cfg_attr(
    not(all(feature = "axum", feature = "hyper")),
    allow(dead_code, unreachable_pub, reason = "each transport uses its part of what they share")
)]
mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
mod offload;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub mod requests;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod slow_body;
#[cfg(any(feature = "axum", feature = "hyper"))]
mod unread_body;
