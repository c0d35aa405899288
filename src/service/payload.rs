//! What a request brings and a response takes back: JSON, tensors, or a typed value as it is.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

use super::Tensors;
use crate::panics::drop_caught;

/// The data of a request or a response. A response comes in the form of its request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Payload {
    /// A JSON document.
    Json(Bytes),
    /// Named tensors.
    Tensors(Tensors),
    /// The kernel's own `Input` or `Output`: no codec at all.
    Typed(Typed),
}

impl Payload {
    /// A JSON document, as bytes; it is parsed when the request is run.
    pub fn json(document: impl Into<Bytes>) -> Self {
        Self::Json(document.into())
    }

    /// A value of the kernel's own type.
    pub fn typed<T: Any + Send + Sync>(value: T) -> Self {
        Self::Typed(Typed::new(value))
    }

    /// The bytes of the encoded data; `None` for a typed value.
    #[inline]
    pub fn byte_len(&self) -> Option<usize> {
        match self {
            Self::Json(bytes) => Some(bytes.len()),
            Self::Tensors(tensors) => Some(tensors.byte_len()),
            Self::Typed(_) => None,
        }
    }

    /// The typed value, where this is one of type `T`.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        match self {
            Self::Typed(typed) => typed.downcast(),
            _ => None,
        }
    }

    pub(crate) fn encoding(&self) -> Encoding {
        match self {
            Self::Json(_) => Encoding::Json,
            Self::Tensors(_) => Encoding::Tensors,
            Self::Typed(_) => Encoding::Typed,
        }
    }
}

impl From<Tensors> for Payload {
    fn from(tensors: Tensors) -> Self {
        Self::Tensors(tensors)
    }
}

/// A typed value, shared and not copied when a request or a response is cloned.
///
/// Where the value panics when it is dropped, that is logged and goes no further: it is dropped on the threads of workers
/// and servers as well.
#[derive(Clone)]
pub struct Typed {
    /// `None` only while it is being dropped.
    value: Option<Arc<dyn Any + Send + Sync>>,
    type_name: &'static str,
}

impl Typed {
    /// Wraps a value.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self { value: Some(Arc::new(value)), type_name: std::any::type_name::<T>() }
    }

    /// The value, where its type is `T`.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone()?.downcast().ok()
    }

    /// The name of the value's type.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    pub(crate) fn get(&self) -> &(dyn Any + Send + Sync) {
        self.value.as_deref().expect("it is there until the drop")
    }
}

impl Drop for Typed {
    fn drop(&mut self) {
        if let Some(value) = self.value.take() {
            drop_caught(value, self.type_name);
        }
    }
}

impl fmt::Debug for Typed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Typed<{}>", self.type_name)
    }
}

/// The form that an output is to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Tensors,
    Typed,
}
