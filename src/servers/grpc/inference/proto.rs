//! Messages and client of the Open Inference Protocol, generated from `proto/inference/inference.proto` by
//! `scripts/proto`.

#![allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]

include!("../generated/inference.rs");

/// Name of the service.
pub(super) const SERVICE_NAME: &str = "inference.GRPCInferenceService";
