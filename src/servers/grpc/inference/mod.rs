//! `inference.GRPCInferenceService`: the Open Inference Protocol over gRPC, in which kernels are models.

mod check;
mod documents;
mod message;
mod methods;
pub mod proto;
mod service;
mod stream;

pub use self::service::InferenceGrpcService;
pub(super) use self::stream::InferenceResponses;
