//! What a request brings and a response takes back: JSON, tensors, or a typed value as it is.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{IntoJson, PayloadError, Tensors};
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
    /// A JSON document, as text or bytes; it is parsed when the request is run. What is borrowed is copied, what is owned
    /// is moved.
    ///
    /// ```
    /// use tower_kernels::service::Payload;
    ///
    /// let factor = 2.0;
    /// let document = format!(r#"{{"a": {factor}, "x": [1.0], "y": [1.0]}}"#);
    /// let borrowed = Payload::json(&document);
    /// let owned = Payload::json(document);
    /// assert_eq!(borrowed.byte_len(), owned.byte_len());
    /// ```
    pub fn json(document: impl IntoJson) -> Self {
        Self::Json(document.into_json())
    }

    /// The JSON document of a value.
    ///
    /// JSON has no word for NaN and the infinities: they become `null`, as `serde_json` writes them.
    ///
    /// ```
    /// use tower_kernels::service::Payload;
    ///
    /// #[derive(serde::Serialize)]
    /// struct Saxpy<'a> {
    ///     a: f32,
    ///     x: &'a [f32],
    ///     y: &'a [f32],
    /// }
    ///
    /// let payload = Payload::from_serialize(&Saxpy { a: 2.0, x: &[1.0], y: &[1.0] })?;
    /// # assert_eq!(payload.deserialize::<serde_json::Value>()?["a"], 2.0);
    /// # Ok::<(), tower_kernels::service::PayloadError>(())
    /// ```
    ///
    /// # Errors
    /// [`PayloadError::Encode`], where the value has no form in JSON: a map whose keys are not strings, for example.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        match serde_json::to_vec(value) {
            Ok(document) => Ok(Self::Json(document.into())),
            Err(error) => Err(PayloadError::Encode { type_name: std::any::type_name::<T>(), error: error.into() }),
        }
    }

    /// Decodes a JSON payload into a `T`, which may borrow from it.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] for tensors and typed values, which have getters of their own, and
    /// [`PayloadError::Decode`], which names the field, for JSON that is no `T`.
    pub fn deserialize<'a, T: Deserialize<'a>>(&'a self) -> Result<T, PayloadError> {
        let document = match self {
            Self::Json(document) => document,
            Self::Tensors(_) => return Err(PayloadError::NotJson { holds: "tensors" }),
            Self::Typed(typed) => return Err(PayloadError::NotJson { holds: typed.type_name() }),
        };
        let mut json = serde_json::Deserializer::from_slice(document);
        let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
            let path = Some(error.path().to_string()).filter(|path| path != ".");
            (path, error.into_inner())
        });
        let value = value.and_then(|value| json.end().map(|()| value).map_err(|error| (None, error)));
        value.map_err(|(path, error)| PayloadError::Decode {
            type_name: std::any::type_name::<T>(),
            path,
            error: error.into(),
        })
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
