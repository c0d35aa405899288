//! Kernels, requests and responses, and the service that runs requests.
//!
//! A [`KernelRequest`] names a kernel and carries a [`Payload`]. [`KernelService`] looks up the kernel in the
//! [`KernelRegistry`] and hands the [`Job`] to a backend, which is a [`Service`](tower_service::Service) of jobs. The
//! backend decodes the payload into the kernel's typed input, validates it and runs the kernel. Then the service encodes the
//! output like the request. A kernel is a type that implements [`Kernel`].
//!
//! What takes up to 100 µs is decoded and encoded on the calling thread, anything else on threads for that, of which there are
//! as many as processors. No worker and no permit of a device is occupied meanwhile.
//!
//! This module does not know which backends exist; those of this crate are in [`backends`](crate::backends).

mod cache_key;
mod codec;
mod cost;
#[cfg(feature = "cuda")]
mod cuda;
mod document;
mod erased;
mod error;
mod host_memory;
mod job;
mod json;
mod kernel;
mod kernel_index;
mod kernel_info;
mod kernel_service;
mod operands;
mod payload;
mod payload_error;
mod progress;
mod registry;
mod request;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod request_statistics;
mod response_future;
mod run_context;
mod run_times;
mod shared_run;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
mod signature;
mod tensor;
#[cfg_attr(
    not(all(feature = "isolation", target_os = "linux")),
    allow(dead_code, unused_imports, reason = "for backends in other processes")
)]
pub(crate) mod transfer;
mod unencoded;

pub use crate::buffer::{Bf16, Buffer, DType, Element, F16};
pub use crate::request::BackendKind;
pub use cache_key::{KernelCacheKey, KernelKey, OwnedKernelKey};
pub use codec::{FloatArray, NumberArray};
pub use cost::{Cost, Footprint};
#[cfg(feature = "cuda")]
pub use cuda::LaunchContext;
pub use error::{BackendError, InvalidInput, KernelError};
pub use host_memory::{HostMemory, HostMemoryError, HostReservation};
pub(crate) use job::CODEC_INLINE;
pub use job::Job;
pub use json::IntoJson;
pub use kernel::{BatchKey, Kernel};
pub use kernel_info::{KernelInfo, Mode};
pub use kernel_service::KernelService;
#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use operands::OperandReservation;
pub use operands::{
    OpenOperandsError, Operand, OperandArray, OperandBudget, OperandDevices, OperandDirectoryUsage, OperandError,
    OperandInfo, OperandLimits, OperandMemory, OperandReference, OperandUsage, OperandValue, OperandVersion, Operands,
    Placement, PutCondition, PutOptions, RemoveOptions, TensorSet, VectorElements, VectorNorms, Vectors,
    VectorsDocument, check_operand_name,
};
pub use payload::{Payload, Typed};
pub use payload_error::PayloadError;
pub use progress::Progress;
pub use registry::{Description, KernelRegistry, RegisterError, RegisteredKernel};
pub use request::{KernelRequest, KernelResponse};
pub use response_future::ResponseFuture;
pub use run_context::RunContext;
pub use tensor::{Tensor, TensorError, Tensors};

#[cfg(any(feature = "actix", feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use codec::until_cancelled;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use codec::{CodecLoad, codec_load};
pub(crate) use codec::{
    Offloaded, PinnedMemory, array_of_section, is_transfer, optional_pairs, optional_sequence, read_all,
    serialize_pairs,
};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use codec::{RawJson, decode_json, write_document};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use document::ResponseMetadata;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use document::{Request as ExecuteRequest, Response as ExecuteResponse};
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use operands::REFERENCE_SUFFIX;
pub(crate) use operands::RequestOperands;
#[cfg_attr(not(test), allow(unused_imports, reason = "for backends in other processes"))]
pub(crate) use operands::VersionLookup;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use operands::{operand_name_schema, operand_version_schema};
#[cfg(test)]
pub(crate) use payload::Encoding;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use registry::Snapshot;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use request_statistics::RequestTotals;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use request_statistics::{DurationTotal, ExecutionTotals, RequestStatistics};
pub(crate) use run_times::FIRST_RUNS;
pub(crate) use shared_run::{MemberResult, MemberResults, MergeKey};
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) use signature::{ElementType, Signature, TensorSpec};
#[allow(unused_imports, reason = "for backends in other processes")]
pub(crate) use transfer::{Transfer, TransferError, read_error, write_error};
