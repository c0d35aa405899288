//! [`Buffer`]: the array type of kernels' inputs and outputs, and the memory that it can be in.
//!
//! The codecs of [`service`](crate::service) read and write it, and [`cuda`](crate::cuda) copies it to and from devices;
//! it knows of neither.

mod element;
mod half;
mod huge_pages;
mod storage;

use std::fmt;
use std::ops::{Deref, DerefMut};

use bytes::Bytes;

pub use element::{DType, Element};
pub use half::{Bf16, F16};
#[cfg(feature = "cuda")]
pub(crate) use huge_pages::Pages;
#[cfg(feature = "cuda")]
use storage::External;
use storage::Storage;

#[cfg(target_endian = "big")]
compile_error!("tensors are little-endian, and so are all hosts that CUDA runs on");

/// A one-dimensional array of numbers in a kernel's input or output.
///
/// In JSON it is an array. As a tensor it is contiguous memory, its [`DType`] is checked, and it is not copied: an input
/// shares the memory of the request's tensor where that is aligned for `T` (and keeps all of that memory alive), and the
/// response's tensor shares the memory of the buffer. A `Vec<T>` in its place would be visited element by element.
///
/// It derefs to a slice. Conversion from a `Vec` takes no copy. Large outputs are faster in memory from
/// [`Buffer::zeroed`]. Clones share their elements (from 4 KiB on) until one of them is written to. Each mutable deref
/// checks for that: take the slice once, not for each element.
#[derive(Clone)]
pub struct Buffer<T>(Storage<T>);

impl<T: Element> Buffer<T> {
    /// Allocates `len` zeros.
    ///
    /// From 4 MiB on the memory is an anonymous map of its own, in huge pages where the system has them (Linux with
    /// transparent huge pages at `madvise` or `always`): they cost a fifth of what small pages cost, or less. The thread
    /// that first writes to a page faults it in. The map ends at a whole page, so an array can take up to 2 MiB more than
    /// its elements need. Where the system cannot map huge pages, the memory is a `Vec`.
    ///
    /// # Panics
    /// As `vec!` does, where there is not enough memory.
    pub fn zeroed(len: usize) -> Self {
        Self(Storage::zeroed(len))
    }

    /// As [`zeroed`](Self::zeroed), for one of several arrays of an output: in huge pages from 512 KiB on. An allocator
    /// keeps one freed array for the next request, but returns several to the system and faults them in again page by
    /// page.
    pub(crate) fn zeroed_with_others(len: usize) -> Self {
        Self(Storage::zeroed_with_others(len))
    }

    /// Returns the elements: the `Vec` that the buffer was made from, unless it is shared, or else a copy.
    pub fn into_vec(self) -> Vec<T> {
        self.0.into_vec()
    }

    /// A buffer over memory that the device runtime has allocated, whose bytes are aligned for `T`.
    #[cfg(feature = "cuda")]
    pub(crate) fn from_external(memory: Box<dyn ExternalMemory>) -> Self {
        Self(Storage::External(External(memory)))
    }

    /// A buffer over these bytes, which it shares; `None` where they are not aligned for `T`.
    pub(crate) fn from_bytes(bytes: Bytes) -> Option<Self> {
        Storage::of_bytes(bytes).map(Self)
    }

    /// The elements as bytes that share the buffer's memory; `None` where to copy them costs less.
    pub(crate) fn shared_bytes(&self) -> Option<Bytes> {
        self.0.shared()
    }

    /// Splits the buffer into arrays of these lengths, in order, which share its memory. Elements past the sum of the
    /// lengths are in none of them.
    ///
    /// # Panics
    /// Where the lengths add up to more than the buffer has.
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
            // An empty slice of `Bytes` has no aligned address.
            if part.is_empty() {
                Self::default()
            } else {
                Self::from_bytes(part).expect("a slice at a multiple of the element's size is aligned")
            }
        };
        lengths.iter().map(part).collect()
    }

    /// The elements as bytes, without a copy.
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

/// Host memory of the device runtime that a [`Buffer`] can hold, such as pinned memory.
#[cfg(feature = "cuda")]
pub(crate) trait ExternalMemory: Send + Sync {
    fn as_slice(&self) -> &[u8];

    /// The bytes for writing; `None` while another handle or a device shares them.
    fn get_mut(&mut self) -> Option<&mut [u8]>;

    /// Another handle to the same bytes.
    fn share(&self) -> Box<dyn ExternalMemory>;
}
