//! The Open Inference Protocol over real sockets.

mod busy_worker;
mod grpc;
mod hostile;
mod model_control;
mod rest;
mod rest_client;
#[cfg(all(feature = "hyper", target_os = "linux"))]
mod shared_memory;
