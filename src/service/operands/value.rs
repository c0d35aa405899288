//! [`OperandValue`]: the types that operands can have.

use std::any::Any;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::service::codec::{decode_json, decode_tensors, decode_until};
use crate::service::{DType, InvalidInput, KernelError, Payload, RunContext, Tensors, Typed};

/// A type of operands: how a value is made of a document, and the arrays that it consists of.
///
/// Implement it for a type of your own, and register the type with
/// [`Operands::register`](super::Operands::register). Values never change once they are made.
pub trait OperandValue: Any + Send + Sync + Sized {
    /// The name of the type in requests, such as `graph`.
    const TYPE: &'static str;

    /// What clients send: the fields of a JSON object or the names of tensors.
    ///
    /// It is `Serialize` because a kernel can run in another process, to which its input crosses.
    type Document: DeserializeOwned + Serialize + JsonSchema + Send + Sync + 'static;

    /// Decodes a document. The default decodes JSON and tensors as a kernel's input is decoded.
    ///
    /// # Errors
    /// The first field that does not decode.
    fn decode(payload: Payload) -> Result<Self::Document, InvalidInput> {
        match payload {
            Payload::Json(document) => decode_json(&document),
            Payload::Tensors(tensors) => decode_tensors(&tensors),
            Payload::Typed(value) => typed_document(value, Self::TYPE),
        }
    }

    /// Checks a document, without the work of making the value.
    ///
    /// # Errors
    /// The first invalid field.
    fn check(document: &Self::Document) -> Result<(), InvalidInput>;

    /// Makes the value of a document. It may share the document's arrays.
    ///
    /// # Errors
    /// [`KernelError::InvalidInput`] as of [`check`](Self::check), and the errors of [`RunContext::check`].
    fn from_document(document: &Self::Document, context: &RunContext<'_>) -> Result<Self, KernelError>;

    /// Returns what clients see of the value besides its size: a JSON object, such as `{"nodes": 3, "edges": 2}`.
    fn summary(&self) -> serde_json::Value;

    /// Returns the host memory of the value in bytes, with arrays that are made later.
    fn bytes(&self) -> u64 {
        self.arrays().iter().map(|array| array.bytes.len() as u64).sum()
    }

    /// Returns the tensors of a document from which [`from_document`](Self::from_document) makes an equal value. They share
    /// the value's memory where they can, and do not have what is derived from others.
    ///
    /// It is what [`Operands::open`](super::Operands::open) writes to files and reads from them.
    fn to_tensors(&self) -> Tensors;

    /// Returns the arrays that the value consists of. They stay where they are for as long as the value lives; those that
    /// are made later come last. Devices get copies of them.
    fn arrays(&self) -> Vec<OperandArray<'_>>;
}

/// Returns the document that a caller in the same process passed.
pub(super) fn typed_document<D: Send + Sync + 'static>(value: Typed, type_name: &str) -> Result<D, InvalidInput> {
    let document = value.downcast::<D>();
    let found = value.type_name();
    // The caller's own reference, or else the document is shared.
    drop(value);
    match document.map(Arc::try_unwrap) {
        Some(Ok(document)) => Ok(document),
        Some(Err(_)) => Err(InvalidInput::new("input", "the document is still in use elsewhere")),
        None => Err(InvalidInput::new("input", format!("a value of type {found} is no {type_name}"))),
    }
}

/// Decodes and checks a payload, and makes a value of it.
pub(super) fn from_payload<T: OperandValue>(payload: Payload, context: &RunContext<'_>) -> Result<T, KernelError> {
    match decode_until(context.deadline(), None, || T::decode(payload)) {
        Ok(document) => T::from_document(&document?, context),
        Err(_stopped) => Err(KernelError::DeadlineExceeded { started: true }),
    }
}

/// One of the arrays of an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OperandArray<'a> {
    /// The name of the array, unique in its operand.
    pub name: &'a str,
    /// The type of the elements.
    pub dtype: DType,
    /// The elements.
    pub bytes: &'a [u8],
}

/// An [`OperandValue`] with its type erased.
pub(super) trait ErasedValue: Any + Send + Sync {
    fn type_name(&self) -> &'static str;
    fn summary(&self) -> serde_json::Value;
    fn bytes(&self) -> u64;
    fn to_tensors(&self) -> Tensors;
    fn arrays(&self) -> Vec<OperandArray<'_>>;
}

impl<T: OperandValue> ErasedValue for T {
    fn type_name(&self) -> &'static str {
        T::TYPE
    }

    fn summary(&self) -> serde_json::Value {
        OperandValue::summary(self)
    }

    fn bytes(&self) -> u64 {
        OperandValue::bytes(self)
    }

    fn to_tensors(&self) -> Tensors {
        OperandValue::to_tensors(self)
    }

    fn arrays(&self) -> Vec<OperandArray<'_>> {
        OperandValue::arrays(self)
    }
}

impl dyn ErasedValue {
    /// Returns the value if its type is `T`.
    pub(super) fn downcast<T: OperandValue>(self: Arc<Self>) -> Option<Arc<T>> {
        let any: Arc<dyn Any + Send + Sync> = self;
        any.downcast().ok()
    }
}
