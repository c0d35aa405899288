//! Messages and client of `tower_kernels.v1`, generated from `proto/tower_kernels/v1/kernel.proto` by
//! `scripts/proto`.
//!
//! They are checked in, so that users need no protobuf compiler. CI generates them again and compares.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

include!("generated/tower_kernels.v1.rs");

/// Encoded `FileDescriptorSet` of this package, of [`inference`](super::inference), and of their imports.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");

/// Name of the service.
pub(super) const SERVICE_NAME: &str = "tower_kernels.v1.Kernel";
