//! The core through its public face: registry, codecs, dispatch, workers.

mod batched;
mod buffer;
mod codec;
mod dispatch;
#[cfg(feature = "hyper")]
#[path = "../../examples/custom_backend.rs"]
mod example_custom_backend;
mod globs;
mod kernels;
mod lanes;
mod operands;
mod payload;
#[cfg(feature = "cache")]
mod pure;
mod registry;
#[path = "../support/mod.rs"]
mod support;
