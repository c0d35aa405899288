//! [`Payload`]: the data of a request or a response.

use std::any::Any;
use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::codec::{read_usual_json, write_json};
use super::{IntoJson, PayloadError, Tensors};
use crate::panics::drop_caught;

/// The data of a request or a response: JSON, tensors, or a typed value. A response has the encoding of its request.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Payload {
    /// A JSON document.
    Json(Bytes),
    /// Named tensors.
    Tensors(Tensors),
    /// A value of the kernel's own `Input` or `Output` type, without a codec.
    Typed(Typed),
}

impl Payload {
    /// Creates a payload from the text or bytes of a JSON document, which is parsed when the request is run. Borrowed data is
    /// copied, owned data is moved.
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

    /// Creates a payload from a value, as a JSON document.
    ///
    /// NaN and infinities become `null`, as `serde_json` writes them.
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
    /// [`PayloadError::Encode`] if the value cannot be written as JSON, such as a map whose keys are not strings.
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, PayloadError> {
        match write_json(value) {
            Ok(document) => Ok(Self::Json(document.into())),
            Err(error) => Err(PayloadError::Encode { type_name: std::any::type_name::<T>(), error: error.into() }),
        }
    }

    /// Decodes a JSON payload into a `T`, which may borrow from it.
    ///
    /// # Errors
    /// [`PayloadError::NotJson`] for tensors and typed values, and [`PayloadError::Decode`], which names the field, for JSON
    /// that is not a `T`.
    pub fn deserialize<'a, T: Deserialize<'a>>(&'a self) -> Result<T, PayloadError> {
        let document = match self {
            Self::Json(document) => document,
            Self::Tensors(_) => return Err(PayloadError::NotJson { holds: "tensors" }),
            Self::Typed(typed) => return Err(PayloadError::NotJson { holds: typed.type_name() }),
        };
        if let Ok(value) = read_usual_json(document) {
            return Ok(value);
        }
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

    /// Creates a payload from a value of the kernel's own type.
    pub fn typed<T: Any + Send + Sync>(value: T) -> Self {
        Self::Typed(Typed::new(value))
    }

    /// Returns the size of the encoded data in bytes; `None` for a typed value.
    #[inline]
    pub fn byte_len(&self) -> Option<usize> {
        match self {
            Self::Json(bytes) => Some(bytes.len()),
            Self::Tensors(tensors) => Some(tensors.byte_len()),
            Self::Typed(_) => None,
        }
    }

    /// Returns the typed value if its type is `T`.
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

/// A typed value, which clones share.
///
/// A panic of the value's `Drop` is caught and logged, as it can be dropped on the threads of workers and servers.
#[derive(Clone)]
pub struct Typed {
    /// `None` only during the drop.
    value: Option<Arc<dyn Any + Send + Sync>>,
    type_name: &'static str,
}

impl Typed {
    /// Wraps a value.
    pub fn new<T: Any + Send + Sync>(value: T) -> Self {
        Self { value: Some(Arc::new(value)), type_name: std::any::type_name::<T>() }
    }

    /// Returns the value if its type is `T`.
    pub fn downcast<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        self.value.clone()?.downcast().ok()
    }

    /// Returns the name of the value's type.
    pub fn type_name(&self) -> &'static str {
        self.type_name
    }

    pub(crate) fn get(&self) -> &(dyn Any + Send + Sync) {
        self.value.as_deref().expect("the value is present until the drop")
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

/// The encoding of an output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Tensors,
    Typed,
}
