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
mod fallback;
mod hedge;
mod load_shed;
mod metrics;
mod priority_queue;
#[path = "../probe/mod.rs"]
mod probe;
mod rate_limit;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod request_spans;
mod retry;
mod timeout;
mod tracing;
