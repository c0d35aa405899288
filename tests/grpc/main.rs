//! The gRPC server and its client, over real sockets.

mod calls;
mod deadlines;
mod server;
mod statuses;
mod streams;
mod transport;
