//! The Open Inference Protocol over real sockets.

mod grpc;
mod hostile;
mod rest;
mod rest_client;
