//! The core through its public face: registry, codecs, dispatch, lanes.

mod buffer;
mod codec;
mod dispatch;
mod kernels;
mod lanes;
mod registry;
