//! A serde `Serializer` that writes named tensors: the counterpart of `tensor_de`.

use std::fmt;

use bytes::Bytes;
use serde::Serialize;
use serde::ser::{self, Impossible, SerializeMap, SerializeSeq, SerializeStruct, SerializeTuple, Serializer};

use super::bounded::TensorBounds;
use super::buffer::buffer_dtype;
use super::zero_copy;
use crate::service::{DType, KernelError, RunContext, Tensor, Tensors};

/// Encodes an output: a tensor for each field, absent if the field is `None`.
pub(crate) fn encode_tensors<T: Serialize>(output: &T, context: &RunContext<'_>) -> Result<Tensors, KernelError> {
    let bounds = TensorBounds::new(context);
    match output.serialize(Top(&bounds)) {
        Ok(tensors) => Ok(tensors),
        Err(error) => Err(bounds.into_error().unwrap_or(KernelError::Encode(error.0))),
    }
}

#[derive(Debug)]
struct Error(String);

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl ser::Error for Error {
    fn custom<T: fmt::Display>(reason: T) -> Self {
        Self(reason.to_string())
    }
}

/// [`TensorBounds`] know which bound it is.
fn out_of_bounds() -> Error {
    Error("out of bounds".to_owned())
}

fn unsupported(what: &str) -> Error {
    Error(format!("{what} has no form as a tensor"))
}

/// Rejects every serde type that cannot be written as tensors, except for those that the caller of the macro defines.
macro_rules! reject {
    ($what:literal: $($method:ident($($argument:ty),*) -> $ok:ty;)*) => {$(
        fn $method(self, $(_: $argument),*) -> Result<$ok, Error> {
            Err(unsupported($what))
        }
    )*};
}

/// Serializes the output, which must be a struct or a map.
struct Top<'a>(&'a TensorBounds<'a>);

impl<'a> Serializer for Top<'a> {
    type Ok = Tensors;
    type Error = Error;
    type SerializeSeq = Impossible<Tensors, Error>;
    type SerializeTuple = Impossible<Tensors, Error>;
    type SerializeTupleStruct = Impossible<Tensors, Error>;
    type SerializeTupleVariant = Impossible<Tensors, Error>;
    type SerializeMap = Fields<'a>;
    type SerializeStruct = Fields<'a>;
    type SerializeStructVariant = Impossible<Tensors, Error>;

    reject! { "an output that is no struct":
        serialize_bool(bool) -> Tensors;
        serialize_i8(i8) -> Tensors;
        serialize_i16(i16) -> Tensors;
        serialize_i32(i32) -> Tensors;
        serialize_i64(i64) -> Tensors;
        serialize_u8(u8) -> Tensors;
        serialize_u16(u16) -> Tensors;
        serialize_u32(u32) -> Tensors;
        serialize_u64(u64) -> Tensors;
        serialize_f32(f32) -> Tensors;
        serialize_f64(f64) -> Tensors;
        serialize_char(char) -> Tensors;
        serialize_str(&str) -> Tensors;
        serialize_bytes(&[u8]) -> Tensors;
        serialize_none() -> Tensors;
        serialize_unit() -> Tensors;
        serialize_unit_struct(&'static str) -> Tensors;
        serialize_unit_variant(&'static str, u32, &'static str) -> Tensors;
        serialize_seq(Option<usize>) -> Self::SerializeSeq;
        serialize_tuple(usize) -> Self::SerializeTuple;
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Tensors, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, _: &'static str, value: &T) -> Result<Tensors, Error> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Tensors, Error> {
        Err(unsupported("an output that is no struct"))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Fields<'a>, Error> {
        Ok(Fields::new(self.0))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Fields<'a>, Error> {
        Ok(Fields::new(self.0))
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Fields<'a> {
    tensors: Tensors,
    key: Option<String>,
    bounds: &'a TensorBounds<'a>,
}

impl<'a> Fields<'a> {
    fn new(bounds: &'a TensorBounds<'a>) -> Self {
        Self { tensors: Tensors::new(), key: None, bounds }
    }

    fn field<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), Error> {
        let mut array = Array::new(self.bounds);
        value.serialize(Value { array: &mut array, depth: 0 }).map_err(|error| Error(format!("{name}: {error}")))?;
        if let Some(tensor) = array.finish().map_err(|error| Error(format!("{name}: {error}")))? {
            self.tensors.insert(name, tensor).map_err(|error| Error(error.to_string()))?;
        }
        Ok(())
    }
}

impl SerializeStruct for Fields<'_> {
    type Ok = Tensors;
    type Error = Error;

    fn serialize_field<T: Serialize + ?Sized>(&mut self, name: &'static str, value: &T) -> Result<(), Error> {
        self.field(name.to_owned(), value)
    }

    fn end(self) -> Result<Tensors, Error> {
        Ok(self.tensors)
    }
}

impl SerializeMap for Fields<'_> {
    type Ok = Tensors;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        let mut array = Array::new(self.bounds);
        key.serialize(Value { array: &mut array, depth: 0 })?;
        self.key = match String::from_utf8(array.data) {
            Ok(name) if array.dtype == Some(DType::U8) => Some(name),
            _ => return Err(unsupported("a map whose keys are no strings")),
        };
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let name = self.key.take().ok_or_else(|| unsupported("a map value without a key"))?;
        self.field(name, value)
    }

    fn end(self) -> Result<Tensors, Error> {
        Ok(self.tensors)
    }
}

/// A tensor under construction.
struct Array<'a> {
    dtype: Option<DType>,
    /// The length at each depth, known once the first sequence at that depth has ended.
    shape: Vec<Option<usize>>,
    /// The depth of the elements, known once there is one.
    rank: Option<usize>,
    data: Vec<u8>,
    /// The memory of a [`Buffer`](super::Buffer), in place of `data`.
    shared: Option<Bytes>,
    bounds: &'a TensorBounds<'a>,
}

impl<'a> Array<'a> {
    fn new(bounds: &'a TensorBounds<'a>) -> Self {
        Self { dtype: None, shape: Vec::new(), rank: None, data: Vec::new(), shared: None, bounds }
    }

    fn element(&mut self, dtype: DType, depth: usize, bytes: &[u8]) -> Result<(), Error> {
        if *self.dtype.get_or_insert(dtype) != dtype || *self.rank.get_or_insert(depth) != depth {
            return Err(unsupported("a sequence of mixed types"));
        }
        if !self.bounds.copy(bytes.len()) {
            return Err(out_of_bounds());
        }
        self.data.extend_from_slice(bytes);
        Ok(())
    }

    fn run(&mut self, dtype: DType, depth: usize, bytes: &[u8]) -> Result<(), Error> {
        self.element(dtype, depth + 1, bytes)?;
        self.length(depth, bytes.len() / dtype.size())
    }

    fn length(&mut self, depth: usize, length: usize) -> Result<(), Error> {
        if self.shape.len() <= depth {
            self.shape.resize(depth + 1, None);
        }
        if *self.shape[depth].get_or_insert(length) == length { Ok(()) } else { Err(unsupported("a ragged sequence")) }
    }

    fn finish(self) -> Result<Option<Tensor>, Error> {
        if self.dtype.is_none() && self.shape.is_empty() {
            return Ok(None);
        }
        let dtype = self.dtype.ok_or_else(|| unsupported("an empty sequence other than a Buffer"))?;
        let shape = self.shape.into_iter().map(|side| side.unwrap_or(0)).collect();
        let data = self.shared.unwrap_or_else(|| self.data.into());
        Tensor::new(dtype, shape, data).map(Some).map_err(|error| Error(error.to_string()))
    }
}

/// Serializes a field, or an element at some depth of it.
struct Value<'a, 'b> {
    array: &'a mut Array<'b>,
    depth: usize,
}

macro_rules! elements {
    ($($method:ident $type:ty as $dtype:ident;)*) => {$(
        fn $method(self, value: $type) -> Result<(), Error> {
            self.array.element(DType::$dtype, self.depth, &value.to_le_bytes())
        }
    )*};
}

impl<'a, 'b> Serializer for Value<'a, 'b> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Sequence<'a, 'b>;
    type SerializeTuple = Sequence<'a, 'b>;
    type SerializeTupleStruct = Impossible<(), Error>;
    type SerializeTupleVariant = Impossible<(), Error>;
    type SerializeMap = Impossible<(), Error>;
    type SerializeStruct = Impossible<(), Error>;
    type SerializeStructVariant = Impossible<(), Error>;

    elements! {
        serialize_u8 u8 as U8;
        serialize_u32 u32 as U32;
        serialize_u64 u64 as U64;
        serialize_i32 i32 as I32;
        serialize_i64 i64 as I64;
        serialize_f32 f32 as F32;
        serialize_f64 f64 as F64;
    }

    reject! { "a field of this type":
        serialize_i8(i8) -> ();
        serialize_i16(i16) -> ();
        serialize_u16(u16) -> ();
        serialize_char(char) -> ();
        serialize_unit() -> ();
        serialize_unit_struct(&'static str) -> ();
        serialize_tuple_struct(&'static str, usize) -> Self::SerializeTupleStruct;
        serialize_tuple_variant(&'static str, u32, &'static str, usize) -> Self::SerializeTupleVariant;
        serialize_map(Option<usize>) -> Self::SerializeMap;
        serialize_struct(&'static str, usize) -> Self::SerializeStruct;
        serialize_struct_variant(&'static str, u32, &'static str, usize) -> Self::SerializeStructVariant;
    }

    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.array.element(DType::Bool, self.depth, &[u8::from(value)])
    }

    fn serialize_str(self, text: &str) -> Result<(), Error> {
        self.array.run(DType::U8, self.depth, text.as_bytes())
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<(), Error> {
        if let Some(shared) = zero_copy::owner_of(bytes) {
            if !self.array.bounds.add(bytes.len()) {
                return Err(out_of_bounds());
            }
            self.array.shared = Some(shared);
            return Ok(());
        }
        self.array.run(DType::U8, self.depth, bytes)
    }

    fn serialize_none(self) -> Result<(), Error> {
        if self.depth == 0 { Ok(()) } else { Err(unsupported("a sequence with gaps")) }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        value.serialize(self)
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<(), Error> {
        let Some(dtype) = buffer_dtype(name) else { return value.serialize(self) };
        if self.depth > 0 {
            return Err(unsupported("a sequence of Buffers"));
        }
        // A Buffer comes as its bytes, whose count is not yet that of the elements.
        let array = self.array;
        value.serialize(Value { array: &mut *array, depth: 0 })?;
        let bytes = array.shared.as_ref().map_or(array.data.len(), Bytes::len);
        array.dtype = Some(dtype);
        array.shape = vec![Some(bytes / dtype.size())];
        Ok(())
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<(), Error> {
        Err(unsupported("a field of this type"))
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Sequence<'a, 'b>, Error> {
        Ok(Sequence { array: self.array, depth: self.depth, length: 0 })
    }

    fn serialize_tuple(self, _: usize) -> Result<Sequence<'a, 'b>, Error> {
        self.serialize_seq(None)
    }

    fn is_human_readable(&self) -> bool {
        false
    }
}

struct Sequence<'a, 'b> {
    array: &'a mut Array<'b>,
    depth: usize,
    length: usize,
}

impl SerializeSeq for Sequence<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        self.length += 1;
        value.serialize(Value { array: self.array, depth: self.depth + 1 })
    }

    fn end(self) -> Result<(), Error> {
        self.array.length(self.depth, self.length)
    }
}

impl SerializeTuple for Sequence<'_, '_> {
    type Ok = ();
    type Error = Error;

    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        SerializeSeq::serialize_element(self, value)
    }

    fn end(self) -> Result<(), Error> {
        SerializeSeq::end(self)
    }
}
