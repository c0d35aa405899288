//! Converts a JSON document to tensors.

use bytes::Bytes;
use serde_json::{Map, Value};
use tower_kernels::service::{Bf16, DType, F16, Tensor, Tensors};

use crate::exit::{self, Exit};

/// Converts the fields of a document to tensors of the types in the kernel's input schema. Null fields are omitted.
pub(super) fn tensors(schema: &Value, document: &str) -> Result<Tensors, exit::Failure> {
    read(schema, document).map_err(|error| Exit::Input.failure(error))
}

fn read(schema: &Value, document: &str) -> Result<Tensors, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(document).map_err(|error| format!("the input is not a JSON object: {error}"))?;
    let mut tensors = Tensors::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_null()) {
        let tensor = tensor(schema, name, value).map_err(|error| format!("{name}: {error}"))?;
        tensors.insert(name, tensor).map_err(|error| error.to_string())?;
    }
    Ok(tensors)
}

fn tensor(schema: &Value, name: &str, value: &Value) -> Result<Tensor, String> {
    let (dtype, shape, data) = match value {
        Value::String(text) => (DType::U8, vec![text.len()], text.clone().into_bytes()),
        value => {
            let field = &schema["properties"][name];
            let dtype = dtype(schema, field).ok_or("the kernel's schema has no number type for it")?;
            let (shape, mut data) = (shape(value), Vec::new());
            write(value, dtype, &shape, &mut data)?;
            (dtype, shape, data)
        }
    };
    Tensor::new(dtype, shape, Bytes::from(data)).map_err(|error| error.to_string())
}

/// The number type in a part of a schema.
fn dtype(schema: &Value, part: &Value) -> Option<DType> {
    if let Some(reference) = part["$ref"].as_str() {
        return dtype(schema, schema.pointer(reference.strip_prefix('#')?)?);
    }
    // If a kernel takes several, the last is the most precise, like the numbers of JSON.
    let own = match &part["x-dtype"] {
        Value::Array(several) => several.last()?,
        own => own,
    };
    let named = own.as_str().or_else(|| part["format"].as_str()).or_else(|| part["type"].as_str());
    let known = named.and_then(|name| match name {
        "boolean" | "bool" => Some(DType::Bool),
        "uint8" => Some(DType::U8),
        "uint32" => Some(DType::U32),
        "uint64" | "uint" => Some(DType::U64),
        "int32" => Some(DType::I32),
        "int64" | "int" => Some(DType::I64),
        "float16" => Some(DType::F16),
        "bfloat16" => Some(DType::Bf16),
        "float32" | "float" => Some(DType::F32),
        "float64" | "double" => Some(DType::F64),
        _ => None,
    });
    let within = || {
        let choices = ["anyOf", "oneOf", "prefixItems"].iter().filter_map(|&key| part[key].as_array()).flatten();
        choices.chain(part.get("items")).find_map(|part| dtype(schema, part))
    };
    known.or_else(within)
}

/// The shape of nested arrays, by the first element of each.
pub(super) fn shape(mut value: &Value) -> Vec<usize> {
    let mut shape = Vec::new();
    while let Value::Array(values) = value {
        shape.push(values.len());
        match values.first() {
            Some(first) => value = first,
            None => break,
        }
    }
    shape
}

/// Writes nested arrays of this shape, or one number, little-endian.
pub(super) fn write(value: &Value, dtype: DType, shape: &[usize], data: &mut Vec<u8>) -> Result<(), String> {
    match (value, shape) {
        (Value::Array(values), [length, rest @ ..]) if values.len() == *length => {
            values.iter().try_for_each(|value| write(value, dtype, rest, data))
        }
        (Value::Array(_), _) | (_, [_, ..]) => Err("its arrays differ in length".to_owned()),
        (value, []) => {
            number(value, dtype, data).ok_or_else(|| format!("{value} where a number of type {dtype} is expected"))
        }
    }
}

fn number(value: &Value, dtype: DType, data: &mut Vec<u8>) -> Option<()> {
    match dtype {
        DType::Bool => data.push(value.as_bool()?.into()),
        DType::U8 => data.push(u8::try_from(value.as_u64()?).ok()?),
        DType::U32 => data.extend(u32::try_from(value.as_u64()?).ok()?.to_le_bytes()),
        DType::U64 => data.extend(value.as_u64()?.to_le_bytes()),
        DType::I32 => data.extend(i32::try_from(value.as_i64()?).ok()?.to_le_bytes()),
        DType::I64 => data.extend(value.as_i64()?.to_le_bytes()),
        DType::F16 => data.extend(F16::from_f32(value.as_f64()? as f32).to_bits().to_le_bytes()),
        DType::Bf16 => data.extend(Bf16::from_f32(value.as_f64()? as f32).to_bits().to_le_bytes()),
        DType::F32 => data.extend((value.as_f64()? as f32).to_le_bytes()),
        DType::F64 => data.extend(value.as_f64()?.to_le_bytes()),
        _ => return None,
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tower_kernels::kernels::register_all;
    use tower_kernels::service::{KernelRegistry, Payload};

    fn of(kernel: &str, document: &str) -> Result<Tensors, String> {
        let registry = KernelRegistry::new();
        register_all(&registry).unwrap();
        let kernel = registry.get(kernel).unwrap();
        let tensors = read(kernel.input_schema().as_value(), document)?;
        kernel.decode(Payload::Tensors(tensors.clone())).map_err(|error| format!("{error:?}"))?;
        Ok(tensors)
    }

    #[test]
    fn documents_become_tensors_that_their_kernels_accept() {
        let saxpy = of("linalg/saxpy", r#"{"a": 2.0, "x": [1.0, 2.0], "y": [3, 4]}"#).unwrap();
        let x = saxpy.get("x").unwrap();
        assert_eq!((x.dtype(), x.shape(), &x.data()[4..]), (DType::F32, &[2][..], &2.0_f32.to_le_bytes()[..]));
        assert!(saxpy.get("a").unwrap().shape().is_empty());

        let graph = r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2]], "normalized": false, "samples": null}"#;
        let graph = of("graph/betweenness-centrality", graph).unwrap();
        let edges = graph.get("edges").unwrap();
        assert_eq!((edges.dtype(), edges.shape()), (DType::U32, &[2, 2][..]));
        assert_eq!(graph.get("num_nodes").unwrap().dtype(), DType::U64);
        assert!(graph.get("samples").is_none());

        let options = r#"{"spot": [100.0], "strike": 90, "rate": 0.01, "volatility": 0.2, "time": 1, "kind": "call"}"#;
        assert_eq!(of("risk/option-pricing", options).unwrap().get("spot").unwrap().dtype(), DType::F64);
    }

    #[test]
    fn fields_that_are_not_tensors_are_rejected_by_name() {
        for (document, says) in [
            ("[]", "not a JSON object"),
            (r#"{"a": 2.0, "x": [1.0, "2"], "y": [3, 4]}"#, "x: \"2\" where a number of type float32"),
            (r#"{"a": 2.0, "x": [[1.0], [2.0, 3.0]], "y": [3, 4]}"#, "x: its arrays differ in length"),
            (r#"{"a": 2.0, "z": [1.0]}"#, "z: the kernel's schema has no number type"),
        ] {
            let error = of("linalg/saxpy", document).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
