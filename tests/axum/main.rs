//! `tower_kernels::axum` over real sockets.

mod backends;
mod bad_input;
mod execute;
mod health;
mod kernels;
mod pipeline;
mod server;
#[path = "../wire/mod.rs"]
#[allow(dead_code, reason = "each test target uses its part of what they share")]
mod wire;
