//! `tower_kernels::axum` over real sockets.

mod backends;
mod bad_input;
#[cfg(feature = "docs")]
mod docs;
mod execute;
mod health;
mod kernels;
mod metrics_page;
mod openapi;
mod pipeline;
mod routes;
pub(crate) mod server;
mod sizes;
mod tensors;
mod unread;
