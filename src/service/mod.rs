//! The core: what a request is, what a kernel is, and the service that brings them together.
//!
//! A [`KernelRequest`] names a kernel and brings a [`Payload`]. [`KernelService`] looks the kernel up in a
//! [`KernelRegistry`] and hands the [`Job`] to a backend, itself a service; the backend decodes the payload into the
//! kernel's typed input, validates it, runs the kernel, and encodes the output in the form of the request.

mod codec;
mod dispatch;
mod document;
mod erased;
mod error;
mod future;
mod host_memory;
mod job;
mod json;
mod kernel;
mod kernels;
mod payload;
mod payload_error;
mod progress;
mod pure;
mod registry;
mod request;
mod source;
mod tensor;

pub use codec::{Buffer, Element, FloatArray};
pub use dispatch::KernelService;
pub use error::{InvalidInput, KernelError};
pub use future::ResponseFuture;
pub use host_memory::{HostMemory, HostMemoryError, HostReservation};
pub use job::Job;
pub use json::IntoJson;
pub use kernel::{BackendKind, BatchKey, Cost, Footprint, Kernel, KernelInfo, Mode, RunContext};
pub use payload::{Payload, Typed};
pub use payload_error::PayloadError;
pub use progress::Progress;
pub use pure::{OwnedKernelKey, KernelKey, KernelCacheKey};
pub use registry::{Description, KernelRegistry, RegisterError, RegisteredKernel};
pub use request::{KernelRequest, KernelResponse};
pub use source::{KernelSource, RegistryOnly};
pub use tensor::{DType, Tensor, TensorError, Tensors};

#[cfg(feature = "cuda")]
pub(crate) use codec::Pages;
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use codec::decode_json;
pub(crate) use codec::{PinnedMemory, optional_sequence, read_all};
#[cfg(feature = "axum")]
pub(crate) use document::{Request as ExecuteRequest, Response as ExecuteResponse};
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) use document::{RequestMetadata, ResponseMetadata};
pub(crate) use erased::{Answers, MemberResult};
pub(crate) use job::{Failed, Reply, Returned, SharedRun};
pub(crate) use payload::Encoding;
#[cfg(feature = "axum")]
pub(crate) use registry::Snapshot;
