//! The Open Inference Protocol over real sockets.

mod hostile;
mod rest;
mod rest_client;
