//! Metadata of requests and responses: deadline, priority, tenant, trace, operation, execution.
//!
//! Layers, backends and servers read a request through [`RequestContext`] and a response through [`ResponseContext`], so
//! they work with any type. `http::Request`, `http::Response` and the requests and responses of kernels implement them.

mod backend;
mod context;
pub(crate) mod http;
mod http_operation;
pub(crate) mod limits;
#[cfg(feature = "service")]
pub(crate) mod metadata;
#[cfg(any(feature = "load-shed", feature = "metrics", feature = "priority-queue"))]
pub(crate) mod operation_table;
#[cfg(any(feature = "axum", feature = "grpc", feature = "hyper"))]
pub(crate) mod request_id;

pub use backend::{BackendChoice, BackendKind, ChoiceReason, UnknownBackend};
pub(crate) use context::Scheduling;
pub use context::{
    CodecTimes, DeviceTimes, Execution, InvalidTraceParent, OperandUse, Priority, RequestContext, ResponseContext,
    Share, TraceContext, UnknownPriority,
};
pub use http::{Deadline, PeerAddress, PeerTenant, Tenant};
pub use http_operation::Operation;
pub use limits::{
    InvalidName, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, MAX_TRACE_STATE_BYTES, check_name, name_prefix, tenant_key,
};
