//! Named tensors: a request's or response's data as raw little-endian elements, row-major.

use std::fmt;

use bytes::Bytes;

use crate::buffer::DType;
use crate::request::limits::{InvalidName, MAX_RANK, MAX_TENSORS, check_name};

/// A dense array: element type, shape, and the elements' bytes, little-endian and row-major.
#[derive(Clone, PartialEq, Eq)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

impl Tensor {
    /// Creates a tensor over `data`, which is neither copied nor inspected.
    ///
    /// # Errors
    /// [`TensorError::Size`] if the shape's elements do not take exactly `data.len()` bytes, and [`TensorError::Rank`] for more
    /// than [`MAX_RANK`] dimensions.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Result<Self, TensorError> {
        if shape.len() > MAX_RANK {
            return Err(TensorError::Rank { rank: shape.len() });
        }
        let need = shape.iter().try_fold(dtype.size(), |bytes, &side| bytes.checked_mul(side));
        if need == Some(data.len()) {
            Ok(Self { dtype, shape, data })
        } else {
            Err(TensorError::Size { dtype, shape, bytes: data.len() })
        }
    }

    /// Returns the type of the elements.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Returns the length of each dimension; empty for a scalar.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Returns the bytes of the elements.
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

/// The error of an invalid tensor or set of tensors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The shape does not match the size of the data.
    #[error("{dtype} of shape {shape:?} does not take the {bytes} bytes that are there")]
    Size {
        /// The element type.
        dtype: DType,
        /// The shape.
        shape: Vec<usize>,
        /// The size of the data in bytes.
        bytes: usize,
    },
    /// Too many dimensions.
    #[error("{rank} dimensions, and {MAX_RANK} is the most")]
    Rank {
        /// The number of dimensions.
        rank: usize,
    },
    /// Two tensors have the same name.
    #[error("two tensors are named `{name}`")]
    Duplicate {
        /// The name.
        name: String,
    },
    /// There are more tensors than a request or a response may have.
    #[error("there are more than {MAX_TENSORS} tensors, and {MAX_TENSORS} is the most")]
    TooMany,
    /// The name of a tensor is invalid.
    #[error("the name of a tensor is wrong: {0}")]
    Name(#[from] InvalidName),
}

/// Up to [`MAX_TENSORS`] tensors by name, in the order they were inserted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors(Storage);

/// No larger than a `Vec`, as every layer moves the request.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Storage {
    /// Few enough that a linear search is fastest.
    Few(Vec<(String, Tensor)>),
    Many(Box<Many>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Many {
    all: Vec<(String, Tensor)>,
    /// Indices into `all`, in the order of the names.
    by_name: Vec<u16>,
}

impl Default for Storage {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

const _: () = assert!(size_of::<Tensors>() == size_of::<Vec<()>>());

/// Up to this many tensors are searched linearly.
const FEW: usize = 8;

// `by_name` has indices of 16 bits.
const _: () = assert!(MAX_TENSORS <= u16::MAX as usize);

impl Tensors {
    /// Creates an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Inserts a tensor.
    ///
    /// # Errors
    /// [`TensorError::Duplicate`] if the name is taken, [`TensorError::Name`] if it is
    /// [invalid](crate::request::check_name), and [`TensorError::TooMany`] if there are [`MAX_TENSORS`] already.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<(), TensorError> {
        if self.all().len() >= MAX_TENSORS {
            return Err(TensorError::TooMany);
        }
        let name = name.into();
        check_name(&name)?;
        match (self.position_of(&name), &mut self.0) {
            (Ok(_), _) => return Err(TensorError::Duplicate { name }),
            (Err(_), Storage::Few(all)) => {
                all.push((name, tensor));
                if all.len() > FEW {
                    let all = std::mem::take(all);
                    let mut by_name: Vec<u16> = (0..all.len() as u16).collect();
                    by_name.sort_unstable_by_key(|&at| all[usize::from(at)].0.as_str());
                    self.0 = Storage::Many(Box::new(Many { all, by_name }));
                }
            }
            (Err(position), Storage::Many(many)) => {
                many.by_name.insert(position, many.all.len() as u16);
                many.all.push((name, tensor));
            }
        }
        Ok(())
    }

    fn all(&self) -> &[(String, Tensor)] {
        match &self.0 {
            Storage::Few(all) => all,
            Storage::Many(many) => &many.all,
        }
    }

    /// Returns the tensor with this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.position_of(name).ok().map(|at| &self.all()[at].1)
    }

    /// Returns the index in `all` of the tensor with this name, or else its position in the order of the names.
    fn position_of(&self, name: &str) -> Result<usize, usize> {
        match &self.0 {
            Storage::Few(all) => all.iter().position(|(this, _)| this == name).ok_or(0),
            Storage::Many(many) => {
                let Many { all, by_name } = &**many;
                let found = by_name.binary_search_by(|&at| all[usize::from(at)].0.as_str().cmp(name));
                found.map(|index| usize::from(by_name[index]))
            }
        }
    }

    /// Iterates over the tensors in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.all().iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// Returns a copy with memory of its own: tensors can be slices of a larger body, or lie in pinned memory.
    pub(crate) fn copied(&self) -> Self {
        let copy = |(name, tensor): (&str, &Tensor)| {
            let data = Bytes::copy_from_slice(&tensor.data);
            (name.to_owned(), Tensor { dtype: tensor.dtype, shape: tensor.shape.clone(), data })
        };
        let all = self.iter().map(copy).collect();
        Self(match &self.0 {
            Storage::Few(_) => Storage::Few(all),
            Storage::Many(many) => Storage::Many(Box::new(Many { all, by_name: many.by_name.clone() })),
        })
    }

    /// Returns the size of all tensors' elements in bytes.
    pub fn byte_len(&self) -> usize {
        self.all().iter().map(|(_, tensor)| tensor.data.len()).sum()
    }

    /// Returns the size in bytes of the tensors that a decoded input has to copy, because they are not aligned.
    pub(crate) fn bytes_to_copy(&self) -> usize {
        let is_aligned = |tensor: &Tensor| tensor.data.as_ptr().addr().is_multiple_of(tensor.dtype.size());
        self.all().iter().filter(|(_, tensor)| !is_aligned(tensor)).map(|(_, tensor)| tensor.data.len()).sum()
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

    #[test]
    fn tensors_are_found_by_name_however_many_there_are_and_kept_in_order() {
        let one = |value: u8| Tensor::new(DType::U8, vec![], Bytes::copy_from_slice(&[value])).unwrap();
        let mut tensors = Tensors::new();
        // In an order that is neither that of the alphabet nor its reverse.
        let names: Vec<String> = (0..MAX_TENSORS).map(|n| format!("t{}", n * 97 % MAX_TENSORS)).collect();
        for (index, name) in names.iter().enumerate() {
            assert!(tensors.get(name).is_none());
            tensors.insert(name, one(index as u8)).unwrap();
            let duplicate = Err(TensorError::Duplicate { name: name.clone() });
            if index + 1 < MAX_TENSORS {
                assert_eq!(tensors.insert(name, one(0)), duplicate);
            }
            for (index, name) in names[..=index].iter().enumerate() {
                assert_eq!(tensors.get(name), Some(&one(index as u8)), "{name}");
            }
        }
        assert_eq!(tensors.insert("more", one(0)), Err(TensorError::TooMany));
        assert!(tensors.iter().map(|(name, _)| name).eq(names.iter().map(String::as_str)));
        assert!(tensors == tensors.copied());
    }

    #[test]
    fn the_name_of_a_tensor_is_short_and_visible() {
        let tensor = || Tensor::new(DType::U8, vec![0], Bytes::new()).unwrap();
        for name in ["", "a\nb", &"x".repeat(129)] {
            let error = Tensors::new().insert(name, tensor()).unwrap_err();
            assert!(matches!(error, TensorError::Name(_)) && error.to_string().len() < 100, "{error}");
        }
    }
}
