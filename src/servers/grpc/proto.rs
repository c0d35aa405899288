//! The messages and the client, as `scripts/proto` makes them from `proto/tower_kernels/v1/kernel.proto`.
//!
//! Checked in, so that no user compiles or installs a protobuf compiler; CI makes them again and compares.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    reason = "generated: the texts are the .proto's, and the rest is the generator's"
)]

include!("generated/tower_kernels.v1.rs");

/// The encoded `FileDescriptorSet` of the package and of what it imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
