//! Bad input, bad clients and bad moments, over real sockets, for every adapter of HTTP alike.

mod bodies;
mod clients;
mod heads;
mod http2;
mod server;
mod slow;
mod stopping;
