//! [`TensorSet`]: the operand type of named tensors.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde::ser::{self, Serialize, Serializer};
use serde_json::json;

use super::value::{OperandArray, OperandValue};
use crate::service::codec::{add_section, decode_json, is_transfer, read_all, section_bytes};
use crate::service::{
    Bf16, Buffer, DType, Element, F16, InvalidInput, KernelError, Payload, RunContext, Tensor, Tensors,
};

/// Named tensors, as an operand: the columns of a table, for example.
///
/// A request refers to one of the tensors by `name/tensor` wherever an input has an array of the same dtype, and by `name`
/// alone if there is only one.
///
/// Clients upload tensors, or a JSON object from names to arrays of numbers, which become `float64`, or to
/// `{"dtype": "float32", "data": [1.0, 2.0]}`.
#[derive(Clone, Debug, PartialEq)]
pub struct TensorSet(Tensors);

impl TensorSet {
    /// Creates a set of one tensor of one dimension.
    ///
    /// # Panics
    /// If the name is [invalid](crate::request::check_name).
    pub fn of<T: Element>(name: &str, elements: impl Into<Buffer<T>>) -> Self {
        let elements = elements.into();
        let mut tensors = Tensors::new();
        tensors.insert(name, tensor(elements)).unwrap_or_else(|error| panic!("{error}"));
        Self(tensors)
    }

    /// Returns the tensors.
    pub fn tensors(&self) -> &Tensors {
        &self.0
    }

    /// Returns the tensor of this name; without a name, the only one.
    ///
    /// # Errors
    /// There is none of this name, or there are several and no name. The error lists the names.
    pub(super) fn select(&self, name: Option<&str>) -> Result<&Tensor, InvalidInput> {
        let mut all = self.0.iter();
        let found = match name {
            Some(name) => self.0.get(name),
            None => all.next().filter(|_| all.len() == 0).map(|(_, tensor)| tensor),
        };
        found.ok_or_else(|| {
            let names: Vec<&str> = self.0.iter().map(|(name, _)| name).collect();
            let reason = format!("name one of the operand's tensors after a slash: {}", names.join(", "));
            InvalidInput::new("operand", reason)
        })
    }
}

fn tensor<T: Element>(elements: Buffer<T>) -> Tensor {
    let shape = vec![elements.len()];
    Tensor::new(T::DTYPE, shape, elements.into_bytes()).expect("the shape is that of the elements")
}

impl From<Tensors> for TensorSet {
    /// Copies tensors that are not aligned for their elements.
    fn from(tensors: Tensors) -> Self {
        if tensors.bytes_to_copy() == 0 {
            return Self(tensors);
        }
        let mut aligned = Tensors::new();
        for (name, tensor) in tensors.iter() {
            let data = aligned_bytes(tensor.data());
            let tensor =
                Tensor::new(tensor.dtype(), tensor.shape().to_vec(), data).expect("the shape of the same bytes");
            aligned.insert(name, tensor).expect("the names of a set of tensors");
        }
        Self(aligned)
    }
}

/// Returns the same bytes, copied unless they are aligned for elements of any type.
pub(super) fn aligned_bytes(bytes: &Bytes) -> Bytes {
    if bytes.as_ptr().addr().is_multiple_of(align_of::<u64>()) {
        return bytes.clone();
    }
    let mut words = Buffer::<u64>::zeroed(bytes.len().div_ceil(size_of::<u64>()));
    bytemuck::cast_slice_mut(&mut words)[..bytes.len()].copy_from_slice(bytes);
    words.into_bytes().slice(..bytes.len())
}

/// The JSON form of a [`TensorSet`].
#[derive(Debug, PartialEq)]
pub struct TensorSetDocument(Tensors);

/// A tensor that crosses to another process.
#[derive(serde::Serialize, serde::Deserialize)]
struct TransferTensor<'a> {
    dtype: Cow<'a, str>,
    shape: Cow<'a, [usize]>,
    /// The number of the section.
    data: u64,
}

impl TransferTensor<'_> {
    fn into_tensor<E: Error>(self) -> Result<Tensor, E> {
        let dtype = DType::from_name(&self.dtype).ok_or_else(|| E::custom("an unknown dtype of a tensor"))?;
        let data = section_bytes(self.data, dtype, dtype.size(), &"the number of a section")?;
        Tensor::new(dtype, self.shape.into_owned(), data).map_err(E::custom)
    }
}

/// Serializes as the JSON form.
impl Serialize for TensorSetDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, tensor)| (name, TensorForm(tensor))))
    }
}

struct TensorForm<'a>(&'a Tensor);

impl Serialize for TensorForm<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(tensor) = self;
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        if let Some(data) = add_section(dtype, || tensor.data().clone()) {
            return TransferTensor { dtype: dtype.as_str().into(), shape: shape.into(), data }.serialize(serializer);
        }
        if shape.len() != 1 {
            return Err(ser::Error::custom(format_args!("a tensor of shape {shape:?} has no form in JSON")));
        }
        let bytes = aligned_bytes(tensor.data());
        let form = match dtype {
            DType::Bool => return Err(ser::Error::custom("a tensor of bools has no form in JSON")),
            DType::U8 => TypedDocument::U8(elements(bytes)),
            DType::U32 => TypedDocument::U32(elements(bytes)),
            DType::U64 => TypedDocument::U64(elements(bytes)),
            DType::I32 => TypedDocument::I32(elements(bytes)),
            DType::I64 => TypedDocument::I64(elements(bytes)),
            DType::F16 => TypedDocument::F16(elements(bytes)),
            DType::Bf16 => TypedDocument::Bf16(elements(bytes)),
            DType::F32 => TypedDocument::F32(elements(bytes)),
            DType::F64 => TypedDocument::F64(elements(bytes)),
        };
        form.serialize(serializer)
    }
}

/// Returns the elements in bytes that are aligned for them.
fn elements<T: Element>(bytes: Bytes) -> Buffer<T> {
    // An empty slice may have any address.
    if bytes.is_empty() { Buffer::default() } else { Buffer::from_bytes(bytes).expect("they are aligned") }
}

impl<'de> Deserialize<'de> for TensorSetDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if is_transfer() {
            let mut tensors = Tensors::new();
            for (name, tensor) in BTreeMap::<String, TransferTensor<'static>>::deserialize(deserializer)? {
                tensors.insert(name, tensor.into_tensor()?).map_err(D::Error::custom)?;
            }
            return Ok(Self(tensors));
        }
        let fields = BTreeMap::<Cow<'de, str>, TensorDocument>::deserialize(deserializer)?;
        let mut tensors = Tensors::new();
        for (name, TensorDocument(tensor)) in fields {
            tensors.insert(name, tensor).map_err(D::Error::custom)?;
        }
        Ok(Self(tensors))
    }
}

/// A tensor in JSON.
struct TensorDocument(Tensor);

#[derive(serde::Serialize, serde::Deserialize)]
#[serde(tag = "dtype", content = "data", deny_unknown_fields)]
enum TypedDocument {
    #[serde(rename = "uint8")]
    U8(Buffer<u8>),
    #[serde(rename = "uint32")]
    U32(Buffer<u32>),
    #[serde(rename = "uint64")]
    U64(Buffer<u64>),
    #[serde(rename = "int32")]
    I32(Buffer<i32>),
    #[serde(rename = "int64")]
    I64(Buffer<i64>),
    #[serde(rename = "float16")]
    F16(Buffer<F16>),
    #[serde(rename = "bfloat16")]
    Bf16(Buffer<Bf16>),
    #[serde(rename = "float32")]
    F32(Buffer<f32>),
    #[serde(rename = "float64")]
    F64(Buffer<f64>),
}

impl<'de> Deserialize<'de> for TensorDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Form;

        impl<'de> Visitor<'de> for Form {
            type Value = Tensor;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of numbers, or an object with dtype and data")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Tensor, A::Error> {
                Ok(tensor::<f64>(read_all(seq)?.into()))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Tensor, A::Error> {
                Ok(match TypedDocument::deserialize(MapAccessDeserializer::new(map))? {
                    TypedDocument::U8(data) => tensor(data),
                    TypedDocument::U32(data) => tensor(data),
                    TypedDocument::U64(data) => tensor(data),
                    TypedDocument::I32(data) => tensor(data),
                    TypedDocument::I64(data) => tensor(data),
                    TypedDocument::F16(data) => tensor(data),
                    TypedDocument::Bf16(data) => tensor(data),
                    TypedDocument::F32(data) => tensor(data),
                    TypedDocument::F64(data) => tensor(data),
                })
            }
        }

        deserializer.deserialize_any(Form).map(Self)
    }
}

impl JsonSchema for TensorSetDocument {
    fn schema_name() -> Cow<'static, str> {
        "TensorSet".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let dtypes: Vec<_> = DType::ALL.into_iter().filter(|dtype| *dtype != DType::Bool).map(DType::as_str).collect();
        let numbers = json!({ "type": "array", "items": { "type": "number" } });
        json_schema!({
            "type": "object",
            "additionalProperties": {
                "anyOf": [numbers, {
                    "type": "object",
                    "properties": { "dtype": { "enum": dtypes }, "data": numbers },
                    "required": ["dtype", "data"],
                    "additionalProperties": false,
                }],
            },
        })
    }
}

impl OperandValue for TensorSet {
    const TYPE: &'static str = "tensors";

    type Document = TensorSetDocument;

    fn decode(payload: Payload) -> Result<TensorSetDocument, InvalidInput> {
        match payload {
            Payload::Json(document) => decode_json(&document),
            Payload::Tensors(tensors) => Ok(TensorSetDocument(tensors)),
            Payload::Typed(value) => match value.downcast::<TensorSet>() {
                Some(set) => Ok(TensorSetDocument(set.0.clone())),
                None => Err(InvalidInput::new(
                    "input",
                    format!("a value of type {} is no set of tensors", value.type_name()),
                )),
            },
        }
    }

    fn check(TensorSetDocument(tensors): &TensorSetDocument) -> Result<(), InvalidInput> {
        if tensors.iter().len() == 0 { Err(InvalidInput::new("input", "no tensors")) } else { Ok(()) }
    }

    fn from_document(document: &TensorSetDocument, _: &RunContext<'_>) -> Result<Self, KernelError> {
        Self::check(document)?;
        Ok(document.0.clone().into())
    }

    fn summary(&self) -> serde_json::Value {
        let tensors = self.0.iter();
        let describe = |(name, tensor): (&str, &Tensor)| {
            (name.to_owned(), json!({ "dtype": tensor.dtype().as_str(), "shape": tensor.shape() }))
        };
        json!({ "tensors": tensors.map(describe).collect::<serde_json::Map<_, _>>() })
    }

    fn to_tensors(&self) -> Tensors {
        self.0.clone()
    }

    fn arrays(&self) -> Vec<OperandArray<'_>> {
        let array = |(name, tensor)| array_of(name, tensor);
        self.0.iter().map(array).collect()
    }
}

fn array_of<'a>(name: &'a str, tensor: &'a Tensor) -> OperandArray<'a> {
    OperandArray { name, dtype: tensor.dtype(), bytes: tensor.data() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<TensorSet, KernelError> {
        let document = TensorSet::decode(Payload::json(json))?;
        TensorSet::from_document(&document, &RunContext::detached())
    }

    #[test]
    fn json_has_double_precision_unless_it_says_otherwise() {
        let set = read(r#"{"close": [1.0, 2.5], "ids": {"dtype": "uint32", "data": [7]}, "e": []}"#).unwrap();
        assert_eq!(set.select(Some("close")).unwrap().dtype(), DType::F64);
        assert_eq!(set.select(Some("ids")).unwrap().data()[..], 7_u32.to_le_bytes());
        assert_eq!(set.select(Some("e")).unwrap().shape(), [0]);
        let error = set.select(None).unwrap_err();
        assert!(error.reason.ends_with("close, e, ids"), "{error}");
        assert_eq!(TensorSet::of("x", vec![1_u8]).select(None).unwrap().data()[..], [1]);
    }

    #[test]
    fn documents_that_are_no_tensors_are_rejected() {
        for json in [
            "{}",
            "[]",
            r#"{"a": 1}"#,
            r#"{"a": [1, "2"]}"#,
            r#"{"a": {"dtype": "complex64", "data": [1]}}"#,
            r#"{"a": {"dtype": "uint8", "data": [256]}}"#,
            r#"{"a": {"dtype": "uint8", "data": [1], "shape": [1]}}"#,
            r#"{"a": {"data": [1]}}"#,
            r#"{"": [1]}"#,
        ] {
            let error = read(json).unwrap_err();
            assert!(matches!(error, KernelError::InvalidInput(_)), "{json}: {error}");
        }
    }
}
