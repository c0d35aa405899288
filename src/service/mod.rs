//! The core.

mod context;
mod http_context;

pub use context::{
    Execution, InvalidTraceParent, Priority, RequestContext, ResponseContext, TraceContext, UnknownPriority,
};
pub use http_context::{Deadline, Operation, Tenant};
