//! What the transports over HTTP share: how the head of a request becomes deadline, trace and tenant, how its body
//! becomes a [`KernelRequest`](crate::service::KernelRequest), and how answers and refusals are written.

mod deadline;
mod execute;
mod head;
mod problem;
mod request_id;

pub(crate) use execute::{Target, execute};
pub(crate) use head::RequestHead;
#[cfg(feature = "axum")]
pub(crate) use problem::ProblemDocument;
pub(crate) use problem::{Problem, document};
pub(crate) use request_id::RequestId;
