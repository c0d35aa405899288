//! [`Operand`]: the field of a kernel's input that is a value or a reference to an operand.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::json;

use super::decode::{current, find_version};
use super::reference::{self, OperandReference};
use super::tensor_set::TensorSet;
use super::value::OperandValue;
use super::version::OperandVersion;
use crate::service::codec::is_transfer;
use crate::service::{Buffer, DType, Element, InvalidInput, KernelError, RunContext, Tensor};

/// A value in a kernel's input: one that came with the request, or an operand that the request refers to.
///
/// In JSON it is the document of the value's type, or `{"operand": "payments@7"}`. In a request of tensors it can only be a
/// reference: a `uint8` tensor with the text, named after the field with `.operand` at the end.
///
/// Callers in the same process pass what [`Operands::put`](super::Operands::put) returned, or a document of their own:
///
/// ```
/// use tower_kernels::service::{Operand, Operands, TensorSet};
///
/// let operands = Operands::default();
/// let stored: Operand<TensorSet> = operands.put("prices", TensorSet::of("close", vec![1.0_f64])).unwrap();
/// assert_eq!(stored.version().unwrap().name(), "prices");
/// ```
pub struct Operand<T: OperandValue>(Repr<T>);

enum Repr<T: OperandValue> {
    Inline(Arc<T::Document>),
    Stored { value: Arc<T>, version: Arc<OperandVersion> },
}

impl<T: OperandValue> Operand<T> {
    /// Creates an operand of a document, from which each run makes the value.
    pub fn inline(document: T::Document) -> Self {
        Self(Repr::Inline(Arc::new(document)))
    }

    pub(super) fn stored(value: Arc<T>, version: Arc<OperandVersion>) -> Self {
        Self(Repr::Stored { value, version })
    }

    /// Creates an operand of a stored version, as [`Operands::get`](super::Operands::get) returns it.
    ///
    /// # Errors
    /// The version's value is of another type.
    pub fn from_version(version: &Arc<OperandVersion>) -> Result<Self, InvalidInput> {
        match version.value() {
            Some(value) => Ok(Self::stored(value, Arc::clone(version))),
            None => {
                let (name, found) = (version.name(), version.type_name());
                Err(InvalidInput::new("operand", format!("`{name}` is of type {found} where {} is expected", T::TYPE)))
            }
        }
    }

    /// Returns the document that came with the request; `None` if the request refers to an operand.
    pub fn document(&self) -> Option<&T::Document> {
        match &self.0 {
            Repr::Inline(document) => Some(document),
            Repr::Stored { .. } => None,
        }
    }

    /// Returns the version that the request refers to; `None` if the value came with the request.
    pub fn version(&self) -> Option<&Arc<OperandVersion>> {
        match &self.0 {
            Repr::Inline(_) => None,
            Repr::Stored { version, .. } => Some(version),
        }
    }

    /// Returns the value that the request refers to; `None` if it came with the request and has to be
    /// [made](Self::load).
    pub fn value(&self) -> Option<&Arc<T>> {
        match &self.0 {
            Repr::Inline(_) => None,
            Repr::Stored { value, .. } => Some(value),
        }
    }

    /// Checks a value that came with the request. An operand was checked when it was stored.
    ///
    /// # Errors
    /// The first invalid field.
    pub fn check(&self) -> Result<(), InvalidInput> {
        self.document().map_or(Ok(()), T::check)
    }

    /// Returns the operand's value, or makes one of the document.
    ///
    /// # Errors
    /// As of [`OperandValue::from_document`].
    pub fn load(&self, context: &RunContext<'_>) -> Result<Arc<T>, KernelError> {
        match &self.0 {
            Repr::Inline(document) => Ok(Arc::new(T::from_document(document, context)?)),
            Repr::Stored { value, .. } => Ok(Arc::clone(value)),
        }
    }
}

impl<T: OperandValue> Clone for Operand<T> {
    fn clone(&self) -> Self {
        Self(match &self.0 {
            Repr::Inline(document) => Repr::Inline(Arc::clone(document)),
            Repr::Stored { value, version } => Repr::Stored { value: Arc::clone(value), version: Arc::clone(version) },
        })
    }
}

/// Operands are equal if they are the same version, documents if their contents are.
impl<T: OperandValue<Document: PartialEq>> PartialEq for Operand<T> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Repr::Inline(document), Repr::Inline(other)) => document == other,
            (Repr::Stored { version, .. }, Repr::Stored { version: other, .. }) => version.id() == other.id(),
            _ => false,
        }
    }
}

impl<T: OperandValue> fmt::Debug for Operand<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Repr::Inline(_) => f.debug_tuple("Inline").field(&T::TYPE).finish(),
            Repr::Stored { version, .. } => f.debug_tuple("Stored").field(version).finish(),
        }
    }
}

/// The key of a reference in a JSON object.
pub(crate) const KEY: &str = "operand";

/// Returns the version that a reference in an input names, among those that the request holds.
fn resolve<E: de::Error>(text: &str) -> Result<(Arc<OperandVersion>, Option<&str>), E> {
    let find = || -> Result<_, InvalidInput> {
        let reference = OperandReference::parse(text)?;
        Ok((Arc::clone(current().get(&reference)?), reference.tensor))
    };
    find().map_err(|error| E::custom(error.reason))
}

/// Returns the tensor of an operand that a reference in an input names.
fn tensor_of_reference<E: de::Error>(text: &str) -> Result<Tensor, E> {
    let (version, tensor) = resolve(text)?;
    let Some(set) = version.value::<TensorSet>() else {
        let (name, found) = (version.name(), version.type_name());
        return Err(E::custom(format!("`{name}` is of type {found} where tensors are expected")));
    };
    set.select(tensor).cloned().map_err(|error| E::custom(error.reason))
}

/// Returns the dtype of the array that a reference in an input names.
pub(crate) fn dtype_of_reference<E: de::Error>(text: &str) -> Result<DType, E> {
    tensor_of_reference(text).map(|tensor| tensor.dtype())
}

/// Returns the array that a reference in an input names. It shares the operand's memory.
pub(crate) fn array_of_reference<T: Element, E: de::Error>(text: &str) -> Result<Buffer<T>, E> {
    let tensor = tensor_of_reference(text)?;
    if (tensor.dtype(), tensor.shape().len()) != (T::DTYPE, 1) {
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        return Err(E::custom(format!(
            "the operand has {dtype} of shape {shape:?} where an array of {} is expected",
            T::DTYPE
        )));
    }
    // An empty slice may have any address.
    if tensor.data().is_empty() {
        return Ok(Buffer::default());
    }
    Buffer::from_bytes(tensor.data().clone()).ok_or_else(|| E::custom("the tensor of the operand is not aligned"))
}

/// Reads the rest of an object whose first key was `operand`: the reference.
pub(crate) fn read_reference<'de, A: MapAccess<'de>>(mut map: A) -> Result<Cow<'de, str>, A::Error> {
    let text = map.next_value()?;
    match map.next_key::<de::IgnoredAny>()? {
        None => Ok(text),
        Some(_) => Err(de::Error::custom("a reference to an operand has no field but `operand`")),
    }
}

/// Reads a reference where an object in place of an array can only be one.
pub(crate) fn read_reference_object<'de, A: MapAccess<'de>>(mut map: A) -> Result<Cow<'de, str>, A::Error> {
    match map.next_key::<Cow<'de, str>>()? {
        Some(key) if key == KEY => read_reference(map),
        _ => Err(de::Error::custom(r#"an object in place of an array is a reference, {"operand": "name"}"#)),
    }
}

/// Serializes as the document or the reference. To another process a stored version crosses as its
/// [id](OperandVersion::id).
impl<T: OperandValue> Serialize for Operand<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            Repr::Inline(document) => document.serialize(serializer),
            Repr::Stored { version, .. } if is_transfer() => serializer.serialize_u64(version.id()),
            Repr::Stored { version, .. } => {
                let mut reference = serializer.serialize_map(Some(1))?;
                reference.serialize_entry(KEY, &version.reference().to_string())?;
                reference.end()
            }
        }
    }
}

impl<'de, T: OperandValue> Deserialize<'de> for Operand<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ValueOrReference(PhantomData))
    }
}

struct ValueOrReference<T>(PhantomData<T>);

impl<'de, T: OperandValue> Visitor<'de> for ValueOrReference<T> {
    type Value = Operand<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, r#"an object: a value of type {}, or {{"operand": "name"}}"#, T::TYPE)
    }

    /// Reads the id of a version in a transfer.
    fn visit_u64<E: de::Error>(self, id: u64) -> Result<Operand<T>, E> {
        if !is_transfer() {
            return Err(E::invalid_type(Unexpected::Unsigned(id), &self));
        }
        let version =
            find_version(id).ok_or_else(|| E::custom(format_args!("no version of an operand has the id {id}")))?;
        Operand::from_version(&version).map_err(|error| E::custom(error.reason))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Operand<T>, A::Error> {
        if is_transfer() {
            // References are ids there, so that a document may have a field of their key.
            return T::Document::deserialize(MapAccessDeserializer::new(map)).map(Operand::inline);
        }
        let first: Option<Cow<'de, str>> = map.next_key()?;
        if first.as_deref() == Some(KEY) {
            let text = read_reference(map)?;
            return match resolve(&text)? {
                (version, None) => Operand::from_version(&version).map_err(|error| de::Error::custom(error.reason)),
                (_, Some(_)) => Err(de::Error::custom("one tensor of an operand where all of it is expected")),
            };
        }
        T::Document::deserialize(MapAccessDeserializer::new(WithFirst { first, map })).map(Operand::inline)
    }
}

/// A map whose first key has been read already.
struct WithFirst<'de, A> {
    first: Option<Cow<'de, str>>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WithFirst<'de, A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(first) => seed.deserialize(first.into_deserializer()).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<T: OperandValue> JsonSchema for Operand<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Operand_of_{}", T::TYPE).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let document = generator.subschema_for::<T::Document>();
        json_schema!({ "anyOf": [document, reference_schema()] })
    }
}

/// Returns the schema of a reference.
pub(crate) fn reference_schema() -> serde_json::Value {
    let mut text = reference::reference_schema();
    text["description"] =
        "The operand: `name`, `name@version`, and for one tensor of a set, a slash and its name.".into();
    json!({
        "type": "object",
        "properties": { KEY: text },
        "required": [KEY],
        "additionalProperties": false,
    })
}
