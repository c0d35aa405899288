//! [`FloatArray`]: a number or an array of numbers, in either precision.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::json;

use super::buffer::{RawBytes, read_numbers};
use super::sections::{array_of_section, dtype_of_section};
use super::{Buffer, Element};
use crate::buffer::DType;
use crate::service::operands::{array_of_reference, dtype_of_reference, read_reference_object, reference_schema};

/// The newtype name by which the tensor codec recognises a [`FloatArray`]. It then passes a map of one entry, from the name of
/// the dtype to the bytes.
pub(super) const ANNOUNCED: &str = "tower_kernels::FloatArray";

/// A number, or an array of numbers in single or double precision.
///
/// For kernels that work in either precision and broadcast. JSON numbers are double precision. A tensor of rank 0 or shape
/// `[1]` is a number, and one of rank 1 an array; its dtype is `float32` or `float64`.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum FloatArray {
    /// A number, which is broadcast.
    One(f64),
    /// An array in single precision.
    F32(Buffer<f32>),
    /// An array in double precision.
    F64(Buffer<f64>),
}

impl FloatArray {
    /// Returns the length of an array; `None` for a number, which is broadcast to any length.
    pub fn array_len(&self) -> Option<usize> {
        match self {
            Self::One(_) => None,
            Self::F32(values) => Some(values.len()),
            Self::F64(values) => Some(values.len()),
        }
    }
}

impl Default for FloatArray {
    fn default() -> Self {
        Self::One(0.0)
    }
}

impl From<f64> for FloatArray {
    fn from(value: f64) -> Self {
        Self::One(value)
    }
}

macro_rules! from_arrays {
    ($($type:ident $variant:ident)*) => {$(
        impl From<Buffer<$type>> for FloatArray {
            fn from(values: Buffer<$type>) -> Self {
                Self::$variant(values)
            }
        }

        impl From<Vec<$type>> for FloatArray {
            fn from(values: Vec<$type>) -> Self {
                Self::$variant(values.into())
            }
        }
    )*};
}
from_arrays! { f32 F32 f64 F64 }

impl Serialize for FloatArray {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::One(value) => serializer.serialize_f64(*value),
            Self::F32(values) => values.serialize(serializer),
            Self::F64(values) => values.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for FloatArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Text)
        } else {
            deserializer.deserialize_newtype_struct(ANNOUNCED, Binary)
        }
    }
}

/// Returns the array that a reference names, in its own precision.
fn floats_of_reference<E: de::Error>(reference: &str) -> Result<FloatArray, E> {
    match dtype_of_reference(reference)? {
        DType::F32 => array_of_reference::<f32, E>(reference).map(FloatArray::F32),
        _ => array_of_reference::<f64, E>(reference).map(FloatArray::F64),
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = FloatArray;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number or an array of numbers")
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<FloatArray, E> {
        Ok(FloatArray::One(value))
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<FloatArray, E> {
        Ok(FloatArray::One(value as f64))
    }

    /// Reads a number, or in a transfer the number of a section: there, numbers are written as floating-point ones.
    fn visit_u64<E: de::Error>(self, value: u64) -> Result<FloatArray, E> {
        match dtype_of_section(value) {
            None => Ok(FloatArray::One(value as f64)),
            Some(DType::F32) => array_of_section::<f32, E>(value, &self).map(FloatArray::F32),
            Some(_) => array_of_section::<f64, E>(value, &self).map(FloatArray::F64),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<FloatArray, A::Error> {
        Ok(read_numbers::<f64, A>(seq)?.into())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<FloatArray, A::Error> {
        floats_of_reference(&read_reference_object(map)?)
    }
}

struct Binary;

impl<'de> Visitor<'de> for Binary {
    type Value = FloatArray;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a float32 or float64 tensor of rank 0 or 1")
    }

    fn visit_f32<E: de::Error>(self, value: f32) -> Result<FloatArray, E> {
        Ok(FloatArray::One(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<FloatArray, E> {
        Ok(FloatArray::One(value))
    }

    /// Reads a reference to an array of an operand.
    fn visit_str<E: de::Error>(self, reference: &str) -> Result<FloatArray, E> {
        floats_of_reference(reference)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<FloatArray, A::Error> {
        let dtype: Option<String> = map.next_key()?;
        match dtype.as_deref() {
            Some(name) if name == f32::DTYPE.as_str() => Ok(map.next_value_seed(RawBytes::<f32>::new())?.into()),
            Some(name) if name == f64::DTYPE.as_str() => Ok(map.next_value_seed(RawBytes::<f64>::new())?.into()),
            name => {
                let found = name.unwrap_or("none");
                Err(de::Error::custom(format!("dtype {found} where float32 or float64 is expected")))
            }
        }
    }
}

impl JsonSchema for FloatArray {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "FloatArray".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // NaN and the infinities are written as null.
        let kind = if generator.contract().is_serialize() { json!(["number", "null"]) } else { json!("number") };
        let number = json!({ "type": kind });
        let mut forms = vec![number.clone(), json!({ "type": "array", "items": number })];
        if generator.contract().is_deserialize() {
            forms.push(reference_schema());
        }
        json_schema!({
            "anyOf": forms,
            "x-dtype": ["float32", "float64"],
        })
    }
}
