//! [`Storage`]: where a [`Buffer`](super::Buffer) has its elements, and how they are shared with tensors uncopied.

use std::sync::Arc;

use bytes::Bytes;

use super::Element;
#[cfg(feature = "cuda")]
use super::ExternalMemory;
use super::huge_pages::Pages;

/// Bytes from which on a map of huge pages is no slower than memory that the allocator has kept.
const LARGE: usize = 4 << 20;

/// Bytes up to which a copy costs no more than sharing.
const SMALL: usize = 4 << 10;

/// The memory of a buffer. Clones and tensors share it until it is written to; it is copied then, unless it is not shared.
pub(super) enum Storage<T> {
    /// At most [`SMALL`] bytes, copied rather than shared.
    Small(Vec<T>),
    Vec(Arc<Vec<T>>),
    Pages(Arc<Pages>),
    /// A tensor of a request: aligned for `T`, perhaps part of a larger allocation, and never written to.
    Bytes(Bytes),
    /// Memory of the device runtime.
    #[cfg(feature = "cuda")]
    External(External),
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
            // glibc's `calloc` of small memory takes several times as long as its `malloc`.
            None if len <= SMALL / size_of::<T>() => {
                let mut elements = Vec::with_capacity(len);
                elements.resize(len, T::zeroed());
                Self::Small(elements)
            }
            None => vec![T::zeroed(); len].into(),
        }
    }

    /// The elements in these bytes; `None` where they are not aligned for `T`.
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
            Self::External(memory) => bytemuck::cast_slice(memory.as_ref()),
        }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [T] {
        let shared = match self {
            // `Arc::make_mut` copies a shared `Vec`.
            Self::Small(_) | Self::Vec(_) => false,
            Self::Pages(pages) => Arc::strong_count(pages) > 1,
            Self::Bytes(_) => true,
            #[cfg(feature = "cuda")]
            Self::External(memory) => memory.0.get_mut().is_none(),
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
            Self::External(memory) => bytemuck::cast_slice_mut(memory.0.get_mut().expect("just seen not to be shared")),
        }
    }

    pub(super) fn into_vec(self) -> Vec<T> {
        match self {
            Self::Small(elements) => elements,
            Self::Vec(elements) => Arc::unwrap_or_clone(elements),
            _ => self.as_slice().to_vec(),
        }
    }

    /// The elements as bytes that share this memory. `None` where to copy them costs less.
    pub(super) fn shared(&self) -> Option<Bytes> {
        match self {
            Self::Small(_) => None,
            Self::Vec(elements) => Some(Bytes::from_owner(SharedVec(Arc::clone(elements)))),
            Self::Pages(pages) => Some(Bytes::from_owner(SharedPages(Arc::clone(pages)))),
            Self::Bytes(bytes) => Some(bytes.clone()),
            #[cfg(feature = "cuda")]
            Self::External(memory) => Some(Bytes::from_owner(memory.clone())),
        }
    }

    /// The elements as bytes, without a copy.
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
            Self::External(memory) => Bytes::from_owner(memory),
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
            Self::External(memory) => Self::External(memory.clone()),
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

/// A handle to memory of the device runtime.
#[cfg(feature = "cuda")]
pub(super) struct External(pub(super) Box<dyn ExternalMemory>);

#[cfg(feature = "cuda")]
impl Clone for External {
    fn clone(&self) -> Self {
        Self(self.0.share())
    }
}

#[cfg(feature = "cuda")]
impl AsRef<[u8]> for External {
    fn as_ref(&self) -> &[u8] {
        self.0.as_slice()
    }
}
