//! The gRPC server and its client, over real sockets.

mod calls;
mod deadlines;
#[cfg(feature = "hyper")]
mod faults;
mod server;
mod sizes;
mod statuses;
mod streams;
mod transport;
#[path = "../wire/mod.rs"]
#[allow(dead_code, reason = "each test target uses its part of what they share")]
mod wire;
