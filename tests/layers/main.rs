//! What each layer does, on paused time.

mod answer;
#[cfg(feature = "auth")]
mod authenticate;
mod metrics;
#[path = "../probe/mod.rs"]
mod probe;
mod rate_limit;
mod timeout;
mod tracing;
