//! Converts requests and responses for inference.

use std::collections::HashMap;
use std::time::Instant;

use bytes::Bytes;

use super::proto::infer_parameter::ParameterChoice;
use super::proto::model_infer_request::{InferInputTensor, InferRequestedOutputTensor};
use super::proto::model_infer_response::InferOutputTensor;
use super::proto::{InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse};
use crate::error::ErrorKind;
use crate::request::limits::check_name;
use crate::request::metadata::RequestMetadata;
use crate::servers::grpc::status::Rejection;
use crate::servers::inference::{
    BYTES, InputParameters, Model, ParameterValue, RegionAccess, RegionInput, RegionInputs, RegionParameters,
    RegionSlice, RequestParameters, datatype_name, dtype_named, operand_input, text_input, text_of_binary,
    unknown_parameter,
};
use crate::servers::sections::{Data, Input};
use crate::service::{Buffer, DType, InvalidInput, KernelResponse, Payload, Tensor, Tensors};

/// A request for inference, converted.
pub(super) struct Inference {
    /// Inputs, without those in shared memory.
    pub(super) tensors: Tensors,
    pub(super) regions: RegionInputs,
    /// Bytes of typed contents, which are copies.
    pub(super) copied: usize,
    /// Deadline, priority, tenant and backend of the parameters.
    pub(super) metadata: Option<RequestMetadata>,
    pub(super) requested: Requested,
}

/// What is requested for the response.
pub(super) struct Requested {
    id: String,
    /// Names of outputs, and the shared memory that they are written to; empty for all.
    outputs: Vec<(String, Option<RegionSlice>)>,
}

impl Requested {
    /// Returns whether an output is written to shared memory.
    pub(super) fn has_region(&self) -> bool {
        self.outputs.iter().any(|(_, region)| region.is_some())
    }
}

/// Converts a request that arrived at this time, and whose client can use these regions, without copying raw contents:
/// the data of each tensor is a slice of the message.
///
/// # Errors
/// The first field that is invalid.
pub(super) fn read(
    request: ModelInferRequest,
    model: &Model,
    received_at: Instant,
    access: &RegionAccess,
) -> Result<Inference, Rejection> {
    let ModelInferRequest { id, parameters, inputs, outputs, raw_input_contents: raw, .. } = request;
    if !id.is_empty() {
        check_name(&id).map_err(|error| InvalidInput::new("id", error.to_string()))?;
    }
    let mut parameters = RequestParameters::parse(values(parameters)?, received_at)?;
    let (mut tensors, mut regions, mut raw_contents) = (Tensors::new(), RegionInputs::default(), raw.into_iter());
    let is_raw = raw_contents.len() > 0;
    let mut add = |input: Input, field: &dyn Fn() -> String| {
        let Input { name, dtype, shape, data } = input;
        let Data::Here(data) = data else { unreachable!("the data of messages is in them") };
        let added = Tensor::new(dtype, shape, data).and_then(|tensor| tensors.insert(name, tensor));
        added.map_err(|error| InvalidInput::new(field(), error.to_string()))
    };
    for (index, mut input) in inputs.into_iter().enumerate() {
        let at = |InvalidInput { field, reason }| InvalidInput { field: format!("inputs[{index}].{field}"), reason };
        check_name(&input.name).map_err(|error| at(InvalidInput::new("name", error.to_string())))?;
        let parameters = InputParameters::parse(values(std::mem::take(&mut input.parameters)).map_err(at)?);
        let mut parameters = parameters.map_err(at)?;
        if let Some(slice) = std::mem::take(&mut parameters.region).slice(access).map_err(at)? {
            regions.push(region_input(index, input, &parameters, slice).map_err(at)?);
            continue;
        }
        let input = self::input(input, parameters, is_raw.then_some(&mut raw_contents)).map_err(at)?;
        add(input, &|| format!("inputs[{index}]"))?;
    }
    if raw_contents.len() > 0 {
        return Err(InvalidInput::new("raw_input_contents", "there are more than inputs").into());
    }
    for input in parameters.inputs(model).map_err(|error| Rejection::of(&error))? {
        add(input, &|| "parameters".to_owned())?;
    }
    let requested = Requested { id, outputs: requested_outputs(outputs, access)? };
    let copied = if is_raw { 0 } else { tensors.byte_len() };
    Ok(Inference { tensors, regions, copied, metadata: parameters.take_metadata(), requested })
}

/// Converts an input in shared memory, which has no place among raw contents.
fn region_input(
    index: usize,
    tensor: InferInputTensor,
    parameters: &InputParameters,
    slice: RegionSlice,
) -> Result<RegionInput, InvalidInput> {
    let InferInputTensor { name, datatype, shape, contents, .. } = tensor;
    if contents.is_some() || parameters.operand.is_some() || parameters.binary_data_size.is_some_and(|size| size > 0) {
        return Err(InvalidInput::new("parameters.shared_memory_region", "the input has data too"));
    }
    RegionInput::new(index, name, &datatype, sides(shape)?, slice)
}

/// Converts the dimensions of a tensor.
fn sides(shape: Vec<i64>) -> Result<Vec<usize>, InvalidInput> {
    let sides = shape.into_iter().map(usize::try_from).collect::<Result<_, _>>();
    sides.map_err(|_| InvalidInput::new("shape", "a dimension is negative or exceeds the address space"))
}

/// Converts an input with these parameters. `raw` has the contents of those that follow, unless they are typed.
fn input(
    tensor: InferInputTensor,
    parameters: InputParameters,
    raw: Option<&mut std::vec::IntoIter<Bytes>>,
) -> Result<Input, InvalidInput> {
    let InferInputTensor { name, datatype, shape, contents, .. } = tensor;
    if let Some(reference) = parameters.operand {
        // It has an empty place among raw contents.
        let has_data = contents.is_some() || raw.and_then(Iterator::next).is_some_and(|data| !data.is_empty());
        return match has_data {
            true => Err(InvalidInput::new("parameters.operand", "the input has data too")),
            false => operand_input(&name, reference),
        };
    }
    let shape = sides(shape)?;
    let content = match (raw, contents) {
        (Some(_), Some(_)) => return Err(InvalidInput::new("contents", "there are raw_input_contents too")),
        (Some(raw), None) => {
            Content::Raw(raw.next().ok_or_else(|| InvalidInput::new("name", "it has no raw_input_contents"))?)
        }
        (None, contents) => Content::Typed(contents.unwrap_or_default()),
    };
    // KServe's client sends it, as over REST.
    if let (Some(size), Content::Raw(data)) = (parameters.binary_data_size, &content)
        && size != data.len()
    {
        return Err(InvalidInput::new("parameters.binary_data_size", "the contents have another length"));
    }
    if datatype == BYTES {
        if shape.iter().try_fold(1_usize, |count, &side| count.checked_mul(side)) != Some(1) {
            return Err(InvalidInput::new(
                "shape",
                "a tensor of BYTES has one element: kernels have no lists of texts",
            ));
        }
        let text = match content {
            Content::Raw(data) => text_of_binary(&data)?,
            Content::Typed(contents) => match &contents.bytes_contents[..] {
                [text] if has_only(&contents, 8) => text.clone(),
                _ => return Err(InvalidInput::new("contents", "they are not one element of bytes_contents")),
            },
        };
        return Ok(text_input(name, text));
    }
    let dtype =
        dtype_named(&datatype).ok_or_else(|| InvalidInput::new("datatype", format!("unknown: `{datatype}`")))?;
    let data = match content {
        Content::Raw(data) => data,
        Content::Typed(contents) => elements(dtype, contents)?,
    };
    Ok(Input { name, dtype, shape, data: Data::Here(data) })
}

enum Content {
    Raw(Bytes),
    Typed(InferTensorContents),
}

/// Whether no field of the contents has elements but the one of this number.
fn has_only(contents: &InferTensorContents, number: usize) -> bool {
    let lengths = [
        contents.bool_contents.len(),
        contents.int_contents.len(),
        contents.int64_contents.len(),
        contents.uint_contents.len(),
        contents.uint64_contents.len(),
        contents.fp32_contents.len(),
        contents.fp64_contents.len(),
        contents.bytes_contents.len(),
    ];
    lengths.iter().enumerate().all(|(index, length)| index + 1 == number || *length == 0)
}

/// Returns the bytes of typed contents.
fn elements(dtype: DType, contents: InferTensorContents) -> Result<Bytes, InvalidInput> {
    let number = match dtype {
        DType::Bool => 1,
        DType::I32 => 2,
        DType::I64 => 3,
        DType::U8 | DType::U32 => 4,
        DType::U64 => 5,
        DType::F32 => 6,
        DType::F64 => 7,
        DType::F16 | DType::Bf16 => {
            return Err(InvalidInput::new("contents", "the type has none; use raw_input_contents"));
        }
    };
    if !has_only(&contents, number) {
        return Err(InvalidInput::new("contents", "they are of another type than the datatype"));
    }
    Ok(match dtype {
        DType::Bool => contents.bool_contents.into_iter().map(u8::from).collect(),
        DType::I32 => Buffer::from(contents.int_contents).into_bytes(),
        DType::I64 => Buffer::from(contents.int64_contents).into_bytes(),
        DType::U8 => {
            let bytes = contents.uint_contents.into_iter().map(u8::try_from).collect::<Result<Vec<_>, _>>();
            bytes.map_err(|_| InvalidInput::new("contents", "an element exceeds UINT8"))?.into()
        }
        DType::U32 => Buffer::from(contents.uint_contents).into_bytes(),
        DType::U64 => Buffer::from(contents.uint64_contents).into_bytes(),
        DType::F32 => Buffer::from(contents.fp32_contents).into_bytes(),
        _ => Buffer::from(contents.fp64_contents).into_bytes(),
    })
}

fn requested_outputs(
    outputs: Vec<InferRequestedOutputTensor>,
    access: &RegionAccess,
) -> Result<Vec<(String, Option<RegionSlice>)>, InvalidInput> {
    let mut requested: Vec<(String, Option<RegionSlice>)> = Vec::with_capacity(outputs.len());
    for (index, InferRequestedOutputTensor { name, parameters }) in outputs.into_iter().enumerate() {
        let at = |InvalidInput { field, reason }| InvalidInput { field: format!("outputs[{index}].{field}"), reason };
        check_name(&name).map_err(|error| at(InvalidInput::new("name", error.to_string())))?;
        let mut region = RegionParameters::default();
        for (parameter, value) in values(parameters)? {
            if region.take(&parameter, &value).map_err(at)? {
                continue;
            }
            match (parameter.as_str(), value) {
                // Outputs are always binary here. tritonclient sends the other for every output.
                ("binary_data", ParameterValue::Bool(_)) | ("classification", ParameterValue::Integer(0)) => {}
                (parameter, _) => return Err(at(unknown_parameter(parameter))),
            }
        }
        if requested.iter().any(|(other, _)| *other == name) {
            return Err(at(InvalidInput::new("name", format!("`{name}` is requested twice"))));
        }
        requested.push((name, region.slice(access).map_err(at)?));
    }
    Ok(requested)
}

fn values(parameters: HashMap<String, InferParameter>) -> Result<Vec<(String, ParameterValue)>, InvalidInput> {
    let value = |(name, InferParameter { parameter_choice })| match parameter_choice {
        Some(ParameterChoice::BoolParam(value)) => Ok((name, ParameterValue::Bool(value))),
        Some(ParameterChoice::Int64Param(value)) => Ok((name, ParameterValue::Integer(value.into()))),
        Some(ParameterChoice::Uint64Param(value)) => Ok((name, ParameterValue::Integer(value.into()))),
        Some(ParameterChoice::DoubleParam(value)) => Ok((name, ParameterValue::Float(value))),
        Some(ParameterChoice::StringParam(value)) => Ok((name, ParameterValue::Text(value))),
        None => Err(InvalidInput::new(format!("parameters.{name}"), "it has no value")),
    };
    parameters.into_iter().map(value).collect()
}

/// Converts a response. Its tensors are the memory of the kernel's output, except for those that are written to shared
/// memory.
///
/// # Errors
/// A requested output does not exist, or cannot be written to shared memory.
pub(super) fn write(
    response: &KernelResponse,
    model: &Model,
    requested: Requested,
) -> Result<ModelInferResponse, Rejection> {
    let Payload::Tensors(tensors) = &response.payload else {
        return Err(Rejection::new(ErrorKind::Internal, "the request was tensors, but the pipeline's response is not"));
    };
    let selected: Vec<(&str, &Tensor, Option<&RegionSlice>)> = if requested.outputs.is_empty() {
        tensors.iter().map(|(name, tensor)| (name, tensor, None)).collect()
    } else {
        let mut selected = Vec::with_capacity(requested.outputs.len());
        for (index, (name, region)) in requested.outputs.iter().enumerate() {
            let Some(tensor) = tensors.get(name) else {
                let all: Vec<_> = tensors.iter().map(|(name, _)| name).collect();
                let reason = format!("there is no output `{name}`; there are: {}", all.join(", "));
                return Err(InvalidInput::new(format!("outputs[{index}].name"), reason).into());
            };
            selected.push((name.as_str(), tensor, region.as_ref()));
        }
        selected
    };
    let mut contents = Vec::with_capacity(selected.len());
    for (index, (_, tensor, region)) in selected.iter().enumerate() {
        contents.push(match region {
            None => tensor.data().clone(),
            // Its contents are empty, so that those of other outputs have the places of their outputs.
            Some(slice) => {
                let at = |InvalidInput { field, reason }| {
                    let field = format!("outputs[{index}].{field}");
                    InvalidInput { field, reason }
                };
                slice.write(tensor.data()).map_err(at)?;
                Bytes::new()
            }
        });
    }
    let describe = |&(name, tensor, region): &(&str, &Tensor, Option<&RegionSlice>)| InferOutputTensor {
        name: name.to_owned(),
        datatype: datatype_name(tensor.dtype()).to_owned(),
        // A scalar is a tensor of one element.
        shape: if tensor.shape().is_empty() {
            vec![1]
        } else {
            tensor.shape().iter().map(|&side| side as i64).collect()
        },
        parameters: region.map(|slice| region_parameters(slice, tensor.data().len())).unwrap_or_default(),
        ..InferOutputTensor::default()
    };
    let is_final = InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    Ok(ModelInferResponse {
        model_name: model.name().to_owned(),
        model_version: model.version().to_owned(),
        outputs: selected.iter().map(describe).collect(),
        raw_output_contents: contents,
        // Clients of streams wait for it.
        parameters: HashMap::from([("triton_final_response".to_owned(), is_final)]),
        id: requested.id,
    })
}

/// Returns the parameters of an output of this length in shared memory.
fn region_parameters(slice: &RegionSlice, bytes: usize) -> HashMap<String, InferParameter> {
    let integer = |value: u64| ParameterChoice::Int64Param(i64::try_from(value).unwrap_or(i64::MAX));
    let parameters = [
        ("shared_memory_region", ParameterChoice::StringParam(slice.region().to_owned())),
        ("shared_memory_byte_size", integer(bytes as u64)),
        ("shared_memory_offset", integer(slice.offset())),
    ];
    let parameter = |(name, value): (&str, _)| (name.to_owned(), InferParameter { parameter_choice: Some(value) });
    parameters.map(parameter).into()
}
