//! What each layer does, on paused time.

mod answer;
#[cfg(feature = "auth")]
mod authenticate;
mod batch;
mod boxes;
mod burst;
#[cfg(feature = "cache")]
mod cache;
mod circuit_breaker;
mod coalesce;
mod concurrency;
mod contract;
mod fallback;
mod hedge;
mod load_shed;
mod metrics;
#[cfg(feature = "cache")]
mod pipeline;
mod priority_queue;
mod rate_limit;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod request_spans;
mod retry;
#[path = "../support/mod.rs"]
mod support;
mod timeout;
mod tracing;
