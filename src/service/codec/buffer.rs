//! Serializes and deserializes [`Buffer`]: as an array in JSON, as little-endian bytes in tensors.

use std::fmt;
use std::marker::PhantomData;

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::sections::{add_section, array_of_section};
use super::stop::{read_all, read_into};
use super::{memory, zero_copy};
use crate::buffer::{Bf16, Buffer, DType, Element, F16};
use crate::service::operands::{array_of_reference, read_reference_object, reference_schema};

/// Returns the dtype of the [`Buffer`] whose newtype name this is.
pub(super) fn buffer_dtype(name: &str) -> Option<DType> {
    // The usual ones come first.
    [
        (f32::BUFFER, DType::F32),
        (f64::BUFFER, DType::F64),
        (u8::BUFFER, DType::U8),
        (u32::BUFFER, DType::U32),
        (u64::BUFFER, DType::U64),
        (i32::BUFFER, DType::I32),
        (i64::BUFFER, DType::I64),
        (F16::BUFFER, DType::F16),
        (Bf16::BUFFER, DType::Bf16),
    ]
    .into_iter()
    .find_map(|(this, dtype)| (this == name).then_some(dtype))
}

/// Serializes as a newtype: over a sequence in text formats, and over the little-endian bytes in binary ones. In a transfer
/// to another process, the bytes are a section.
impl<T: Element> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(T::BUFFER, &ElementsOrBytes(self))
    }
}

struct ElementsOrBytes<'a, T>(&'a Buffer<T>);

impl<T: Element> Serialize for ElementsOrBytes<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = bytemuck::cast_slice(self.0);
        if serializer.is_human_readable() {
            let section = || self.0.shared_bytes().unwrap_or_else(|| Bytes::copy_from_slice(bytes));
            return match add_section(T::DTYPE, section) {
                Some(section) => serializer.serialize_u64(section),
                None => serializer.collect_seq(self.0.iter()),
            };
        }
        match self.0.shared_bytes() {
            Some(shared) => zero_copy::offering(shared, || serializer.serialize_bytes(bytes)),
            None => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de, T: Element> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(ArrayOrReference(PhantomData))
        } else {
            deserializer.deserialize_newtype_struct(T::BUFFER, RawBytes::new())
        }
    }
}

/// Reads an array, a reference to an array of an operand, or the number of a section.
struct ArrayOrReference<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for ArrayOrReference<T> {
    type Value = Buffer<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Elements::<T>(PhantomData).expecting(f)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Buffer<T>, A::Error> {
        read_numbers(seq)
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Buffer<T>, A::Error> {
        array_of_reference(&read_reference_object(map)?)
    }

    fn visit_u64<E: serde::de::Error>(self, section: u64) -> Result<Buffer<T>, E> {
        array_of_section(section, &self)
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for Elements<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", T::DTYPE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Vec<T>, A::Error> {
        read_all(seq)
    }
}

/// Reads a sequence of numbers: all at once where the deserializer can do that, which it tells from the name of the newtype,
/// and otherwise one after another.
pub(super) fn read_numbers<'de, T: Element, A: SeqAccess<'de>>(mut seq: A) -> Result<Buffer<T>, A::Error> {
    let mut numbers = match seq.next_element_seed(NumberOrAll(PhantomData))? {
        None => Vec::new(),
        Some(Numbers::First(number)) => vec![number],
        Some(Numbers::All(numbers)) => return Ok(numbers),
    };
    read_into(seq, &mut numbers)?;
    shrink(&mut numbers);
    Ok(numbers.into())
}

enum Numbers<T> {
    First(T),
    All(Buffer<T>),
}

struct NumberOrAll<T>(PhantomData<T>);

impl<'de, T: Element> DeserializeSeed<'de> for NumberOrAll<T> {
    type Value = Numbers<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Numbers<T>, D::Error> {
        deserializer.deserialize_newtype_struct(T::BUFFER, self)
    }
}

impl<'de, T: Element> Visitor<'de> for NumberOrAll<T> {
    type Value = Numbers<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Elements::<T>(PhantomData).expecting(f)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Numbers<T>, D::Error> {
        T::deserialize(deserializer).map(Numbers::First)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Numbers<T>, E> {
        RawBytes::new().visit_bytes(bytes).map(Numbers::All)
    }
}

/// Adds a reference to the schema of an array.
fn array_or_reference(array: Schema) -> Schema {
    json_schema!({ "x-dtype": array.get("x-dtype"), "anyOf": [array, reference_schema()] })
}

/// Shrinks a grown array's allocation if much of it is unused.
pub(crate) fn shrink<T>(elements: &mut Vec<T>) {
    if (elements.capacity() - elements.len()) * size_of::<T>() > 64 << 10 {
        elements.shrink_to_fit();
    }
}

/// Decodes the little-endian bytes of an array.
pub(super) struct RawBytes<T>(PhantomData<T>);

impl<T> RawBytes<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for RawBytes<T> {
    type Value = Buffer<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Buffer<T>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de, T: Element> Visitor<'de> for RawBytes<T> {
    type Value = Buffer<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes of an array of {}", T::DTYPE)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Buffer<T>, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    /// Converts integers of another dtype than the array's.
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Buffer<T>, A::Error> {
        Elements(PhantomData).visit_seq(seq).map(Buffer::from)
    }

    /// Reads a reference to an array of an operand.
    fn visit_str<E: serde::de::Error>(self, reference: &str) -> Result<Buffer<T>, E> {
        array_of_reference(reference)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Buffer<T>, E> {
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        if let Some(elements) = zero_copy::owner_of(bytes).and_then(Buffer::from_bytes) {
            return Ok(elements);
        }
        if let Some(elements) = memory::copy_of(bytes) {
            return Ok(elements);
        }
        let mut elements = Buffer::zeroed(bytes.len() / size_of::<T>());
        bytemuck::cast_slice_mut(&mut elements).copy_from_slice(bytes);
        Ok(elements)
    }
}

impl<T: Element> JsonSchema for Buffer<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        format!("Buffer_of_{}", T::DTYPE).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = Vec::<T>::json_schema(generator);
        // JSON has no word for NaN and the infinities, so they are written as null. They are never read.
        if generator.contract().is_serialize()
            && T::DTYPE.is_float()
            && let Some(kind) = schema.pointer_mut("/items/type")
        {
            *kind = serde_json::json!(["number", "null"]);
        }
        schema.insert("x-dtype".into(), T::DTYPE.as_str().into());
        if generator.contract().is_serialize() { schema } else { array_or_reference(schema) }
    }
}
