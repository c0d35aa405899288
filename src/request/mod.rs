//! What every request and response says about itself: deadline, priority, tenant, trace, operation, execution.
//!
//! Layers, backends and servers read a request by [`RequestContext`] and a response by [`ResponseContext`], and know
//! neither's type. `http::Request` and `http::Response` implement them, and so do kernels' requests.

mod context;
pub(crate) mod http;
mod http_operation;
pub(crate) mod limits;
pub(crate) mod operation_table;

pub(crate) use context::Scheduling;
pub use context::{
    DeviceTimes, Execution, InvalidTraceParent, Priority, RequestContext, ResponseContext, Share, TraceContext,
    UnknownPriority,
};
pub use http::{Deadline, PeerAddress, PeerTenant, Tenant};
pub use http_operation::Operation;
pub use limits::{
    InvalidName, MAX_NAME_BYTES, MAX_RANK, MAX_TENSORS, MAX_TRACE_STATE_BYTES, check_name, name_prefix, tenant_key,
};
