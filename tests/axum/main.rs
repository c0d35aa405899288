//! `tower_kernels::axum` over real sockets.

mod backends;
mod bad_input;
mod execute;
mod health;
mod kernels;
mod pipeline;
mod server;
mod stopping;
