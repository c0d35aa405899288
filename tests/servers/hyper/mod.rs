//! `tower_kernels::hyper` over real sockets.

mod server;
mod service;
mod tensors;
