//! [`Storage`]: where a [`Buffer`](super::Buffer) has its elements, and how they are shared with tensors uncopied.

use std::sync::Arc;

use bytes::Bytes;

use super::Element;
use super::huge_pages::Pages;
#[cfg(feature = "cuda")]
use crate::cuda::Pinned;

/// Bytes from which on pages of its own are no slower than what an allocator finds among what was freed.
const LARGE: usize = 4 << 20;

/// Bytes up to which a copy costs no more than what it takes to share.
const SMALL: usize = 4 << 10;

/// Shared by its clones, and by tensors, until it is written to: then it is copied, unless nobody else has it.
pub(super) enum Storage<T> {
    /// At most [`SMALL`], and copied where others would be shared.
    Small(Vec<T>),
    Vec(Arc<Vec<T>>),
    Pages(Arc<Pages>),
    /// What came as a tensor: aligned for `T`, and perhaps a part of something larger. It is never written to.
    Bytes(Bytes),
    /// Pinned for a device, which shares it too while it copies.
    #[cfg(feature = "cuda")]
    Pinned(Pinned),
}

impl<T: Element> Storage<T> {
    /// See [`Buffer::zeroed`](super::Buffer::zeroed).
    pub(super) fn zeroed(len: usize) -> Self {
        Self::zeroed_from(len, LARGE)
    }

    /// See [`Buffer::zeroed_with_others`](super::Buffer::zeroed_with_others).
    pub(super) fn zeroed_with_others(len: usize) -> Self {
        Self::zeroed_from(len, LARGE / 8)
    }

    fn zeroed_from(len: usize, large: usize) -> Self {
        let bytes = len.checked_mul(size_of::<T>()).filter(|bytes| *bytes >= large);
        match bytes.and_then(Pages::zeroed) {
            Some(pages) => Self::Pages(Arc::new(pages)),
            None => vec![T::zeroed(); len].into(),
        }
    }

    /// The elements that these bytes are, where they lie as `T` has to.
    pub(super) fn of_bytes(bytes: Bytes) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(&bytes).is_ok().then_some(Self::Bytes(bytes))
    }

    fn copy_of(elements: &[T]) -> Self {
        let mut copy = Self::zeroed(elements.len());
        copy.as_mut_slice().copy_from_slice(elements);
        copy
    }

    pub(super) fn as_slice(&self) -> &[T] {
        match self {
            Self::Small(elements) => elements,
            Self::Vec(elements) => elements,
            Self::Pages(pages) => bytemuck::cast_slice(pages),
            Self::Bytes(bytes) => bytemuck::cast_slice(bytes),
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => bytemuck::cast_slice(bytes),
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        let shared = match self {
            // A `Vec` in an `Arc` sees to it itself.
            Self::Small(_) | Self::Vec(_) => false,
            Self::Pages(pages) => Arc::strong_count(pages) > 1,
            Self::Bytes(_) => true,
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => bytes.get_mut().is_none(),
        };
        if shared {
            *self = Self::copy_of(self.as_slice());
        }
        match self {
            Self::Small(elements) => elements,
            Self::Vec(elements) => Arc::<Vec<T>>::make_mut(elements),
            Self::Pages(pages) => bytemuck::cast_slice_mut(Arc::get_mut(pages).expect("just seen not to be shared")),
            Self::Bytes(_) => unreachable!("just copied"),
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => bytemuck::cast_slice_mut(bytes.get_mut().expect("just seen not to be shared")),
        }
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::Small(elements) => elements,
            Self::Vec(elements) => Arc::unwrap_or_clone(elements),
            _ => self.as_slice().to_vec(),
        }
    }

    /// The elements as bytes, uncopied. `None` where to copy them costs less.
    pub(super) fn shared(&self) -> Option<Bytes> {
        match self {
            Self::Small(_) => None,
            Self::Vec(elements) => Some(Bytes::from_owner(SharedVec(Arc::clone(elements)))),
            Self::Pages(pages) => Some(Bytes::from_owner(SharedPages(Arc::clone(pages)))),
            Self::Bytes(bytes) => Some(bytes.clone()),
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => Some(Bytes::from_owner(bytes.clone())),
        }
    }

    /// The elements as bytes, uncopied.
    #[cfg_attr(
        not(any(feature = "axum", feature = "cuda", feature = "hyper")),
        allow(dead_code, reason = "for bodies of HTTP, and parts of arrays")
    )]
    pub(super) fn into_bytes(self) -> Bytes {
        match self {
            Self::Small(elements) => Bytes::from_owner(SharedVec(Arc::new(elements))),
            Self::Vec(elements) => Bytes::from_owner(SharedVec(elements)),
            Self::Pages(pages) => Bytes::from_owner(SharedPages(pages)),
            Self::Bytes(bytes) => bytes,
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => Bytes::from_owner(bytes),
        }
    }
}

impl<T> From<Vec<T>> for Storage<T> {
    fn from(elements: Vec<T>) -> Self {
        if size_of_val(elements.as_slice()) <= SMALL { Self::Small(elements) } else { Self::Vec(Arc::new(elements)) }
    }
}

impl<T: Clone> Clone for Storage<T> {
    fn clone(&self) -> Self {
        match self {
            Self::Small(elements) => Self::Small(elements.clone()),
            Self::Vec(elements) => Self::Vec(Arc::clone(elements)),
            Self::Pages(pages) => Self::Pages(Arc::clone(pages)),
            Self::Bytes(bytes) => Self::Bytes(bytes.clone()),
            #[cfg(feature = "cuda")]
            Self::Pinned(bytes) => Self::Pinned(bytes.clone()),
        }
    }
}

struct SharedVec<T>(Arc<Vec<T>>);

impl<T: Element> AsRef<[u8]> for SharedVec<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

struct SharedPages(Arc<Pages>);

impl AsRef<[u8]> for SharedPages {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}
