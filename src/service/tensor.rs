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
    /// A tensor over `data`, which is neither copied nor looked into.
    ///
    /// # Errors
    /// [`TensorError::Size`] where the shape's elements do not take exactly `data.len()` bytes, whatever the shape
    /// claims; nothing is ever allocated from a claim. [`TensorError::Rank`] past [`MAX_RANK`] dimensions.
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
    #[error("{rank} dimensions, and {MAX_RANK} is the most")]
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
    /// More tensors than a request or a response may have.
    #[error("there are more than {MAX_TENSORS} tensors, and {MAX_TENSORS} is the most")]
    TooMany,
    /// A tensor cannot have this name.
    #[error("the name of a tensor is wrong: {0}")]
    Name(#[from] InvalidName),
}

/// Tensors by name, in the order they were added: at most [`MAX_TENSORS`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tensors(Held);

/// No larger than a `Vec`, as every layer moves the request that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Held {
    /// So few that to look at each is fastest.
    Few(Vec<(String, Tensor)>),
    Many(Box<Many>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Many {
    all: Vec<(String, Tensor)>,
    /// Where the names are in `all`, in alphabetical order.
    by_name: Vec<u16>,
}

impl Default for Held {
    fn default() -> Self {
        Self::Few(Vec::new())
    }
}

const _: () = assert!(size_of::<Tensors>() == size_of::<Vec<()>>());

/// Tensors that are found by looking at each.
const FEW: usize = 8;

// Places are kept in `u16`.
const _: () = assert!(MAX_TENSORS <= u16::MAX as usize);

impl Tensors {
    /// No tensors.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tensor.
    ///
    /// # Errors
    /// [`TensorError::Duplicate`] where the name is taken, [`TensorError::Name`] where it is
    /// [no name](crate::request::check_name), and [`TensorError::TooMany`] where there are [`MAX_TENSORS`] already.
    pub fn insert(&mut self, name: impl Into<String>, tensor: Tensor) -> Result<(), TensorError> {
        if self.all().len() >= MAX_TENSORS {
            return Err(TensorError::TooMany);
        }
        let name = name.into();
        check_name(&name)?;
        match (self.place_of(&name), &mut self.0) {
            (Ok(_), _) => return Err(TensorError::Duplicate { name }),
            (Err(_), Held::Few(all)) => {
                all.push((name, tensor));
                if all.len() > FEW {
                    let all = std::mem::take(all);
                    let mut by_name: Vec<u16> = (0..all.len() as u16).collect();
                    by_name.sort_unstable_by_key(|&at| all[usize::from(at)].0.as_str());
                    self.0 = Held::Many(Box::new(Many { all, by_name }));
                }
            }
            (Err(place), Held::Many(many)) => {
                many.by_name.insert(place, many.all.len() as u16);
                many.all.push((name, tensor));
            }
        }
        Ok(())
    }

    fn all(&self) -> &[(String, Tensor)] {
        match &self.0 {
            Held::Few(all) => all,
            Held::Many(many) => &many.all,
        }
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.place_of(name).ok().map(|at| &self.all()[at].1)
    }

    /// Where the tensor of this name is in `all`, or else where it belongs among them by name.
    fn place_of(&self, name: &str) -> Result<usize, usize> {
        match &self.0 {
            Held::Few(all) => all.iter().position(|(this, _)| this == name).ok_or(0),
            Held::Many(many) => {
                let Many { all, by_name } = &**many;
                let found = by_name.binary_search_by(|&at| all[usize::from(at)].0.as_str().cmp(name));
                found.map(|index| usize::from(by_name[index]))
            }
        }
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &Tensor)> {
        self.all().iter().map(|(name, tensor)| (name.as_str(), tensor))
    }

    /// A copy with memory of its own: tensors can be parts of something larger, or lie in memory that others need.
    pub(crate) fn copied(&self) -> Self {
        let copy = |(name, tensor): (&str, &Tensor)| {
            let data = Bytes::copy_from_slice(&tensor.data);
            (name.to_owned(), Tensor { dtype: tensor.dtype, shape: tensor.shape.clone(), data })
        };
        let all = self.iter().map(copy).collect();
        Self(match &self.0 {
            Held::Few(_) => Held::Few(all),
            Held::Many(many) => Held::Many(Box::new(Many { all, by_name: many.by_name.clone() })),
        })
    }

    /// The bytes of all their elements.
    pub fn byte_len(&self) -> usize {
        self.all().iter().map(|(_, tensor)| tensor.data.len()).sum()
    }

    /// The bytes of those that a decoded input cannot share, as they do not lie as their elements have to.
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
