//! Shared by the REST servers: reads the body of a request, JSON or tensors, runs its
//! [`KernelRequest`](crate::service::KernelRequest), and writes responses and errors.

mod body;
mod execute;
mod form;
mod limits;
mod problem;
mod read;
mod request_id;
mod tensors;

pub use body::ResponseBody;
pub(crate) use execute::{Target, execute};
#[cfg(feature = "axum")]
pub(crate) use form::{HEAD_LENGTH, OCTETS};
pub(crate) use limits::{Limits, limit_setters};
pub(crate) use problem::{Problem, document};
pub(crate) use request_id::add_request_id;
#[cfg(feature = "axum")]
pub(crate) use tensors::{TensorHead, TensorResponseHead};
