//! Thin adapters: each brings requests of one stack to any `Service<KernelRequest>`, and its answers back.

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "axum")]
pub mod axum;
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
