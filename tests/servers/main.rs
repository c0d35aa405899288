//! Every way in (axum, hyper, gRPC, actix), over real sockets and real actors.

mod actix;
mod authenticate;
mod axum;
mod error_response;
mod grpc;
mod http_faults;
mod hyper;
mod inference;
mod operands;
mod seed;
#[path = "../support/mod.rs"]
mod support;
