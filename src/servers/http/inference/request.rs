//! The JSON of a request, and what is requested for its response.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::time::Instant;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

use crate::error::ErrorKind;
use crate::request::limits::{MAX_RANK, MAX_TENSORS, at_most, check_name, first_duplicate};
use crate::servers::http::tensors::{Head, elements};
use crate::servers::http::{HEAD_LENGTH, Problem};
use crate::servers::inference::{
    BYTES, DATATYPES, InputParameters, Model, ParameterValue, RegionAccess, RegionInput, RegionInputs,
    RegionParameters, RegionSlice, RequestParameters, dtype_named, operand_input, text_input, unknown_parameter,
};
use crate::servers::sections::{Data, Input};
use crate::service::{
    Bf16, Buffer, DType, Element, ElementType, F16, InvalidInput, KernelRequest, Payload, RawJson, decode_json,
};

/// What is requested for the response.
#[derive(Debug)]
pub(super) struct Requested {
    pub(super) id: Option<String>,
    /// Whether outputs are binary unless they say otherwise.
    pub(super) is_binary: bool,
    /// `None` for all outputs.
    pub(super) outputs: Option<Vec<RequestedOutput>>,
    /// Names of inputs with a binary text, whose length is part of their data.
    pub(super) texts: Vec<String>,
    /// Inputs in shared memory.
    pub(super) regions: RegionInputs,
}

/// An output that is requested by its name.
#[derive(Debug)]
pub(super) struct RequestedOutput {
    pub(super) name: String,
    /// Whether it is binary, if it says so itself.
    pub(super) is_binary: Option<bool>,
    /// The shared memory that it is written to.
    pub(super) region: Option<RegionSlice>,
}

impl Requested {
    /// Returns whether an output may be JSON or in shared memory, and writing it can take long.
    pub(super) fn has_slow_output(&self) -> bool {
        match &self.outputs {
            None => !self.is_binary,
            Some(outputs) => {
                outputs.iter().any(|output| output.region.is_some() || !output.is_binary.unwrap_or(self.is_binary))
            }
        }
    }
}

/// Parses and validates the JSON of a request that arrived at this time, and whose client can use these regions.
///
/// # Errors
/// 400, with the first field that is invalid.
pub(super) fn parse(
    json: &[u8],
    model: &Model,
    received_at: Instant,
    access: &RegionAccess,
) -> Result<Head<Requested>, Problem> {
    let document: Document<'_> = decode_json(json)?;
    let Document { id, model_name, model_version, parameters, inputs: described, outputs } = document;
    let is_other =
        |given: Option<Cow<'_, str>>, own: &str| given.is_some_and(|given| !given.is_empty() && given != own);
    if is_other(model_name, model.name()) {
        return Err(InvalidInput::new("model_name", "the model of the path is another one").into());
    }
    if is_other(model_version, model.version()) {
        return Err(InvalidInput::new("model_version", "the model has another version").into());
    }
    let id = id.filter(|id| !id.is_empty());
    id.as_deref().map_or(Ok(()), check_name).map_err(|error| InvalidInput::new("id", error.to_string()))?;
    let mut parameters = RequestParameters::parse(parameters.unwrap_or_default().0, received_at)?;
    let mut inputs: Vec<Input> = Vec::with_capacity(described.len());
    let (mut texts, mut regions) = (Vec::new(), RegionInputs::default());
    for (index, input) in described.into_iter().enumerate() {
        let at = |InvalidInput { field, reason }| InvalidInput { field: format!("inputs[{index}].{field}"), reason };
        check_name(&input.name).map_err(|error| at(InvalidInput::new("name", error.to_string())))?;
        let is_text = input.datatype.as_deref() == Some(BYTES);
        let input = match input.check(index, access).map_err(at)? {
            Checked::Sent(input) => input,
            Checked::InRegion(input) => {
                regions.push(input);
                continue;
            }
        };
        if is_text && matches!(input.data, Data::Follows(_)) {
            texts.push(input.name.clone());
        }
        inputs.push(input);
    }
    inputs.extend(parameters.inputs(model).map_err(|error| Problem::of(&error))?);
    let names = || inputs.iter().map(|input| input.name.as_str()).chain(regions.names());
    if let Some(name) = first_duplicate(names()).and_then(|index| names().nth(index)) {
        let reason = format!("the input `{name}` is there twice");
        return Err(InvalidInput::new("inputs", reason).into());
    }
    let requested = Requested {
        id,
        is_binary: parameters.binary_data_output.unwrap_or(false),
        outputs: requested_outputs(outputs, access)?,
        texts,
        regions,
    };
    let mut request = new_request(model);
    if let Some(metadata) = parameters.take_metadata() {
        request.apply_metadata(metadata);
    }
    Ok(Head { request, requested, inputs })
}

/// Describes a request whose body of this length is its only required input, without JSON. All its outputs are binary.
///
/// # Errors
/// 400 if the model has several, or the length does not fit its type.
pub(super) fn parse_raw(length: Option<u64>, model: &Model) -> Result<Head<Requested>, Problem> {
    let invalid = |reason: &str| Err(Problem::new(ErrorKind::InvalidArgument, reason).field(HEAD_LENGTH.as_str()));
    let signature = model.signature().map_err(|error| Problem::of(&error))?;
    let Some(input) = signature.only_required_input() else {
        return invalid("it is 0, and the model has not exactly one required input of one dimension");
    };
    let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else {
        return invalid("it is 0, and the request has no content-length");
    };
    let dtype = match input.elements {
        ElementType::Number(dtype) => dtype,
        // A text is an array of bytes.
        ElementType::Text => DType::U8,
    };
    if !length.is_multiple_of(dtype.size()) {
        return invalid("it is 0, and the body is not a whole number of elements");
    }
    let (shape, data) = (vec![length / dtype.size()], Data::Follows(length));
    let inputs = vec![Input { name: input.name.clone(), dtype, shape, data }];
    let (texts, regions) = (Vec::new(), RegionInputs::default());
    let requested = Requested { id: None, is_binary: true, outputs: None, texts, regions };
    Ok(Head { request: new_request(model), requested, inputs })
}

fn new_request(model: &Model) -> KernelRequest {
    KernelRequest::new(model.kernel().info().id.clone(), Payload::json(Bytes::new()))
}

fn requested_outputs(
    wanted: Option<OutputTensors>,
    access: &RegionAccess,
) -> Result<Option<Vec<RequestedOutput>>, InvalidInput> {
    let Some(OutputTensors(wanted)) = wanted else { return Ok(None) };
    let mut outputs = Vec::with_capacity(wanted.len());
    for (index, OutputTensor { name, parameters }) in wanted.into_iter().enumerate() {
        let at = |InvalidInput { field, reason }| InvalidInput { field: format!("outputs[{index}].{field}"), reason };
        check_name(&name).map_err(|error| at(InvalidInput::new("name", error.to_string())))?;
        let (mut is_binary, mut region) = (None, RegionParameters::default());
        for (parameter, value) in parameters.unwrap_or_default().0 {
            if region.take(&parameter, &value).map_err(at)? {
                continue;
            }
            match (parameter.as_str(), value) {
                ("binary_data", ParameterValue::Bool(value)) => is_binary = Some(value),
                ("binary_data", _) => {
                    return Err(at(InvalidInput::new("parameters.binary_data", "it is not a boolean")));
                }
                // tritonclient sends it for every output.
                ("classification", ParameterValue::Integer(0)) => {}
                (parameter, _) => return Err(at(unknown_parameter(parameter))),
            }
        }
        outputs.push(RequestedOutput { name, is_binary, region: region.slice(access).map_err(at)? });
    }
    if let Some(index) = first_duplicate(outputs.iter().map(|output| output.name.as_str())) {
        let reason = format!("`{}` is requested twice", outputs[index].name);
        return Err(InvalidInput::new(format!("outputs[{index}].name"), reason));
    }
    // An empty list is as none, as for other servers of the protocol.
    Ok(Some(outputs).filter(|outputs| !outputs.is_empty()))
}

/// A request for inference.
#[derive(serde::Deserialize, JsonSchema)]
#[schemars(rename = "InferenceRequest")]
#[serde(deny_unknown_fields)]
pub(in super::super) struct Document<'a> {
    /// Repeated in the response.
    id: Option<String>,
    /// The model of the path, if it is given.
    #[serde(borrow)]
    model_name: Option<Cow<'a, str>>,
    /// The version of the model, if it is given.
    #[serde(borrow)]
    model_version: Option<Cow<'a, str>>,
    /// `priority`, `timeout` in microseconds, `tenant`, `backend`, `binary_data_output`, and scalar inputs of the model.
    parameters: Option<Parameters>,
    /// Input tensors, in the order of their binary data.
    #[serde(borrow, deserialize_with = "at_most::<_, _, MAX_TENSORS>")]
    inputs: Vec<InputTensor<'a>>,
    /// Requested outputs; default all.
    #[serde(default)]
    #[schemars(with = "Option<Vec<OutputTensor>>")]
    outputs: Option<OutputTensors>,
}

#[derive(serde::Deserialize, JsonSchema)]
#[schemars(inline)]
#[serde(deny_unknown_fields)]
struct InputTensor<'a> {
    name: String,
    /// Not needed with the parameter `operand`.
    #[serde(borrow)]
    #[schemars(with = "Option<Datatype>")]
    datatype: Option<Cow<'a, str>>,
    /// Not needed with the parameter `operand`.
    #[serde(default)]
    #[schemars(with = "Option<Vec<usize>>")]
    shape: Option<Shape>,
    /// `binary_data_size`, `operand` with a reference to an operand, or `shared_memory_region`,
    /// `shared_memory_byte_size` and `shared_memory_offset`.
    parameters: Option<Parameters>,
    /// The elements, row-major, as one array or as nested ones; instead of `binary_data_size`.
    #[serde(borrow)]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    data: Option<RawJson<'a>>,
}

/// At most [`MAX_RANK`] dimensions.
#[derive(serde::Deserialize)]
#[serde(transparent)]
struct Shape(#[serde(deserialize_with = "at_most::<_, _, MAX_RANK>")] Vec<usize>);

#[derive(JsonSchema)]
#[schemars(inline, extend("enum" = datatype_names()))]
struct Datatype(#[schemars(with = "String")] ());

fn datatype_names() -> Vec<&'static str> {
    DATATYPES.map(|(name, _)| name).into_iter().chain([BYTES]).collect()
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
    /// `binary_data`, or `shared_memory_region`, `shared_memory_byte_size` and `shared_memory_offset`.
    parameters: Option<Parameters>,
}

/// An input whose description is valid.
enum Checked {
    /// Its data is in the request, or it is an operand.
    Sent(Input),
    InRegion(RegionInput),
}

impl InputTensor<'_> {
    /// Validates the description. Errors have the field of this input.
    fn check(self, index: usize, access: &RegionAccess) -> Result<Checked, InvalidInput> {
        let Self { name, datatype, shape, parameters, data } = self;
        let parameters = InputParameters::parse(parameters.unwrap_or_default().0)?;
        let slice = parameters.region.slice(access)?;
        let has_data = data.is_some() || parameters.binary_data_size.is_some_and(|size| size > 0);
        if let Some(reference) = parameters.operand {
            if has_data || slice.is_some() {
                return Err(InvalidInput::new("parameters.operand", "the input has data too"));
            }
            return operand_input(&name, reference).map(Checked::Sent);
        }
        let datatype = datatype.ok_or_else(|| InvalidInput::new("datatype", "missing"))?;
        let Shape(shape) = shape.ok_or_else(|| InvalidInput::new("shape", "missing"))?;
        if let Some(slice) = slice {
            if has_data {
                return Err(InvalidInput::new("parameters.shared_memory_region", "the input has data too"));
            }
            return RegionInput::new(index, name, &datatype, shape, slice).map(Checked::InRegion);
        }
        if datatype == BYTES {
            return text(name, &shape, parameters.binary_data_size, data).map(Checked::Sent);
        }
        let dtype = dtype_named(&datatype).ok_or_else(|| {
            InvalidInput::new("datatype", format!("`{datatype}` is not one of {}", datatype_names().join(", ")))
        })?;
        let Some(bytes) = shape.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side)) else {
            return Err(InvalidInput::new("shape", format!("{shape:?} exceeds the address space")));
        };
        let required = || format!("{datatype} of shape {shape:?} needs {bytes} bytes");
        let data = match (parameters.binary_data_size, data) {
            (Some(_), Some(_)) => return Err(InvalidInput::new("data", "the tensor also has a binary_data_size")),
            (None, None) => return Err(InvalidInput::new("data", "missing, and there is no binary_data_size")),
            (Some(size), None) if size == bytes => Data::Follows(size),
            (Some(size), None) => {
                return Err(InvalidInput::new(
                    "parameters.binary_data_size",
                    format!("it is {size}, but {}", required()),
                ));
            }
            (None, Some(json)) => {
                let data =
                    if is_nested(json) { nested_elements(dtype, &shape, json)? } else { elements(dtype, json.text())? };
                if data.len() != bytes {
                    return Err(InvalidInput::new("data", format!("it has {} bytes, but {}", data.len(), required())));
                }
                Data::Here(data)
            }
        };
        Ok(Checked::Sent(Input { name, dtype, shape, data }))
    }
}

/// A text: a tensor of one element.
fn text(
    name: String,
    shape: &[usize],
    binary_data_size: Option<usize>,
    data: Option<RawJson<'_>>,
) -> Result<Input, InvalidInput> {
    if shape.iter().product::<usize>() != 1 {
        return Err(InvalidInput::new("shape", "a tensor of BYTES has one element: kernels have no lists of texts"));
    }
    match (binary_data_size, data) {
        (Some(_), Some(_)) => Err(InvalidInput::new("data", "the tensor also has a binary_data_size")),
        (None, None) => Err(InvalidInput::new("data", "missing, and there is no binary_data_size")),
        (Some(size), None) => Ok(Input { name, dtype: DType::U8, shape: vec![size], data: Data::Follows(size) }),
        (None, Some(json)) => {
            let mut read = serde_json::Deserializer::from_slice(json.text());
            let text = OneText(shape.len()).deserialize(&mut read);
            let text = text.map_err(|error| InvalidInput::new("data", format!("it is not one string: {error}")))?;
            Ok(text_input(name, text))
        }
    }
}

/// Reads a string in as many arrays as there are dimensions, or in one.
struct OneText(usize);

impl<'de> DeserializeSeed<'de> for OneText {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for OneText {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of one string")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<String, E> {
        Ok(text.to_owned())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<String, A::Error> {
        let Some(deeper) = self.0.checked_sub(1) else { return Err(de::Error::custom("too many arrays")) };
        let text = items.next_element_seed(OneText(deeper))?.ok_or_else(|| de::Error::invalid_length(0, &self))?;
        match items.next_element::<de::IgnoredAny>()? {
            None => Ok(text),
            Some(_) => Err(de::Error::custom("there are several")),
        }
    }
}

/// Returns whether the first element of an array is an array.
fn is_nested(json: RawJson<'_>) -> bool {
    let inner = json.text().trim_ascii_start().strip_prefix(b"[");
    inner.is_some_and(|inner| inner.trim_ascii_start().starts_with(b"["))
}

/// Reads nested arrays that have the lengths of the shape.
fn nested_elements(dtype: DType, shape: &[usize], json: RawJson<'_>) -> Result<Bytes, InvalidInput> {
    fn read<'a, T: Deserialize<'a>>(shape: &[usize], json: RawJson<'a>) -> Result<Vec<T>, InvalidInput> {
        let mut elements = Vec::new();
        let mut json = serde_json::Deserializer::from_slice(json.text());
        match (Nested { shape, elements: &mut elements }).deserialize(&mut json) {
            Ok(()) => Ok(elements),
            Err(error) => Err(InvalidInput::new("data", format!("it does not have the shape {shape:?}: {error}"))),
        }
    }
    fn bytes<T: Element + for<'a> Deserialize<'a>>(shape: &[usize], json: RawJson<'_>) -> Result<Bytes, InvalidInput> {
        Ok(Buffer::<T>::from(read(shape, json)?).into_bytes())
    }
    match dtype {
        DType::Bool => Ok(read::<bool>(shape, json)?.into_iter().map(u8::from).collect()),
        DType::U8 => bytes::<u8>(shape, json),
        DType::U32 => bytes::<u32>(shape, json),
        DType::U64 => bytes::<u64>(shape, json),
        DType::I32 => bytes::<i32>(shape, json),
        DType::I64 => bytes::<i64>(shape, json),
        DType::F16 => bytes::<F16>(shape, json),
        DType::Bf16 => bytes::<Bf16>(shape, json),
        DType::F32 => bytes::<f32>(shape, json),
        DType::F64 => bytes::<f64>(shape, json),
    }
}

/// Appends the elements of nested arrays.
struct Nested<'a, T> {
    /// Lengths of this array and of those in it.
    shape: &'a [usize],
    elements: &'a mut Vec<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for Nested<'_, T> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        if !self.shape.is_empty() {
            return deserializer.deserialize_seq(self);
        }
        self.elements.push(T::deserialize(deserializer)?);
        Ok(())
    }
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Nested<'_, T> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {} items", self.shape.first().unwrap_or(&0))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let (&length, inner) = self.shape.split_first().ok_or_else(|| de::Error::custom("too many arrays"))?;
        for index in 0..length {
            let nested = Nested { shape: inner, elements: &mut *self.elements };
            items.next_element_seed(nested)?.ok_or_else(|| de::Error::invalid_length(index, &self))?;
        }
        match items.next_element::<de::IgnoredAny>()? {
            None => Ok(()),
            Some(_) => Err(de::Error::custom(format_args!("an array has more than {length} items"))),
        }
    }
}

/// Parameters by name: booleans, numbers and strings.
#[derive(Debug, Default)]
struct Parameters(Vec<(String, ParameterValue)>);

/// Maximum number of parameters of a request, an input or an output.
const MAX_PARAMETERS: usize = 64;

impl<'de> Deserialize<'de> for Parameters {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ParametersVisitor(PhantomData))
    }
}

struct ParametersVisitor(PhantomData<Parameters>);

impl<'de> Visitor<'de> for ParametersVisitor {
    type Value = Parameters;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of booleans, numbers and strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Parameters, A::Error> {
        let mut parameters: Vec<(String, ParameterValue)> = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if parameters.len() == MAX_PARAMETERS {
                return Err(de::Error::custom(format_args!("there are more than {MAX_PARAMETERS} parameters")));
            }
            if parameters.iter().any(|(known, _)| *known == name) {
                return Err(de::Error::custom(format_args!("the parameter `{name}` is there twice")));
            }
            parameters.push((name, map.next_value()?));
        }
        Ok(Parameters(parameters))
    }
}

impl JsonSchema for Parameters {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "InferenceParameters".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "type": "object",
            "maxProperties": MAX_PARAMETERS,
            "additionalProperties": { "type": ["boolean", "number", "string"] },
        })
    }
}

impl<'de> Deserialize<'de> for ParameterValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ValueVisitor;

        impl Visitor<'_> for ValueVisitor {
            type Value = ParameterValue;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a boolean, a number or a string")
            }

            fn visit_bool<E>(self, value: bool) -> Result<ParameterValue, E> {
                Ok(ParameterValue::Bool(value))
            }

            fn visit_u64<E>(self, value: u64) -> Result<ParameterValue, E> {
                Ok(ParameterValue::Integer(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<ParameterValue, E> {
                Ok(ParameterValue::Integer(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<ParameterValue, E> {
                Ok(ParameterValue::Float(value))
            }

            fn visit_str<E>(self, value: &str) -> Result<ParameterValue, E> {
                Ok(ParameterValue::Text(value.to_owned()))
            }
        }

        deserializer.deserialize_any(ValueVisitor)
    }
}
