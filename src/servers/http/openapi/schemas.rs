//! Named schemas of the document.

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::{Map, Value, json};

use crate::servers::http::{TensorHead, TensorResponseHead};
use crate::service::{KernelError, RegisteredKernel};

/// Names of the schemas of tensor bodies in requests and responses.
pub(crate) const TENSORS_IN: &str = "Tensors";
pub(crate) const TENSORS_OUT: &str = "TensorResponse";

/// Builds `components/schemas`.
pub(crate) struct Schemas {
    components: Map<String, Value>,
    read: SchemaGenerator,
    written: SchemaGenerator,
}

impl Schemas {
    pub(super) fn new() -> Self {
        let settings =
            || SchemaSettings::draft2020_12().with(|settings| settings.definitions_path = "/components/schemas".into());
        Self {
            components: Map::new(),
            read: settings().for_deserialize().into_generator(),
            written: settings().for_serialize().into_generator(),
        }
    }

    /// Schema of a type that requests are deserialized into.
    pub(crate) fn read<T: JsonSchema>(&mut self) -> Value {
        self.read.subschema_for::<T>().to_value()
    }

    /// Schema of a type that responses are serialized from.
    pub(crate) fn written<T: JsonSchema>(&mut self) -> Value {
        self.written.subschema_for::<T>().to_value()
    }

    /// Fields of a type as query parameters, which cannot be null.
    pub(crate) fn query<T: JsonSchema>(&mut self) -> Vec<Value> {
        let Value::Object(fields) = self.read.root_schema_for::<T>().remove("properties").unwrap_or_default() else {
            return Vec::new();
        };
        let parameter = |(name, mut schema): (String, Value)| {
            let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
            json!({ "name": name, "in": "query", "description": description, "schema": not_null(schema) })
        };
        fields.into_iter().map(parameter).collect()
    }

    /// Adds the schemas of tensor bodies and of the JSON they begin with.
    pub(super) fn tensors(&mut self) {
        let (read, written) = (self.read::<TensorHead<'_>>(), self.written::<TensorResponseHead<'_>>());
        for (name, head) in [(TENSORS_IN, read), (TENSORS_OUT, written)] {
            let description = "JSON, whose length in bytes is `inference-header-content-length`, followed by the bytes of the \
                               tensors in the order in which the JSON lists them, little-endian and row-major: the binary \
                               tensor data extension of the Open Inference Protocol.";
            // JSON Schema cannot describe a part of a binary body, so an extension refers to the schema of the head.
            let body = json!({ "description": description, "type": "string", "format": "binary", "x-head": head });
            self.components.insert(name.to_owned(), body);
        }
    }

    /// References to a kernel's input and output.
    pub(crate) fn kernel(&mut self, kernel: &RegisteredKernel) -> Result<(Value, Value), KernelError> {
        let name = name_of(&kernel.info().id);
        let (input, output) = kernel.schemas()?;
        let input = self.lift(&format!("{name}.Input"), input);
        Ok((input, self.lift(&format!("{name}.Output"), output)))
    }

    /// Adds a schema and its definitions, under names that begin with the schema's own.
    fn lift(&mut self, name: &str, schema: &Schema) -> Value {
        let mut schema = schema.clone();
        schema.remove("$schema");
        let definitions = match schema.remove("$defs") {
            Some(Value::Object(definitions)) => definitions,
            _ => Map::new(),
        };
        let names = Names::new(name, definitions.keys());
        names.transform(&mut schema);
        self.components.insert(name.to_owned(), schema.to_value());
        for (key, definition) in definitions {
            let lifted = names.of(&key).to_owned();
            let definition = match Schema::try_from(definition) {
                Ok(mut definition) => {
                    names.transform(&mut definition);
                    definition.to_value()
                }
                // Not a schema, so there are no references to rewrite.
                Err(_) => Value::Bool(true),
            };
            self.components.insert(lifted, definition);
        }
        reference(name)
    }

    pub(super) fn into_components(mut self) -> Value {
        self.components.extend(self.read.take_definitions(true));
        self.components.extend(self.written.take_definitions(true));
        Value::Object(self.components)
    }
}

fn reference(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

/// Converts a kernel's id to a component name, which has no slashes. Ids have no capitals, so names are unique and do
/// not collide with other components.
pub(super) fn name_of(id: &str) -> String {
    id.replace('.', "DOT").replace('/', ".")
}

/// Removes `null` from the types of a schema.
fn not_null(mut schema: Value) -> Value {
    let is_null = |schema: &Value| schema["type"] == "null" || schema == "null";
    for key in ["type", "anyOf"] {
        let Some(Value::Array(choices)) = schema.get_mut(key) else { continue };
        choices.retain(|choice| !is_null(choice));
        match (key, choices.len()) {
            ("type", 1) => schema[key] = choices.remove(0),
            (_, 1) => return choices.remove(0),
            _ => {}
        }
    }
    schema
}

/// Component names of the definitions of one schema.
struct Names<'a> {
    root: &'a str,
    definitions: Vec<(String, String)>,
}

impl<'a> Names<'a> {
    fn new<'k>(root: &'a str, keys: impl Iterator<Item = &'k String>) -> Self {
        let mut taken = BTreeSet::new();
        let named = |key: &String| {
            let plain = |c: char| if c.is_ascii_alphanumeric() || c == '_' || c == '-' { c } else { '_' };
            let base = format!("{root}.{}", key.chars().map(plain).collect::<String>());
            let mut name = base.clone();
            for count in 2.. {
                if taken.insert(name.clone()) {
                    break;
                }
                name = format!("{base}_{count}");
            }
            (key.clone(), name)
        };
        Self { root, definitions: keys.map(named).collect() }
    }

    fn of(&self, key: &str) -> &str {
        let named = self.definitions.iter().find(|(this, _)| this == key);
        // A dangling reference becomes a reference to the whole schema, so that the document stays valid.
        named.map_or(self.root, |(_, name)| name)
    }

    /// Rewrites the references of a schema and its subschemas.
    fn transform(&self, schema: &mut Schema) {
        let rewrite = |schema: &mut Schema| {
            let Some(Value::String(target)) = schema.get_mut("$ref") else { return };
            // External references are not changed.
            let Some(pointer) = target.strip_prefix('#') else { return };
            *target = match pointer.strip_prefix("/$defs/") {
                Some(rest) => {
                    let (key, rest) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
                    format!("#/components/schemas/{}{rest}", self.of(&decode(key)))
                }
                None => format!("#/components/schemas/{}{pointer}", self.root),
            };
        };
        RecursiveTransform(rewrite).transform(schema);
    }
}

/// Decodes a segment of a JSON pointer in a URI fragment: percent-encoded, with `~` and `/` escaped.
fn decode(step: &str) -> String {
    let mut bytes = Vec::with_capacity(step.len());
    let mut rest = step.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let digits = after.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        match digits.filter(|_| first == b'%') {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).replace("~1", "/").replace("~0", "~")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_are_lifted_and_references_follow_them() {
        let schema = json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "properties": {
                "$ref": { "$ref": "#/$defs/A%3CB~1C%3E" },
                "self": { "$ref": "#" },
                "first": { "$ref": "#/$defs/A_B_C_/properties/x" },
                "away": { "$ref": "https://example.org/schema" },
                "data": { "const": { "$ref": "#/$defs/none" } },
            },
            "$defs": { "A<B/C>": { "items": { "$ref": "#/$defs/A_B_C_" } }, "A_B_C_": { "properties": { "x": true } } },
        });
        let mut schemas = Schemas::new();
        let lifted = schemas.lift("a.b.Input", &schema.try_into().unwrap());
        assert_eq!(lifted, json!({ "$ref": "#/components/schemas/a.b.Input" }));
        let components = schemas.into_components();
        let root = "#/components/schemas/a.b.Input";
        assert_eq!(
            components["a.b.Input"],
            json!({ "properties": {
                "$ref": { "$ref": format!("{root}.A_B_C_") },
                "self": { "$ref": root },
                "first": { "$ref": format!("{root}.A_B_C__2/properties/x") },
                "away": { "$ref": "https://example.org/schema" },
                "data": { "const": { "$ref": "#/$defs/none" } },
            }})
        );
        assert_eq!(components["a.b.Input.A_B_C_"]["items"]["$ref"], format!("{root}.A_B_C__2"));
        assert_eq!(components.as_object().unwrap().len(), 3);
    }

    #[test]
    fn ids_that_differ_have_names_that_differ() {
        let names: BTreeSet<_> = ["a/b", "a.b", "a./b", "a/.b", "a_b", "a-b"].into_iter().map(name_of).collect();
        assert_eq!(names.len(), 6, "{names:?}");
        assert!(names.iter().all(|name| name.chars().all(|c| c.is_ascii_alphanumeric() || ".-_".contains(c))));
    }

    #[test]
    fn a_query_has_no_nulls() {
        assert_eq!(
            not_null(json!({ "type": ["integer", "null"], "minimum": 1 })),
            json!({ "type": "integer", "minimum": 1 })
        );
        assert_eq!(not_null(json!({ "anyOf": [{ "$ref": "#/a" }, { "type": "null" }] })), json!({ "$ref": "#/a" }));
    }
}
