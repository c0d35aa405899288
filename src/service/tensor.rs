//! Named tensors: a request's or response's data as raw little-endian elements, row-major.

use std::fmt;

use bytes::Bytes;

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
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl DType {
    /// Bytes per element.
    pub const fn size(self) -> usize {
        match self {
            Self::Bool | Self::U8 => 1,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The name as numpy has it: `"bool"`, `"uint8"`, `"float32"` and so on.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Bool => "bool",
            Self::U8 => "uint8",
            Self::U32 => "uint32",
            Self::U64 => "uint64",
            Self::I32 => "int32",
            Self::I64 => "int64",
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

/// A dense array: element type, shape, and the elements' bytes, little-endian and row-major.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// A tensor over `data`, which is neither copied nor looked into.
    ///
    /// # Errors
    /// [`TensorError::Size`] where the shape's elements do not take exactly `data.len()` bytes, whatever the shape
    /// claims; nothing is ever allocated from a claim. [`TensorError::Rank`] past 8 dimensions.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        if shape.len() > 8 {
            return Err(TensorError::Rank { rank: shape.len() });
        }
        let need = shape.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side));
        if need == Some(data.len()) {
            Ok(Self { dtype, shape, data })
        } else {
            Err(TensorError::Size { dtype, shape, bytes: data.len() })
        }
    }

    /// The type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The length of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The elements' bytes.
    pub fn data(&self) -> &Bytes {
        &self.data
    }
}

impl fmt::Debug for Tensor {
    /// Without the data, which can be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tensor").field("dtype", &self.dtype).field("shape", &self.shape).finish_non_exhaustive()
    }
}

/// Why bytes are not the tensor they are said to be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The shape and the data disagree.
    #[error("{dtype} of shape {shape:?} does not take the {bytes} bytes that are there")]
    Size {
        /// The element type claimed.
        dtype: DType,
        /// The shape claimed.
        shape: Vec<usize>,
        /// The bytes that came.
        bytes: usize,
    },
    /// Too many dimensions.
    #[error("{rank} dimensions, and 8 is the most")]
    Rank {
        /// The dimensions claimed.
        rank: usize,
    },
    /// Two tensors of one name.
    #[error("two tensors are named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
}

/// Tensors by name, in the order they were added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors(Vec<(String, Tensor)>);

impl Tensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// [`TensorError::Duplicate`] where the name is taken.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<(), TensorError> {
        let name = name.into();
        if self.get(&name).is_some() {
            return Err(TensorError::Duplicate { name });
        }
        self.0.push((name, tensor));
        Ok(())
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.iter().find(|(this, _)| *this == name).map(|(_, tensor)| tensor)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.0.iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A copy with memory of its own: tensors can be parts of something larger, or lie in memory that others need.
    pub(crate) fn copied(&self) -> Self {
        let copy = |(name, tensor): (&str, &Tensor)| {
            let data = Bytes::copy_from_slice(&tensor.data);
            (name.to_owned(), Tensor { dtype: tensor.dtype, shape: tensor.shape.clone(), data })
        };
        Self(self.iter().map(copy).collect())
    }

    /// The bytes of all their elements.
    pub fn byte_len(&self) -> usize {
        self.0.iter().map(|(_, tensor)| tensor.data.len()).sum()
    }

    /// The bytes of those that a decoded input cannot share, as they do not lie as their elements have to.
    pub(crate) fn to_copy(&self) -> usize {
        let is_aligned = |tensor: &Tensor| tensor.data.as_ptr().addr().is_multiple_of(tensor.dtype.size());
        self.0.iter().filter(|(_, tensor)| !is_aligned(tensor)).map(|(_, tensor)| tensor.data.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shape_that_overflows_or_lies_is_refused() {
        for shape in [vec![usize::MAX, usize::MAX], vec![1 << 28], vec![3], vec![]] {
            let tensor = Tensor::new(DType::F32, shape.clone(), Bytes::from_static(&[0; 10]));
            assert!(matches!(tensor, Err(TensorError::Size { .. })), "{shape:?}");
        }
        assert!(Tensor::new(DType::F64, vec![0, usize::MAX], Bytes::new()).is_ok());
        assert!(Tensor::new(DType::U8, vec![1; 9], Bytes::from_static(&[0])).is_err());
    }
}
