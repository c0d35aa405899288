//! [`Signature`]: the tensors of a kernel, from the JSON Schemas of its input and output.

use schemars::Schema;
use serde_json::{Map, Value};

use super::{DType, InvalidInput, REFERENCE_SUFFIX};

/// The inputs and outputs of a kernel, as servers of the Open Inference Protocol describe a model.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Signature {
    pub(crate) inputs: Vec<TensorSpec>,
    pub(crate) outputs: Vec<TensorSpec>,
}

/// An input or an output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TensorSpec {
    pub(crate) name: String,
    /// A field that accepts several types has the last that its schema lists, which is the widest.
    pub(crate) elements: ElementType,
    /// Length of each dimension, -1 for any. A scalar and a text have `[1]`.
    pub(crate) shape: Vec<i64>,
    /// Whether a request can omit it.
    pub(crate) is_optional: bool,
}

/// Type of the elements of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ElementType {
    Number(DType),
    /// Each element has a length of its own.
    Text,
}

impl Signature {
    /// Reads the schemas of a kernel's input and output. Optional fields of the input that have no form as a tensor are
    /// omitted.
    ///
    /// # Errors
    /// Another field has none.
    pub(super) fn of((input, output): &(Schema, Schema)) -> Result<Self, InvalidInput> {
        Ok(Self { inputs: fields(input)?, outputs: fields(output)? })
    }

    /// Returns the input of this name if it is a scalar or a text.
    pub(crate) fn scalar_input(&self, name: &str) -> Option<&TensorSpec> {
        self.inputs.iter().find(|input| input.name == name && input.shape == [1])
    }

    /// Returns the only input that a request must have, if it has one dimension: its length then follows from its bytes.
    #[cfg(any(feature = "axum", feature = "hyper"))]
    pub(crate) fn only_required_input(&self) -> Option<&TensorSpec> {
        let mut required = self.inputs.iter().filter(|input| !input.is_optional);
        let input = required.next().filter(|input| input.shape.len() == 1)?;
        required.next().is_none().then_some(input)
    }
}

fn fields(schema: &Schema) -> Result<Vec<TensorSpec>, InvalidInput> {
    let no_tensors = |field: &str| InvalidInput::new(field, "it has no form as a tensor, so the kernel is not a model");
    let reader = Reader { definitions: schema.get("$defs").and_then(Value::as_object) };
    let properties = schema.get("properties").and_then(Value::as_object).ok_or_else(|| no_tensors("input"))?;
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &str| required.is_some_and(|names| names.iter().any(|this| this == name));
    let mut fields = Vec::with_capacity(properties.len());
    for (name, property) in properties {
        let is_optional = !is_required(name);
        match reader.form(property, 0) {
            Some(Form::Array(elements, shape)) => {
                fields.push(TensorSpec { name: name.clone(), elements, shape, is_optional });
            }
            Some(Form::Reference) => {
                let name = format!("{name}{REFERENCE_SUFFIX}");
                fields.push(TensorSpec { name, elements: ElementType::Text, shape: vec![1], is_optional });
            }
            None if is_optional => {}
            None => return Err(no_tensors(name)),
        }
    }
    Ok(fields)
}

/// The form of a field as a tensor.
#[derive(Debug, PartialEq, Eq)]
enum Form {
    Array(ElementType, Vec<i64>),
    /// Only a reference to an operand has one.
    Reference,
}

/// Maximum depth of a schema that is read.
const MAX_DEPTH: usize = 16;

struct Reader<'a> {
    definitions: Option<&'a Map<String, Value>>,
}

impl<'a> Reader<'a> {
    /// Returns the form of the values of a schema, `None` if they have none.
    fn form(&self, schema: &'a Value, depth: usize) -> Option<Form> {
        if depth > MAX_DEPTH {
            return None;
        }
        let schema = self.resolve(schema)?;
        if let Some(dtype) = schema.get("x-dtype").and_then(dtype_of_extension) {
            return Some(Form::Array(ElementType::Number(dtype), vec![-1]));
        }
        if let Some(choices) = ["anyOf", "oneOf"].iter().find_map(|key| schema.get(*key)?.as_array()) {
            return self.form_of_choices(choices, depth);
        }
        if ["enum", "const"].iter().any(|key| schema.get(*key).is_some()) {
            return Some(text());
        }
        let format = schema.get("format").and_then(Value::as_str);
        match kind(schema)? {
            "boolean" => Some(scalar(DType::Bool)),
            "number" => Some(scalar(if format == Some("float") { DType::F32 } else { DType::F64 })),
            "integer" => Some(scalar(integer(format))),
            "string" => Some(text()),
            "array" => self.form_of_array(schema, depth),
            "object" if is_reference(schema) => Some(Form::Reference),
            _ => None,
        }
    }

    /// An array is preferred to a scalar, as a scalar is an array of one element, and both to a reference.
    fn form_of_choices(&self, choices: &'a [Value], depth: usize) -> Option<Form> {
        let forms: Vec<_> = choices.iter().filter_map(|choice| self.form(choice, depth + 1)).collect();
        forms.into_iter().min_by_key(|form| match form {
            Form::Array(_, shape) if *shape != [1] => 0,
            Form::Array(..) => 1,
            Form::Reference => 2,
        })
    }

    fn form_of_array(&self, schema: &'a Map<String, Value>, depth: usize) -> Option<Form> {
        let Form::Array(elements, inner) = self.form(schema.get("items")?, depth + 1)? else { return None };
        // Texts have different lengths.
        if elements == ElementType::Text {
            return None;
        }
        let bound = |key: &str| schema.get(key).and_then(Value::as_i64);
        let length = bound("minItems").filter(|&min| bound("maxItems") == Some(min)).unwrap_or(-1);
        let inner = if inner == [1] { Vec::new() } else { inner };
        Some(Form::Array(elements, [vec![length], inner].concat()))
    }

    fn resolve(&self, schema: &'a Value) -> Option<&'a Map<String, Value>> {
        let mut schema = schema.as_object()?;
        for _ in 0..MAX_DEPTH {
            let Some(target) = schema.get("$ref").and_then(Value::as_str) else { return Some(schema) };
            schema = self.definitions?.get(target.strip_prefix("#/$defs/")?)?.as_object()?;
        }
        None
    }
}

/// The type of a schema, other than `null`.
fn kind(schema: &Map<String, Value>) -> Option<&str> {
    match schema.get("type")? {
        Value::String(kind) => Some(kind),
        Value::Array(kinds) => kinds.iter().filter_map(Value::as_str).find(|kind| *kind != "null"),
        _ => None,
    }
}

fn is_reference(schema: &Map<String, Value>) -> bool {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties.is_some_and(|properties| properties.len() == 1 && properties.contains_key("operand"))
}

/// `x-dtype` has the name of an element type, or of several.
fn dtype_of_extension(extension: &Value) -> Option<DType> {
    let name = match extension {
        Value::Array(names) => names.last()?,
        name => name,
    };
    DType::from_name(name.as_str()?)
}

fn integer(format: Option<&str>) -> DType {
    match format {
        Some("uint8") => DType::U8,
        Some("uint16" | "uint32") => DType::U32,
        Some("uint64" | "uint") => DType::U64,
        Some("int8" | "int16" | "int32") => DType::I32,
        _ => DType::I64,
    }
}

fn scalar(dtype: DType) -> Form {
    Form::Array(ElementType::Number(dtype), vec![1])
}

fn text() -> Form {
    Form::Array(ElementType::Text, vec![1])
}

#[cfg(all(test, feature = "kernels"))]
mod tests {
    use super::*;
    use crate::service::{KernelError, KernelRegistry, RegisteredKernel};

    const TEXT: ElementType = ElementType::Text;
    const BOOL: ElementType = ElementType::Number(DType::Bool);
    const U8: ElementType = ElementType::Number(DType::U8);
    const U32: ElementType = ElementType::Number(DType::U32);
    const U64: ElementType = ElementType::Number(DType::U64);
    const F32: ElementType = ElementType::Number(DType::F32);
    const F64: ElementType = ElementType::Number(DType::F64);

    fn kernel(id: &str) -> RegisteredKernel {
        let registry = KernelRegistry::new();
        crate::kernels::register_all(&registry).unwrap();
        registry.get(id).unwrap()
    }

    fn spec(name: &str, elements: ElementType, shape: &[i64], is_optional: bool) -> TensorSpec {
        TensorSpec { name: name.to_owned(), elements, shape: shape.to_vec(), is_optional }
    }

    #[test]
    fn scalars_arrays_and_outputs_are_tensors() {
        let saxpy = kernel("linalg/saxpy");
        let saxpy = saxpy.signature().unwrap();
        let inputs = [spec("a", F32, &[1], false), spec("x", F32, &[-1], false), spec("y", F32, &[-1], false)];
        assert_eq!(saxpy.inputs, inputs);
        assert_eq!(saxpy.outputs, [spec("y", F32, &[-1], false)]);
    }

    #[test]
    fn options_texts_pairs_and_references_are_tensors() {
        let pagerank = kernel("graph/pagerank");
        let pagerank = pagerank.signature().unwrap();
        for expected in [
            spec("damping", F64, &[1], true),
            spec("directed", BOOL, &[1], true),
            spec("edges", U32, &[-1, 2], true),
            spec("graph.operand", TEXT, &[1], true),
            spec("max_iterations", U32, &[1], true),
            spec("num_nodes", U64, &[1], true),
            spec("row_offsets", U32, &[-1], true),
        ] {
            assert!(pagerank.inputs.contains(&expected), "{expected:?} is not in {:?}", pagerank.inputs);
        }
        let pricing = kernel("risk/option-pricing");
        let pricing = pricing.signature().unwrap();
        for expected in [spec("kind", U8, &[-1], false), spec("precision", TEXT, &[1], true)] {
            assert!(pricing.inputs.contains(&expected), "{expected:?} is not in {:?}", pricing.inputs);
        }
        assert_eq!(pricing.scalar_input("precision").map(|spec| spec.elements), Some(TEXT));
        assert!(pricing.scalar_input("kind").is_none());
        let similarity = kernel("ml/semantic-similarity");
        let similarity = similarity.signature().unwrap();
        assert!(similarity.inputs.contains(&spec("corpus.operand", TEXT, &[1], false)), "{:?}", similarity.inputs);
    }

    #[test]
    fn lists_of_texts_have_no_form() {
        let screening = kernel("compliance/sanctions-screening");
        for _ in 0..2 {
            let Err(KernelError::InvalidInput(error)) = screening.signature() else { panic!() };
            assert!(error.reason.contains("not a model"), "{error}");
        }
    }

    #[test]
    fn schemas_are_read_once() {
        let saxpy = kernel("linalg/saxpy");
        assert!(std::ptr::eq(saxpy.signature().unwrap(), saxpy.clone().signature().unwrap()));
    }
}
