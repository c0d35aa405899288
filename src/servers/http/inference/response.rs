//! Responses to requests for inference.

use std::io::{self, Write};

use bytes::Bytes;
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

use super::request::{Requested, RequestedOutput};
use crate::error::ErrorKind;
use crate::servers::http::Problem;
use crate::servers::inference::{Model, RegionSlice, datatype_name};
use crate::service::{
    Bf16, Buffer, DType, Element, F16, InvalidInput, KernelError, KernelResponse, Payload, Tensor, Tensors,
    write_document,
};

/// A response with outputs.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "InferenceResponse")]
pub(in super::super) struct Document<'a> {
    model_name: &'a str,
    model_version: &'a str,
    /// That of the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    /// Outputs, in the order of their binary data.
    outputs: Vec<Output<'a>>,
}

#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
struct Output<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [usize],
    #[serde(skip_serializing_if = "Option::is_none")]
    parameters: Option<Parameters<'a>>,
    /// The elements, row-major; not if there is a `binary_data_size` or a `shared_memory_region`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<serde_json::Value>>")]
    data: Option<Elements<'a>>,
}

#[derive(Default, Serialize, JsonSchema)]
#[schemars(inline)]
struct Parameters<'a> {
    /// Length in bytes of this output after the JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    binary_data_size: Option<usize>,
    /// The region that it was written to.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_memory_region: Option<&'a str>,
    /// Length in bytes of this output in the region.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_memory_byte_size: Option<usize>,
    /// Where it begins in the region; 0 if it is missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    shared_memory_offset: Option<u64>,
}

/// Where an output is to be.
enum Place<'a> {
    Json,
    Binary,
    Region(&'a RegionSlice),
}

/// Creates the JSON, of at most `max` bytes, and returns the binary tensors in its order, without copying them; `None` if
/// none is binary. Outputs in shared memory are written there.
pub(super) fn write(
    response: &KernelResponse,
    model: &Model,
    requested: &Requested,
    max: u64,
) -> Result<(Bytes, Option<Vec<Bytes>>), Problem> {
    let Payload::Tensors(tensors) = &response.payload else {
        let reason = "tensors were requested, but the payload has none".to_owned();
        return Err(Problem::of(&KernelError::Encode(reason)));
    };
    let mut binary = None;
    let mut outputs = Vec::new();
    for (name, tensor, place) in select(tensors, requested)? {
        // A scalar is a tensor of one element.
        let shape = if tensor.shape().is_empty() { &[1] } else { tensor.shape() };
        let bytes = tensor.data().len();
        let (parameters, data) = match place {
            Place::Json => (None, Some(Elements(tensor))),
            Place::Binary => {
                binary.get_or_insert_with(Vec::new).push(tensor.data().clone());
                (Some(Parameters { binary_data_size: Some(bytes), ..Parameters::default() }), None)
            }
            Place::Region(slice) => {
                slice.write(tensor.data()).map_err(|InvalidInput { field, reason }| InvalidInput {
                    field: format!("outputs[{}].{field}", outputs.len()),
                    reason,
                })?;
                let parameters = Parameters {
                    shared_memory_region: Some(slice.region()),
                    shared_memory_byte_size: Some(bytes),
                    shared_memory_offset: Some(slice.offset()).filter(|offset| *offset > 0),
                    ..Parameters::default()
                };
                (Some(parameters), None)
            }
        };
        outputs.push(Output { name, datatype: datatype_name(tensor.dtype()), shape, parameters, data });
    }
    let id = requested.id.as_deref();
    let document = Document { model_name: model.name(), model_version: model.version(), id, outputs };
    let mut json = Bounded { json: Vec::with_capacity(512), max };
    match write_document(&document, &mut json) {
        Ok(()) => Ok((json.json.into(), binary)),
        Err(error) if error.is_io() => Err(Problem::of(&KernelError::ResponseTooLarge { max })),
        Err(error) => Err(Problem::new(ErrorKind::Internal, format!("the response cannot be encoded: {error}"))),
    }
}

/// Selects the requested outputs, in the requested order, with the place of each.
fn select<'a>(
    tensors: &'a Tensors,
    requested: &'a Requested,
) -> Result<Vec<(&'a str, &'a Tensor, Place<'a>)>, Problem> {
    let sent = |is_binary: bool| if is_binary { Place::Binary } else { Place::Json };
    let Some(wanted) = &requested.outputs else {
        return Ok(tensors.iter().map(|(name, tensor)| (name, tensor, sent(requested.is_binary))).collect());
    };
    let named = |(index, output): (usize, &'a RequestedOutput)| match tensors.get(&output.name) {
        Some(tensor) => {
            let place = match &output.region {
                Some(slice) => Place::Region(slice),
                None => sent(output.is_binary.unwrap_or(requested.is_binary)),
            };
            Ok((output.name.as_str(), tensor, place))
        }
        None => {
            let name = &output.name;
            let all: Vec<_> = tensors.iter().map(|(name, _)| name).collect();
            let reason = format!("there is no output `{name}`; there are: {}", all.join(", "));
            Err(InvalidInput::new(format!("outputs[{index}].name"), reason).into())
        }
    };
    wanted.iter().enumerate().map(named).collect()
}

/// A writer that fails when it has `max` bytes.
struct Bounded {
    json: Vec<u8>,
    max: u64,
}

impl Write for Bounded {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if (self.json.len() + piece.len()) as u64 > self.max {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.json.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Serializes the elements of a tensor as one array. NaN and infinities become `null`, as JSON has no word for them.
struct Elements<'a>(&'a Tensor);

impl Serialize for Elements<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = self.0.data();
        match self.0.dtype() {
            DType::Bool => serializer.collect_seq(data.iter().map(|&byte| byte != 0)),
            DType::U8 => buffer::<u8>(data).serialize(serializer),
            DType::U32 => buffer::<u32>(data).serialize(serializer),
            DType::U64 => buffer::<u64>(data).serialize(serializer),
            DType::I32 => buffer::<i32>(data).serialize(serializer),
            DType::I64 => buffer::<i64>(data).serialize(serializer),
            DType::F16 => buffer::<F16>(data).serialize(serializer),
            DType::Bf16 => buffer::<Bf16>(data).serialize(serializer),
            DType::F32 => buffer::<f32>(data).serialize(serializer),
            DType::F64 => buffer::<f64>(data).serialize(serializer),
        }
    }
}

/// A buffer over the data of a tensor, as the numbers of buffers are written fast. Only unaligned data is copied.
fn buffer<T: Element>(data: &Bytes) -> Buffer<T> {
    Buffer::from_bytes(data.clone()).unwrap_or_else(|| {
        let mut copy = Buffer::zeroed(data.len() / size_of::<T>());
        bytemuck::cast_slice_mut(&mut copy).copy_from_slice(data);
        copy
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_every_type_are_json_numbers() {
        for (dtype, bytes, json) in [
            (DType::Bool, vec![0, 1], "[false,true]"),
            (DType::U8, vec![0, 255], "[0,255]"),
            (DType::U32, u32::MAX.to_le_bytes().to_vec(), "[4294967295]"),
            (DType::U64, u64::MAX.to_le_bytes().to_vec(), "[18446744073709551615]"),
            (DType::I32, i32::MIN.to_le_bytes().to_vec(), "[-2147483648]"),
            (DType::I64, i64::MIN.to_le_bytes().to_vec(), "[-9223372036854775808]"),
            (DType::F16, F16::from_f32(1.5).to_bits().to_le_bytes().to_vec(), "[1.5]"),
            (DType::Bf16, Bf16::from_f32(-2.0).to_bits().to_le_bytes().to_vec(), "[-2.0]"),
            (DType::F32, [0.1_f32.to_le_bytes(), f32::NAN.to_le_bytes()].concat(), "[0.1,null]"),
            (DType::F64, [0.1_f64.to_le_bytes(), f64::INFINITY.to_le_bytes()].concat(), "[0.1,null]"),
        ] {
            // Aligned or not.
            for offset in 0..=1 {
                let data = Bytes::from([&vec![0; offset][..], &bytes].concat()).slice(offset..);
                let tensor = Tensor::new(dtype, vec![bytes.len() / dtype.size()], data).unwrap();
                let mut written = Bounded { json: Vec::new(), max: 100 };
                write_document(&Elements(&tensor), &mut written).unwrap();
                assert_eq!(String::from_utf8(written.json).unwrap(), json);
            }
        }
    }

    #[test]
    fn a_response_ends_at_its_maximum() {
        let mut bounded = Bounded { json: Vec::new(), max: 5 };
        assert!(bounded.write_all(b"12345").is_ok() && bounded.write_all(b"6").is_err());
        assert_eq!(bounded.json, b"12345");
        let tensor = Tensor::new(DType::U8, vec![1000], vec![7; 1000].into()).unwrap();
        let mut bounded = Bounded { json: Vec::new(), max: 1000 };
        assert!(write_document(&Elements(&tensor), &mut bounded).unwrap_err().is_io() && bounded.json.len() <= 1000);
    }
}
