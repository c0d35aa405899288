//! The core through its public face: registry, codecs, dispatch, lanes.

mod batched;
mod buffer;
mod codec;
mod dispatch;
mod globs;
mod kernels;
mod lanes;
mod payload;
#[cfg(feature = "cache")]
mod pure;
mod registry;
