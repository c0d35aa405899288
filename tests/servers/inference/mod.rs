//! The Open Inference Protocol over real sockets.

mod busy_worker;
mod grpc;
mod hostile;
mod rest;
mod rest_client;
