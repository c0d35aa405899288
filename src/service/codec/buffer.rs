//! [`Buffer`]: the one array type that kernels take and give, whatever the encoding.

use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use crate::service::DType;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian, and so are all hosts that CUDA runs on");

/// A 1-D array of numbers as a kernel's input or output.
///
/// In JSON it is an array. As a tensor it is copied in one piece, where a `Vec<T>` would be visited element by element,
/// and its [`DType`] is checked. It derefs to a slice and is made from a `Vec` for nothing.
#[derive(Clone, PartialEq)]
pub struct Buffer<T>(Vec<T>);

impl<T> Buffer<T> {
    /// The elements.
    pub fn into_vec(self) -> Vec<T> {
        self.0
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Self(elements)
    }
}

impl<T> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Self(elements.into_iter().collect())
    }
}

impl<T> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.0
    }
}

impl<T> fmt::Debug for Buffer<T> {
    /// Without the elements, of which there can be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer<{}>[{}]", std::any::type_name::<T>(), self.0.len())
    }
}

/// A number that a [`Buffer`] can hold.
pub trait Element:
    sealed::Sealed + bytemuck::Pod + Send + Sync + Serialize + DeserializeOwned + JsonSchema + fmt::Debug + 'static
{
    /// The type as a tensor has it.
    const DTYPE: DType;
    /// How a [`Buffer`] of this type announces itself to the tensor codec through serde's data model.
    #[doc(hidden)]
    const BUFFER: &'static str;
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! elements {
    ($($type:ident $dtype:ident)*) => {$(
        impl sealed::Sealed for $type {}
        impl Element for $type {
            const DTYPE: DType = DType::$dtype;
            const BUFFER: &'static str = concat!("tower_kernels::Buffer<", stringify!($type), ">");
        }
    )*};
}
elements! { u8 U8 u32 U32 u64 U64 i32 I32 i64 I64 f32 F32 f64 F64 }

/// The dtype of the [`Buffer`] that serde announces by this name.
pub(super) fn announced(name: &str) -> Option<DType> {
    [
        (u8::BUFFER, DType::U8),
        (u32::BUFFER, DType::U32),
        (u64::BUFFER, DType::U64),
        (i32::BUFFER, DType::I32),
        (i64::BUFFER, DType::I64),
        (f32::BUFFER, DType::F32),
        (f64::BUFFER, DType::F64),
    ]
    .into_iter()
    .find_map(|(this, dtype)| (this == name).then_some(dtype))
}

/// Text formats get a sequence, binary ones a newtype over the little-endian bytes.
impl<T: Element> Serialize for Buffer<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_seq(&self.0)
        } else {
            serializer.serialize_newtype_struct(T::BUFFER, &LittleEndian(&self.0))
        }
    }
}

struct LittleEndian<'a, T>(&'a [T]);

impl<T: Element> Serialize for LittleEndian<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytemuck::cast_slice(self.0))
    }
}

impl<'de, T: Element> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_seq(Elements(PhantomData)).map(Self)
        } else {
            deserializer.deserialize_newtype_struct(T::BUFFER, RawBytes::new()).map(Self)
        }
    }
}

struct Elements<T>(PhantomData<T>);

impl<'de, T: Element> Visitor<'de> for Elements<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an array of {}", T::DTYPE)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
        // Grown as elements arrive, whatever length is claimed.
        let mut elements = Vec::new();
        while let Some(element) = seq.next_element()? {
            elements.push(element);
        }
        Ok(elements)
    }
}

/// Reads the little-endian bytes of an array.
pub(super) struct RawBytes<T>(PhantomData<T>);

impl<T> RawBytes<T> {
    pub(super) fn new() -> Self {
        Self(PhantomData)
    }
}

impl<'de, T: Element> DeserializeSeed<'de> for RawBytes<T> {
    type Value = Vec<T>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_bytes(self)
    }
}

impl<'de, T: Element> Visitor<'de> for RawBytes<T> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the bytes of an array of {}", T::DTYPE)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<T>, D::Error> {
        deserializer.deserialize_bytes(self)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Vec<T>, E> {
        if bytes.len().is_multiple_of(size_of::<T>()) {
            Ok(bytemuck::pod_collect_to_vec(bytes))
        } else {
            Err(E::invalid_length(bytes.len(), &self))
        }
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
        schema.insert("x-dtype".into(), T::DTYPE.as_str().into());
        schema
    }
}
