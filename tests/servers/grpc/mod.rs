//! The gRPC server and its client, over real sockets.

mod calls;
mod deadlines;
#[cfg(feature = "hyper")]
mod faults;
mod operands;
pub(crate) mod server;
mod sizes;
mod statuses;
mod streams;
mod transport;
