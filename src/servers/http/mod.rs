//! The REST API, which the adapters for axum and hyper serve: the [routes](routes::Routes) with their handlers, the
//! reading of bodies (JSON or tensors), the running of a [`KernelRequest`](crate::service::KernelRequest), and the
//! writing of responses and errors.

mod body;
mod config;
mod drain;
mod error_form;
mod execute;
mod form;
mod future;
mod inference;
mod limits;
mod openapi;
mod outcomes;
mod payload;
mod problem;
mod read;
mod rest;
mod route;
mod routes;
mod state;
mod tensors;

pub use body::ResponseBody;
pub use config::{InvalidPrefix, RouterConfig};
pub use drain::DrainHandle;
pub(crate) use error_form::ErrorForm;
pub(crate) use execute::{Target, execute};
pub(crate) use form::{HEAD_LENGTH, OCTETS};
pub use future::ResponseFuture;
pub(crate) use limits::Limits;
pub(crate) use openapi::OpenApi;
pub use openapi::SecurityScheme;
pub(crate) use payload::read_payload;
pub(crate) use problem::{Problem, document};
pub(crate) use rest::{MountPath, Rest};
pub(crate) use route::RestService;
#[cfg(feature = "axum")]
pub(crate) use routes::all_methods;
#[cfg(feature = "axum")]
pub(crate) use routes::enabled_operations;
pub use routes::is_docs;
pub(crate) use state::{RestState, rest_setters};
pub(crate) use tensors::{TensorHead, TensorResponseHead};
