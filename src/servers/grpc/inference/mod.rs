//! `inference.GRPCInferenceService`: the Open Inference Protocol over gRPC. The mapping to kernels is in
//! [`inference`](crate::servers::inference).

mod check;
mod documents;
mod message;
mod methods;
pub mod proto;
mod service;
mod stream;

pub use self::service::InferenceGrpcService;
pub(super) use self::stream::InferenceResponses;
