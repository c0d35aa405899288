//! A serde `Deserializer` over named tensors, so that a kernel's input is one type in every encoding.
//!
//! Tensors are the fields of a struct:
//!
//! * a scalar is a tensor of one element and rank 0 or 1;
//! * a sequence is a tensor of rank 1, a sequence of sequences (or arrays) one of rank 2, and so on;
//! * a string is a `uint8` tensor of rank 1;
//! * a [`Buffer`](super::Buffer) is a tensor of rank 1 and the same dtype, which is not copied if it is aligned. A buffer of
//!   integers takes any integer dtype whose elements fit (scipy and PyTorch write indices as `int32` and `int64`);
//! * a [`FloatArray`](super::FloatArray) is a scalar or a tensor of rank 1, in either precision;
//! * a [`NumberArray`](super::NumberArray) is a tensor of rank 1 of any of its types.
//!
//! A field without a tensor is absent, so `Option` and `#[serde(default)]` work as for JSON.

use std::fmt;

use bytes::Bytes;
use serde::de::value::{MapDeserializer, StrDeserializer};
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;

use super::buffer::buffer_dtype;
use super::{float_array, number_array, zero_copy};
use crate::service::operands::{KEY as REFERENCE_KEY, REFERENCE_SUFFIX};
use crate::service::{Bf16, DType, F16, InvalidInput, Tensor, Tensors};

/// Decodes an input. An error names the tensor.
pub(crate) fn decode_tensors<T: DeserializeOwned>(tensors: &Tensors) -> Result<T, InvalidInput> {
    T::deserialize(Named(tensors))
        .map_err(|error| InvalidInput::new(error.field.unwrap_or("input".into()), error.reason))
}

#[derive(Debug)]
struct Error {
    /// The missing or unknown field, or the indices of the invalid element.
    field: Option<String>,
    indices: String,
    reason: String,
}

impl Error {
    fn at(mut self, name: &str) -> Self {
        let indices = &self.indices;
        self.field.get_or_insert_with(|| format!("{name}{indices}"));
        self
    }

    fn at_row(mut self, row: usize) -> Self {
        self.indices.insert_str(0, &format!("[{row}]"));
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self { field: None, indices: String::new(), reason: reason.to_string() }
    }

    fn missing_field(field: &'static str) -> Self {
        let reason = "missing tensor".to_owned();
        Self { field: Some(field.to_owned()), indices: String::new(), reason }
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let reason = format!("unknown tensor, expected one of {expected:?}");
        Self { field: Some(field.to_owned()), indices: String::new(), reason }
    }
}

/// Deserializes all tensors as a map by name.
struct Named<'a>(&'a Tensors);

impl<'de> Deserializer<'de> for Named<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(Fields { rest: self.0.iter(), value: None })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, _: &'static str, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Fields<'de, I> {
    rest: I,
    value: Option<(&'de str, &'de Tensor)>,
}

impl<'de, I: ExactSizeIterator<Item = (&'de str, &'de Tensor)>> MapAccess<'de> for Fields<'de, I> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        self.value = self.rest.next();
        let Some((name, _)) = self.value else { return Ok(None) };
        let name = name.strip_suffix(REFERENCE_SUFFIX).unwrap_or(name);
        let name: StrDeserializer<'de, Error> = name.into_deserializer();
        seed.deserialize(name).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let (name, tensor) =
            self.value.take().ok_or_else(|| de::Error::custom("a value was asked for before its key"))?;
        let whole = tensor.data();
        let view = View { dtype: tensor.dtype(), shape: tensor.shape(), data: whole, whole };
        let value = match name.strip_suffix(REFERENCE_SUFFIX) {
            Some(_) => view.text().and_then(|text| seed.deserialize(Reference(text))),
            None => seed.deserialize(view),
        };
        value.map_err(|error| error.at(name))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// Deserializes a tensor, or one of its rows.
#[derive(Clone, Copy)]
struct View<'de> {
    dtype: DType,
    shape: &'de [usize],
    data: &'de [u8],
    /// The tensor's bytes with their owner.
    whole: &'de Bytes,
}

impl<'de> View<'de> {
    /// Passes the bytes to the visitor together with their owner.
    fn offering<R>(&self, visit: impl FnOnce() -> R) -> R {
        zero_copy::offering(self.whole.slice_ref(self.data), visit)
    }

    /// Returns the text of a reference.
    fn text(&self) -> Result<&'de str, Error> {
        let is_text = self.dtype == DType::U8 && self.shape.len() == 1;
        let text = is_text.then(|| std::str::from_utf8(self.data).ok()).flatten();
        text.ok_or_else(|| de::Error::custom("a reference to an operand is text: a uint8 tensor of one dimension"))
    }

    /// Passes a map of one entry: from the name of the dtype to the bytes.
    fn visit_typed_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let array = MapDeserializer::new(std::iter::once((self.dtype.as_str(), self.data)));
        self.offering(|| visitor.visit_map(array))
    }

    fn visit_element<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let data = self.data;
        // The shape was checked against the data when the tensor was made.
        let eight = || <[u8; 8]>::try_from(data).map_err(de::Error::custom);
        let four = || <[u8; 4]>::try_from(data).map_err(de::Error::custom);
        let two = || <[u8; 2]>::try_from(data).map_err(de::Error::custom);
        match self.dtype {
            DType::Bool => match data {
                [0] => visitor.visit_bool(false),
                [1] => visitor.visit_bool(true),
                _ => Err(de::Error::custom("a bool is a byte of 0 or 1")),
            },
            DType::U8 => visitor.visit_u8(*data.first().ok_or_else(|| de::Error::custom("no element"))?),
            DType::U32 => visitor.visit_u32(u32::from_le_bytes(four()?)),
            DType::I32 => visitor.visit_i32(i32::from_le_bytes(four()?)),
            DType::F16 => visitor.visit_f32(F16::from_bits(u16::from_le_bytes(two()?)).to_f32()),
            DType::Bf16 => visitor.visit_f32(Bf16::from_bits(u16::from_le_bytes(two()?)).to_f32()),
            DType::F32 => visitor.visit_f32(f32::from_le_bytes(four()?)),
            DType::U64 => visitor.visit_u64(u64::from_le_bytes(eight()?)),
            DType::I64 => visitor.visit_i64(i64::from_le_bytes(eight()?)),
            DType::F64 => visitor.visit_f64(f64::from_le_bytes(eight()?)),
        }
    }

    fn visit_rows<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let Some((&rows, shape)) = self.shape.split_first() else {
            return Err(de::Error::invalid_type(de::Unexpected::Other("a scalar tensor"), &visitor));
        };
        let stride = self.data.len().checked_div(rows).unwrap_or(0);
        if stride == 0 && rows > 0 && !shape.is_empty() && !are_few(self.shape) {
            let reason = format!("shape {:?}: more than {MAX_EMPTY_ROWS} rows without elements", self.shape);
            return Err(de::Error::custom(reason));
        }
        let mut access =
            Rows { rest: self.data, row: 0, left: rows, stride, dtype: self.dtype, shape, whole: self.whole };
        let value = visitor.visit_seq(&mut access)?;
        if access.left == 0 { Ok(value) } else { Err(de::Error::custom(format!("{} rows too many", access.left))) }
    }
}

/// Deserializes a reference to an operand, in place of a tensor: as an object for fields that hold any value, and as a
/// string for arrays.
struct Reference<'de>(&'de str);

impl<'de> Deserializer<'de> for Reference<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_map(MapDeserializer::new(std::iter::once((REFERENCE_KEY, self.0))))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if [float_array::ANNOUNCED, number_array::ANNOUNCED].contains(&name) || buffer_dtype(name).is_some() {
            visitor.visit_borrowed_str(self.0)
        } else {
            visitor.visit_newtype_struct(self)
        }
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit unit_struct
        seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

/// The maximum rows of a tensor without elements, which takes no bytes in a request, but time and memory to decode.
const MAX_EMPTY_ROWS: usize = 4096;

/// Returns whether a tensor of this shape, which has no elements, has at most [`MAX_EMPTY_ROWS`] rows over all dimensions.
fn are_few(shape: &[usize]) -> bool {
    let rows = shape.iter().take_while(|side| **side > 0).try_fold(1_usize, |rows, &side| rows.checked_mul(side));
    rows.is_some_and(|rows| rows <= MAX_EMPTY_ROWS)
}

/// Reads a scalar. A tensor of shape `[1]` is one as well, as some protocols have no rank 0.
macro_rules! scalars {
    ($($method:ident)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            if matches!(self.shape, [] | [1]) { self.visit_element(visitor) } else { self.visit_rows(visitor) }
        }
    )*};
}

impl<'de> Deserializer<'de> for View<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.shape.is_empty() { self.visit_element(visitor) } else { self.visit_rows(visitor) }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Error> {
        if name == float_array::ANNOUNCED {
            return match self.shape {
                [] | [1] => self.visit_element(visitor),
                [_] => self.visit_typed_bytes(visitor),
                shape => Err(de::Error::custom(format!("shape {shape:?} where at most one dimension is expected"))),
            };
        }
        if name == number_array::ANNOUNCED {
            return match self.shape {
                [_] => self.visit_typed_bytes(visitor),
                shape => Err(de::Error::custom(format!("shape {shape:?} where one dimension is expected"))),
            };
        }
        let Some(dtype) = buffer_dtype(name) else { return visitor.visit_newtype_struct(self) };
        if self.dtype != dtype && !(is_integer(self.dtype) && is_integer(dtype)) {
            return Err(de::Error::custom(format!("dtype {} where {dtype} is expected", self.dtype)));
        }
        if self.shape.len() != 1 {
            return Err(de::Error::custom(format!("shape {:?} where one dimension is expected", self.shape)));
        }
        if self.dtype != dtype {
            return self.visit_rows(visitor);
        }
        self.offering(|| visitor.visit_borrowed_bytes(self.data))
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.dtype == DType::U8 && self.shape.len() == 1 {
            visitor.visit_borrowed_str(std::str::from_utf8(self.data).map_err(de::Error::custom)?)
        } else {
            self.deserialize_any(visitor)
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_str(visitor)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if self.dtype == DType::U8 && self.shape.len() == 1 {
            let name = std::str::from_utf8(self.data).map_err(de::Error::custom)?;
            visitor.visit_enum(name.into_deserializer())
        } else {
            Err(de::Error::custom("a variant is named by a uint8 tensor of one dimension"))
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_unit()
    }

    fn is_human_readable(&self) -> bool {
        false
    }

    serde::forward_to_deserialize_any! {
        unit unit_struct seq tuple tuple_struct map struct identifier bytes byte_buf char
    }

    scalars! {
        deserialize_bool deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128 deserialize_u8
        deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 deserialize_f32 deserialize_f64
    }
}

fn is_integer(dtype: DType) -> bool {
    dtype != DType::Bool && !dtype.is_float()
}

struct Rows<'de> {
    rest: &'de [u8],
    row: usize,
    left: usize,
    stride: usize,
    dtype: DType,
    shape: &'de [usize],
    whole: &'de Bytes,
}

impl<'de> SeqAccess<'de> for &mut Rows<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        if self.left == 0 {
            return Ok(None);
        }
        let (data, rest) = self.rest.split_at(self.stride);
        let row = self.row;
        (self.rest, self.row, self.left) = (rest, row + 1, self.left - 1);
        let view = View { dtype: self.dtype, shape: self.shape, data, whole: self.whole };
        seed.deserialize(view).map(Some).map_err(|error| error.at_row(row))
    }

    fn size_hint(&self) -> Option<usize> {
        // A shape of `[usize::MAX, 0]` is backed by no bytes.
        (self.stride > 0).then_some(self.left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    struct Input {
        rows: Vec<Vec<f32>>,
    }

    #[test]
    fn rows_that_take_no_bytes_are_bounded() {
        let read = |shape: &[usize]| {
            let mut tensors = Tensors::new();
            tensors.insert("rows", Tensor::new(DType::F32, shape.to_vec(), Bytes::new()).unwrap()).unwrap();
            decode_tensors::<Input>(&tensors)
        };
        assert_eq!(read(&[100, 0]).unwrap().rows.len(), 100);
        assert_eq!(read(&[0, usize::MAX]).unwrap().rows.len(), 0);
        for shape in [&[1 << 40, 0][..], &[4097, 0], &[4096, 4096, 0], &[1 << 20, 1 << 20, 0]] {
            let error = read(shape).unwrap_err();
            assert_eq!(
                (error.field.as_str(), error.reason.contains("rows without elements")),
                ("rows", true),
                "{error}"
            );
        }
    }
}
