//! [`Element`]: the number types that arrays hold, and [`DType`], their names.

use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Bf16, F16};

/// The type of a tensor's elements, all little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DType {
    /// One byte, 0 or 1.
    Bool,
    /// Unsigned 8-bit integer; a 1-D tensor of these also carries a UTF-8 string.
    U8,
    /// Unsigned 32-bit integer.
    U32,
    /// Unsigned 64-bit integer.
    U64,
    /// Signed 32-bit integer.
    I32,
    /// Signed 64-bit integer.
    I64,
    /// IEEE 754 binary16.
    F16,
    /// bfloat16: the upper half of a binary32.
    Bf16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// All types.
    pub(crate) const ALL: [Self; 10] =
        [Self::Bool, Self::U8, Self::U32, Self::U64, Self::I32, Self::I64, Self::F16, Self::Bf16, Self::F32, Self::F64];

    /// Returns the type of this [name](Self::as_str).
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.as_str() == name)
    }

    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::F16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// Whether it is a floating-point type.
    pub(crate) const fn is_float(self) -> bool {
        matches!(self, Self::F16 | Self::Bf16 | Self::F32 | Self::F64)
    }

    /// The name as numpy and ml_dtypes have it: `"bool"`, `"uint8"`, `"bfloat16"` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I32 => "int32",
            Self::I64 => "int64",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        }
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A number type that a [`Buffer`](super::Buffer) can hold.
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
    /// The data type of tensors of this type.
    const DTYPE: DType;
    /// The newtype name by which a [`Buffer`](super::Buffer) of this type is recognized by the tensor codec.
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
elements! { u8 U8 u32 U32 u64 U64 i32 I32 i64 I64 F16 F16 Bf16 Bf16 f32 F32 f64 F64 }
