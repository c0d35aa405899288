//! The client side of REST and gRPC, for the subcommands that talk to a server.

mod args;
mod failure;
mod rest;
mod tls;

pub(crate) use self::args::ConnectionArgs;
pub(crate) use self::failure::{CLIENT_TIMEOUT, CONNECTION, Failure};
pub(crate) use self::rest::{RestServer, problem};
pub(crate) use self::tls::Tls;
