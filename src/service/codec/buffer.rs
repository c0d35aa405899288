//! [`Buffer`]: the one array type that kernels take and give, whatever the encoding.

use std::fmt;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, DeserializeOwned, DeserializeSeed, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::deadline::read_all;
use super::storage::Storage;
use super::{memory, zero_copy};
#[cfg(feature = "cuda")]
use crate::cuda::Pinned;
use crate::service::DType;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian, and so are all hosts that CUDA runs on");

/// A 1-D array of numbers as a kernel's input or output.
///
/// In JSON it is an array. As a tensor it is one piece of memory, its [`DType`] is checked, and it is not copied: an
/// input is the tensor's own memory where that is aligned for `T`, and so keeps what it is a part of, and a tensor of
/// an output is the buffer's. A `Vec<T>` in its place would be visited element by element.
///
/// It derefs to a slice and is made from a `Vec` for nothing. A kernel fills one from [`Buffer::zeroed`] where its
/// output is large, as that memory is faster to have. Clones share their elements (from 4 KiB on) until one of them is
/// written to, which is looked at at each mutable deref: take the slice once and not for each element.
#[derive(Clone)]
pub struct Buffer<T>(Storage<T>);

impl<T: Element> Buffer<T> {
    /// So many zeros, to be overwritten.
    ///
    /// From 4 MiB on they are a map of their own, in huge pages where the system has them (Linux with transparent huge
    /// pages at `madvise` or `always`), which cost a fifth of what small pages do, or less. They are fetched as they
    /// are first written, by the thread that does. The last one is whole, so an array can take up to 2 MiB more than it
    /// has elements for. Where the system has no map to give, they are a `Vec`.
    ///
    /// # Panics
    /// As `vec!`, which has the last word on memory that is not there.
    pub fn zeroed(len: usize) -> Self {
        Self(Storage::zeroed(len))
    }

    /// As [`zeroed`](Self::zeroed), one of several arrays of an answer. They are in huge pages from 512 KiB
    /// on: an allocator keeps a freed array for the next to come, but gives several back to the system, and fetches
    /// them again in small pages.
    pub(crate) fn zeroed_with_others(len: usize) -> Self {
        Self(Storage::zeroed_with_others(len))
    }

    /// The elements: the `Vec` that it was made from, where no clone has it too, else a copy.
    pub fn into_vec(self) -> Vec<T> {
        self.0.into_vec()
    }

    /// As many elements as fit into these bytes, which begin where an element may.
    #[cfg(feature = "cuda")]
    pub(crate) fn from_pinned(bytes: Pinned) -> Self {
        Self(Storage::Pinned(bytes))
    }

    /// As several arrays of these lengths, one after the other, that share the memory of this one. Together they are as
    /// long, or what is left over is in none.
    ///
    /// # Panics
    /// Where they are longer.
    #[cfg(feature = "cuda")]
    pub(crate) fn into_parts(self, lengths: &[usize]) -> Vec<Self> {
        if lengths.len() == 1 {
            return vec![self];
        }
        let bytes = self.0.into_bytes();
        let mut start = 0;
        let part = |&len: &usize| {
            let end = start + len * size_of::<T>();
            let part = bytes.slice(start..end);
            start = end;
            // An empty part is not a place in the whole.
            if part.is_empty() {
                Self::default()
            } else {
                Self(Storage::of_bytes(part).expect("elements of the whole"))
            }
        };
        lengths.iter().map(part).collect()
    }

    /// The elements as bytes, uncopied.
    #[cfg_attr(not(any(feature = "axum", feature = "hyper")), allow(dead_code, reason = "for bodies of HTTP"))]
    pub(crate) fn into_bytes(self) -> Bytes {
        self.0.into_bytes()
    }
}

impl<T> Default for Buffer<T> {
    fn default() -> Self {
        Vec::new().into()
    }
}

impl<T> From<Vec<T>> for Buffer<T> {
    fn from(elements: Vec<T>) -> Self {
        Self(elements.into())
    }
}

impl<T> FromIterator<T> for Buffer<T> {
    fn from_iter<I: IntoIterator<Item = T>>(elements: I) -> Self {
        Vec::from_iter(elements).into()
    }
}

impl<T: Element> Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        self.0.as_slice()
    }
}

impl<T: Element> DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        self.0.as_mut_slice()
    }
}

impl<T: Element> PartialEq for Buffer<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Element> fmt::Debug for Buffer<T> {
    /// Without the elements, of which there can be millions.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer<{}>[{}]", std::any::type_name::<T>(), self.len())
    }
}

/// A number that a [`Buffer`] can hold.
pub trait Element:
    sealed::Sealed
    + bytemuck::Pod
    + PartialEq
    + Send
    + Sync
    + Serialize
    + DeserializeOwned
    + JsonSchema
    + fmt::Debug
    + 'static
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
            serializer.collect_seq(self.iter())
        } else {
            serializer.serialize_newtype_struct(T::BUFFER, &LittleEndian(self))
        }
    }
}

struct LittleEndian<'a, T>(&'a Buffer<T>);

impl<T: Element> Serialize for LittleEndian<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes = bytemuck::cast_slice(self.0);
        match self.0.0.shared() {
            Some(shared) => zero_copy::offering(shared, || serializer.serialize_bytes(bytes)),
            None => serializer.serialize_bytes(bytes),
        }
    }
}

impl<'de, T: Element> Deserialize<'de> for Buffer<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_seq(Elements(PhantomData)).map(Self::from)
        } else {
            deserializer.deserialize_newtype_struct(T::BUFFER, RawBytes::new())
        }
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

/// Gives back what an array that has grown has room for, where it is much.
pub(super) fn shrink<T>(elements: &mut Vec<T>) {
    if (elements.capacity() - elements.len()) * size_of::<T>() > 64 << 10 {
        elements.shrink_to_fit();
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

    /// Integers of another type than the array's.
    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Buffer<T>, A::Error> {
        Elements(PhantomData).visit_seq(seq).map(Buffer::from)
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Buffer<T>, E> {
        if !bytes.len().is_multiple_of(size_of::<T>()) {
            return Err(E::invalid_length(bytes.len(), &self));
        }
        if let Some(elements) = zero_copy::owner_of(bytes).and_then(Storage::of_bytes) {
            return Ok(Buffer(elements));
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
            && matches!(T::DTYPE, DType::F32 | DType::F64)
            && let Some(kind) = schema.pointer_mut("/items/type")
        {
            *kind = serde_json::json!(["number", "null"]);
        }
        schema.insert("x-dtype".into(), T::DTYPE.as_str().into());
        schema
    }
}
