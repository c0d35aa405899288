//! Limits of the messages, checked before they are decoded.

use super::proto::{
    ModelConfigRequest, ModelInferRequest, ModelMetadataRequest, ModelReadyRequest, ModelStatisticsRequest,
    RepositoryIndexRequest, RepositoryModelLoadRequest, RepositoryModelUnloadRequest, ServerLiveRequest,
    ServerMetadataRequest, ServerReadyRequest, SystemSharedMemoryRegisterRequest, SystemSharedMemoryStatusRequest,
    SystemSharedMemoryUnregisterRequest,
};
use crate::request::limits::MAX_TENSORS;
use crate::servers::grpc::wire::{Incoming, Limits, Over, Value, invalid};

/// Maximum bytes of typed contents in a request: decoded, they can take eight times as much. Raw contents are not decoded.
const MAX_TYPED_CONTENTS: usize = 4 << 20;

impl Incoming for ModelInferRequest {
    fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
        let (mut typed, mut outputs, mut contents) = (0, 0, 0);
        limits.fields(message, |limits, field| match field {
            (1, Value::Bytes(name)) => limits.name("model_name", name),
            (2, Value::Bytes(version)) => limits.name("model_version", version),
            (3, Value::Bytes(id)) => limits.name("id", id),
            (5, Value::Bytes(tensor)) => {
                limits.tensor("inputs", tensor)?;
                limits.fields(tensor, |limits, field| match field {
                    (5, Value::Bytes(data)) => {
                        typed += data.len();
                        if typed > MAX_TYPED_CONTENTS {
                            let reason = format!("more than {MAX_TYPED_CONTENTS} bytes; use raw_input_contents");
                            return Err(invalid("inputs.contents", reason));
                        }
                        // Each element of an array that is not packed is a field, and each text too.
                        limits.fields(data, |_, _| Ok(()))?;
                        limits.text(data)
                    }
                    _ => Ok(()),
                })
            }
            (6, Value::Bytes(output)) => {
                outputs += 1;
                if outputs > MAX_TENSORS {
                    return Err(invalid("outputs", format!("there are more than {MAX_TENSORS}, the maximum")));
                }
                limits.fields(output, |limits, field| match field {
                    (1, Value::Bytes(name)) => limits.name("outputs.name", name),
                    _ => Ok(()),
                })
            }
            (7, Value::Bytes(_)) => {
                contents += 1;
                if contents > MAX_TENSORS {
                    return Err(invalid(
                        "raw_input_contents",
                        format!("there are more than {MAX_TENSORS}, the maximum"),
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        })
    }
}

/// Messages with a name and a version, or less.
macro_rules! named {
    ($($message:ty)*) => {$(
        impl Incoming for $message {
            fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
                limits.fields(message, |limits, field| match field {
                    (1, Value::Bytes(name)) => limits.name("name", name),
                    (2, Value::Bytes(version)) => limits.name("version", version),
                    _ => Ok(()),
                })
            }
        }
    )*};
}

named! {
    ServerLiveRequest ServerReadyRequest ServerMetadataRequest ModelReadyRequest ModelMetadataRequest ModelConfigRequest
    ModelStatisticsRequest RepositoryIndexRequest
}

/// Messages with the names of a repository and of a model, or of a region and its object.
macro_rules! model_or_region {
    ($($message:ty)*) => {$(
        impl Incoming for $message {
            fn check(message: &[u8], limits: &mut Limits) -> Result<(), Over> {
                limits.fields(message, |limits, field| match field {
                    (1 | 2, Value::Bytes(text)) if text.len() > MAX_PATH => {
                        Err(invalid("request", format!("a name is longer than {MAX_PATH} bytes")))
                    }
                    (3, Value::Bytes(parameter)) => limits.text(parameter),
                    _ => Ok(()),
                })
            }
        }
    )*};
}

/// Maximum length of a name that is checked further once it is decoded: that of a path on Linux.
const MAX_PATH: usize = 4096;

model_or_region! {
    RepositoryModelLoadRequest RepositoryModelUnloadRequest SystemSharedMemoryStatusRequest
    SystemSharedMemoryRegisterRequest SystemSharedMemoryUnregisterRequest
}

#[cfg(test)]
mod tests {
    use super::super::proto::InferTensorContents;
    use super::super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
    use super::*;
    use prost::Message;

    fn check(request: &ModelInferRequest) -> Result<(), Over> {
        ModelInferRequest::check(&request.encode_to_vec(), &mut Limits::new())
    }

    #[test]
    fn what_costs_more_than_its_bytes_is_counted() {
        let input = InferInputTensor::default();
        let with = |inputs| ModelInferRequest { inputs, ..Default::default() };
        assert!(check(&with(vec![input.clone(); MAX_TENSORS])).is_ok());
        let ranked = InferInputTensor { shape: vec![1; 9], ..input.clone() };
        let typed = InferTensorContents { bool_contents: vec![true; MAX_TYPED_CONTENTS], ..Default::default() };
        let typed = InferInputTensor { contents: Some(typed), ..input.clone() };
        let texts = InferTensorContents { bytes_contents: vec![Default::default(); 10_000], ..Default::default() };
        let texts = InferInputTensor { contents: Some(texts), ..input.clone() };
        let output = InferRequestedOutputTensor::default();
        for request in [
            with(vec![input; MAX_TENSORS + 1]),
            with(vec![ranked]),
            with(vec![typed]),
            with(vec![texts]),
            ModelInferRequest { outputs: vec![output; MAX_TENSORS + 1], ..Default::default() },
            ModelInferRequest { raw_input_contents: vec![Default::default(); MAX_TENSORS + 1], ..Default::default() },
            ModelInferRequest { model_name: "x".repeat(200), ..Default::default() },
        ] {
            assert!(matches!(check(&request), Err(Over::InvalidInput(_))));
        }
    }
}
