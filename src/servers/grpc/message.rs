//! Converts protobuf messages to and from the types of the crate.

use std::time::Duration;

use super::proto::{
    BackendChoice, CodecTimes, DeviceTimes, Dtype, ExecuteResponse, ExecuteTensorsResponse, Execution, OperandUse,
    PredictedTime, Tensor,
};
use super::status::Rejection;
use crate::error::ErrorKind;
use crate::request::BackendKind;
use crate::request::limits::check_name;
use crate::request::request_id::RequestId;
use crate::servers::sections::{Data, Input};
use crate::service::{self, DType, InvalidInput, KernelError, KernelResponse, Payload, Tensors};

/// Ids of a request that are repeated in its response.
#[derive(Debug)]
pub(super) struct ResponseIds {
    pub(super) request_id: RequestId,
    pub(super) kernel_id: String,
}

/// Rejects an id that no kernel can have, before it is stored anywhere.
pub(super) fn check_kernel_id(id: &str) -> Result<(), Rejection> {
    check_name(id).map_err(|_| Rejection::of(&KernelError::unknown(id.escape_debug().to_string())))
}

/// Converts tensors without copying: the data of each is a slice of the message.
pub(super) fn tensors(inputs: Vec<Tensor>) -> Result<Tensors, InvalidInput> {
    let mut tensors = Tensors::new();
    for (index, Tensor { name, dtype, shape, data }) in inputs.into_iter().enumerate() {
        check_name(&name).map_err(|error| InvalidInput::new(format!("inputs[{index}].name"), error.to_string()))?;
        let (dtype, shape) = type_and_shape(&name, dtype, shape)?;
        let tensor =
            service::Tensor::new(dtype, shape, data).map_err(|error| InvalidInput::new(&name, error.to_string()))?;
        tensors.insert(&name, tensor).map_err(|error| InvalidInput::new(&name, error.to_string()))?;
    }
    Ok(tensors)
}

fn type_and_shape(name: &str, dtype: i32, shape: Vec<u64>) -> Result<(DType, Vec<usize>), InvalidInput> {
    let dtype = dtype_of(dtype).ok_or_else(|| InvalidInput::new(name, format!("unknown dtype {dtype}")))?;
    let shape: Result<_, _> = shape.into_iter().map(usize::try_from).collect();
    Ok((dtype, shape.map_err(|_| InvalidInput::new(name, "a dimension exceeds the address space"))?))
}

/// Converts a tensor of an operand, whose bytes follow if it has none.
pub(super) fn tensor_description(index: usize, tensor: Tensor) -> Result<Input, InvalidInput> {
    let at = |reason: String| InvalidInput::new(format!("tensors[{index}]"), reason);
    let Tensor { name, dtype, shape, data } = tensor;
    check_name(&name).map_err(|error| InvalidInput::new(format!("tensors[{index}].name"), error.to_string()))?;
    let (dtype, shape) = type_and_shape(&name, dtype, shape).map_err(|invalid| at(invalid.reason))?;
    let Some(bytes) = shape.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side)) else {
        return Err(at(format!("the shape {shape:?} exceeds the address space")));
    };
    let data = match data.len() {
        0 => Data::Follows(bytes),
        length if length == bytes => Data::Here(data),
        length => return Err(at(format!("its data has {length} bytes, and its shape {shape:?} needs {bytes}"))),
    };
    Ok(Input { name, dtype, shape, data })
}

fn dtype_of(number: i32) -> Option<DType> {
    match Dtype::try_from(number).ok()? {
        Dtype::Unspecified => None,
        Dtype::Bool => Some(DType::Bool),
        Dtype::Uint8 => Some(DType::U8),
        Dtype::Uint32 => Some(DType::U32),
        Dtype::Uint64 => Some(DType::U64),
        Dtype::Int32 => Some(DType::I32),
        Dtype::Int64 => Some(DType::I64),
        Dtype::Float16 => Some(DType::F16),
        Dtype::Bfloat16 => Some(DType::Bf16),
        Dtype::Float32 => Some(DType::F32),
        Dtype::Float64 => Some(DType::F64),
    }
}

fn number_of(dtype: DType) -> i32 {
    let dtype = match dtype {
        DType::Bool => Dtype::Bool,
        DType::U8 => Dtype::Uint8,
        DType::U32 => Dtype::Uint32,
        DType::U64 => Dtype::Uint64,
        DType::I32 => Dtype::Int32,
        DType::I64 => Dtype::Int64,
        DType::F16 => Dtype::Float16,
        DType::Bf16 => Dtype::Bfloat16,
        DType::F32 => Dtype::Float32,
        DType::F64 => Dtype::Float64,
    };
    dtype.into()
}

pub(super) fn json_response(response: KernelResponse, ids: ResponseIds) -> Result<ExecuteResponse, Rejection> {
    let Payload::Json(output) = response.payload else { return Err(wrong_format("JSON")) };
    // Reuses the buffer of the kernel's output.
    let output = String::from_utf8(output.into())
        .map_err(|error| Rejection::new(ErrorKind::Internal, format!("the output is not UTF-8: {error}")))?;
    Ok(ExecuteResponse {
        request_id: ids.request_id.as_str().to_owned(),
        kernel_id: ids.kernel_id,
        output,
        execution: Some(execution(&response.execution)),
    })
}

pub(super) fn tensors_response(
    response: KernelResponse,
    ids: ResponseIds,
) -> Result<ExecuteTensorsResponse, Rejection> {
    let Payload::Tensors(tensors) = &response.payload else { return Err(wrong_format("tensors")) };
    let outputs = tensors.iter().map(|(name, tensor)| Tensor {
        name: name.to_owned(),
        dtype: number_of(tensor.dtype()),
        shape: tensor.shape().iter().map(|&side| side as u64).collect(),
        data: tensor.data().clone(),
    });
    Ok(ExecuteTensorsResponse {
        request_id: ids.request_id.as_str().to_owned(),
        kernel_id: ids.kernel_id,
        outputs: outputs.collect(),
        execution: Some(execution(&response.execution)),
    })
}

/// Rejects a response in another format than the request's. Only a user's own pipeline can cause this:
/// [`KernelService`](crate::service::KernelService) responds in the format of the request.
fn wrong_format(form: &str) -> Rejection {
    Rejection::new(ErrorKind::Internal, format!("the request was {form}, but the pipeline's response is not"))
}

fn execution(execution: &crate::request::Execution) -> Execution {
    Execution {
        backend: execution.backend.to_owned(),
        device: execution.device.map(u32::from),
        queued_us: micros(execution.queued),
        duration_us: micros(execution.executed),
        batch_size: execution.batch_size,
        device_times: execution.device_times().map(|times| DeviceTimes {
            upload_us: micros(times.upload),
            kernel_us: micros(times.kernel),
            download_us: micros(times.download),
        }),
        codec_times: execution
            .codec_times()
            .map(|times| CodecTimes { decoding_us: micros(times.decoding), encoding_us: micros(times.encoding) }),
        operands: execution.operands().iter().map(operand_use).collect(),
        choice: execution.choice().map(|choice| BackendChoice {
            reason: choice.reason.as_str().to_owned(),
            predicted: choice.predicted.map(predicted_time).into(),
        }),
    }
}

fn predicted_time((backend, time): (BackendKind, Duration)) -> PredictedTime {
    PredictedTime { backend: backend.as_str().to_owned(), time_us: micros(time) }
}

fn operand_use(operand: &crate::request::OperandUse) -> OperandUse {
    OperandUse { operand: operand.to_string(), resident: operand.resident }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
