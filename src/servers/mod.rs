//! Adapters that serve any `Service<KernelRequest>` over REST, gRPC and actix.
//!
//! | module | feature | purpose |
//! |---|---|---|
//! | `actix` | `actix` | actors that run kernels, and a supervisor |
//! | `axum` | `axum` | REST: a router to serve or to nest, with health, metrics, OpenAPI, and Swagger UI with `docs` |
//! | `grpc` | `grpc` | gRPC over tonic: a server, a client, health and reflection |
//! | `hyper` | `hyper` | REST: a hyper service, and a server with graceful shutdown |
//! | `requests` | `axum`, `grpc` or `hyper` | counts and logs requests by outcome |
//! | `inference` | `axum`, `grpc` or `hyper` | the Open Inference Protocol: kernels as models, over REST and gRPC |
//! | `http` | `axum` or `hyper` | the REST API that `axum` and `hyper` serve: routes, OpenAPI, bodies, problem documents |

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod body_memory;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod charged_buffer;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod devices;
#[cfg(feature = "grpc")]
pub mod grpc;
#[cfg(any(feature = "axum", feature = "hyper"))]
#[cfg_attr(
    not(all(feature = "axum", feature = "hyper")),
    allow(dead_code, unreachable_pub, unused_imports, reason = "each transport uses its part of what they share")
)]
mod http;
#[cfg(feature = "hyper")]
pub mod hyper;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
#[cfg_attr(
    not(all(any(feature = "axum", feature = "hyper"), feature = "grpc")),
    allow(dead_code, unused_imports, reason = "each transport uses its part of what they share")
)]
mod inference;
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
mod offload;
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
mod operands;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub mod requests;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod sections;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod slow_body;
#[cfg(any(feature = "axum", feature = "hyper"))]
mod unread_body;

#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub use self::inference::InferenceExtensions;
