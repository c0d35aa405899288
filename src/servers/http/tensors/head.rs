//! The JSON head before the tensors of a request.

use std::borrow::Cow;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::{Deserialize, Deserializer, Error};
use serde_json::value::RawValue;

use crate::request::limits::{MAX_RANK, MAX_TENSORS, at_most, check_name, first_duplicate};
use crate::request::metadata::{MetadataDocument, RequestMetadata};
use crate::servers::http::{Problem, Target};
use crate::servers::inference::{DATATYPES, datatype_name, dtype_named};
use crate::servers::sections::{Data, Input};
use crate::service::{Bf16, Buffer, DType, F16, InvalidInput, KernelRequest, Payload, decode_json};

/// A parsed head.
#[derive(Debug)]
pub(in super::super) struct Head<R = RequestedOutputs> {
    /// The request, without its payload.
    pub(in super::super) request: KernelRequest,
    /// What the response is to contain.
    pub(in super::super) requested: R,
    pub(in super::super) inputs: Vec<Input>,
}

/// The id and the outputs that were requested for the response.
#[derive(Debug)]
pub(in super::super) struct RequestedOutputs {
    pub(super) id: Option<String>,
    /// Names of outputs; `None` for all.
    pub(super) outputs: Option<Vec<String>>,
}

impl Head {
    /// Parses and validates a head.
    ///
    /// # Errors
    /// 400, with the first field that is invalid.
    pub(super) fn parse(json: &[u8], target: Target) -> Result<Self, Problem> {
        let document: Document<'_> = decode_json(json)?;
        let kernel_id = match (target, document.kernel_id) {
            (Target::Input(id), None) => id,
            (Target::Document, Some(id)) => id.into_owned(),
            (Target::Input(_), Some(_)) => {
                return Err(InvalidInput::new("kernel_id", "the kernel is already given in the path").into());
            }
            (Target::Document, None) => return Err(InvalidInput::new("kernel_id", "missing").into()),
        };
        let named = |field: &'static str, name: &str| {
            check_name(name).map_err(|error| InvalidInput::new(field, error.to_string()))
        };
        named("kernel_id", &kernel_id)?;
        document.id.as_deref().map_or(Ok(()), |id| named("id", id))?;
        let mut request = KernelRequest::new(kernel_id, Payload::json(Bytes::new()));
        if let Some(parameters) = document.parameters {
            parameters.apply(&mut request)?;
        }
        let requested = RequestedOutputs { id: document.id, outputs: outputs(document.outputs)? };
        let mut inputs: Vec<Input> = Vec::with_capacity(document.inputs.len());
        for (index, input) in document.inputs.into_iter().enumerate() {
            let at =
                |InvalidInput { field, reason }| InvalidInput { field: format!("inputs[{index}].{field}"), reason };
            check_name(&input.name).map_err(|error| at(InvalidInput::new("name", error.to_string())))?;
            inputs.push(input.check().map_err(at)?);
        }
        if let Some(index) = first_duplicate(inputs.iter().map(|input| input.name.as_str())) {
            let reason = format!("two tensors are named `{}`", inputs[index].name);
            return Err(InvalidInput::new(format!("inputs[{index}].name"), reason).into());
        }
        Ok(Self { request, requested, inputs })
    }
}

/// Names of the requested outputs.
fn outputs(wanted: Option<OutputTensors>) -> Result<Option<Vec<String>>, InvalidInput> {
    let Some(OutputTensors(wanted)) = wanted else { return Ok(None) };
    let mut names: Vec<String> = Vec::with_capacity(wanted.len());
    for (index, OutputTensor { name, parameters }) in wanted.into_iter().enumerate() {
        if parameters.is_some_and(|parameters| parameters.binary_data == Some(false)) {
            return Err(InvalidInput::new(format!("outputs[{index}].parameters.binary_data"), ONLY_BINARY));
        }
        check_name(&name).map_err(|error| InvalidInput::new(format!("outputs[{index}].name"), error.to_string()))?;
        names.push(name);
    }
    if let Some(index) = first_duplicate(names.iter().map(String::as_str)) {
        let reason = format!("`{}` is requested twice", names[index]);
        return Err(InvalidInput::new(format!("outputs[{index}].name"), reason));
    }
    Ok(Some(names))
}

const ONLY_BINARY: &str = "tensor responses are binary; send the request as JSON for a JSON response";

/// The JSON head before the tensors of a request.
#[derive(serde::Deserialize, JsonSchema)]
#[schemars(rename = "TensorHead")]
#[serde(deny_unknown_fields)]
pub(crate) struct Document<'a> {
    /// Repeated in the response.
    id: Option<String>,
    /// Id of the kernel. Only if the path has none.
    #[serde(borrow)]
    kernel_id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    parameters: Option<Parameters<'a>>,
    /// Input tensors, in the order of their bytes.
    #[serde(borrow, deserialize_with = "at_most::<_, _, MAX_TENSORS>")]
    inputs: Vec<InputTensor<'a>>,
    /// Requested outputs; default all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<OutputTensor>>")]
    outputs: Option<OutputTensors>,
}

/// The metadata of a JSON document, and parameters of the protocol.
#[derive(serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct Parameters<'a> {
    timeout_ms: Option<u64>,
    #[serde(borrow)]
    priority: Option<Cow<'a, str>>,
    #[serde(borrow)]
    tenant: Option<Cow<'a, str>>,
    #[serde(borrow)]
    backend: Option<Cow<'a, str>>,
    #[serde(borrow)]
    trace_id: Option<Cow<'a, str>>,
    binary_data_output: Option<bool>,
}

impl Parameters<'_> {
    fn apply(self, request: &mut KernelRequest) -> Result<(), InvalidInput> {
        let Self { timeout_ms, priority, tenant, backend, trace_id, binary_data_output } = self;
        if binary_data_output == Some(false) {
            return Err(InvalidInput::new("parameters.binary_data_output", ONLY_BINARY));
        }
        let document = MetadataDocument { timeout_ms, priority, tenant, backend, trace_id };
        let metadata = RequestMetadata::from_document(document).map_err(|error| error.within("parameters"))?;
        request.apply_metadata(metadata);
        Ok(())
    }
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct InputTensor<'a> {
    name: String,
    datatype: Datatype,
    #[serde(deserialize_with = "at_most::<_, _, MAX_RANK>")]
    shape: Vec<usize>,
    #[serde(default)]
    parameters: InputParameters,
    /// Flat array, instead of `binary_data_size`.
    #[serde(borrow)]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    data: Option<&'a RawValue>,
}

#[derive(Default, serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct InputParameters {
    /// Length in bytes of this tensor after the head.
    binary_data_size: Option<usize>,
}

/// At most [`MAX_TENSORS`] of them.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct OutputTensors(#[serde(deserialize_with = "at_most::<_, _, MAX_TENSORS>")] Vec<OutputTensor>);

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct OutputTensor {
    name: String,
    parameters: Option<OutputParameters>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct OutputParameters {
    binary_data: Option<bool>,
}

impl InputTensor<'_> {
    /// Validates the description. Errors have the field of this input.
    fn check(self) -> Result<Input, InvalidInput> {
        let Self { name, datatype: Datatype(dtype), shape, parameters, data } = self;
        let Some(bytes) = shape.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side)) else {
            return Err(InvalidInput::new("shape", format!("{shape:?} exceeds the address space")));
        };
        let required = || format!("{} of shape {shape:?} needs {bytes} bytes", datatype_name(dtype));
        let data = match (parameters.binary_data_size, data) {
            (Some(_), Some(_)) => return Err(InvalidInput::new("data", "the tensor also has a binary_data_size")),
            (None, None) => return Err(InvalidInput::new("parameters.binary_data_size", "missing")),
            (Some(size), None) if size == bytes => Data::Follows(size),
            (Some(size), None) => {
                return Err(InvalidInput::new(
                    "parameters.binary_data_size",
                    format!("it is {size}, but {}", required()),
                ));
            }
            (None, Some(json)) => {
                let data = elements(dtype, json.get().as_bytes())?;
                if data.len() != bytes {
                    let reason = format!("it has {} bytes, but {}", data.len(), required());
                    return Err(InvalidInput::new("data", reason));
                }
                Data::Here(data)
            }
        };
        Ok(Input { name, dtype, shape, data })
    }
}

/// Parses a flat array.
pub(in super::super) fn elements(dtype: DType, json: &[u8]) -> Result<Bytes, InvalidInput> {
    let bytes = match dtype {
        DType::Bool => decode_json::<Vec<bool>>(json).map(|bits| bits.into_iter().map(u8::from).collect()),
        DType::U8 => decode_json::<Buffer<u8>>(json).map(Buffer::into_bytes),
        DType::U32 => decode_json::<Buffer<u32>>(json).map(Buffer::into_bytes),
        DType::U64 => decode_json::<Buffer<u64>>(json).map(Buffer::into_bytes),
        DType::I32 => decode_json::<Buffer<i32>>(json).map(Buffer::into_bytes),
        DType::I64 => decode_json::<Buffer<i64>>(json).map(Buffer::into_bytes),
        DType::F16 => decode_json::<Buffer<F16>>(json).map(Buffer::into_bytes),
        DType::Bf16 => decode_json::<Buffer<Bf16>>(json).map(Buffer::into_bytes),
        DType::F32 => decode_json::<Buffer<f32>>(json).map(Buffer::into_bytes),
        DType::F64 => decode_json::<Buffer<f64>>(json).map(Buffer::into_bytes),
    };
    // The field path begins with an index, or is `input` for the whole array.
    bytes.map_err(|InvalidInput { field, reason }| {
        let index = if field.starts_with('[') { field.as_str() } else { "" };
        InvalidInput { field: format!("data{index}"), reason }
    })
}

#[derive(JsonSchema)]
#[schemars(inline, extend("enum" = DATATYPES.map(|(name, _)| name)))]
struct Datatype(#[schemars(with = "String")] DType);

impl<'de> Deserialize<'de> for Datatype {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        if let Some(dtype) = dtype_named(&name) {
            return Ok(Self(dtype));
        }
        let known = DATATYPES.map(|(name, _)| name).join(", ");
        Err(D::Error::custom(format_args!("`{name}` is not one of {known}; use UINT8 for text")))
    }
}
