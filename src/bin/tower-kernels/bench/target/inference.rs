//! Requests of the Open Inference Protocol, for any server that speaks it.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tower_kernels::service::DType;

use super::payload::{shape, write};
use crate::exit::{self, Exit};

/// An input or output in the metadata of a model.
#[derive(Debug, Deserialize)]
pub(super) struct TensorMetadata {
    pub(super) name: String,
    pub(super) datatype: String,
}

/// An input of a request.
#[derive(Debug)]
pub(super) struct Input {
    pub(super) name: String,
    pub(super) datatype: String,
    pub(super) shape: Vec<usize>,
    /// Its elements: nested arrays, or one value.
    value: Value,
    /// Little-endian and row-major.
    pub(super) data: Vec<u8>,
}

/// Converts the fields of a document to inputs of the datatypes in the model's metadata. A field that is not an array is a
/// tensor of one element, and null fields are omitted.
pub(super) fn inputs(model: &[TensorMetadata], document: &str) -> Result<Vec<Input>, exit::Failure> {
    read(model, document).map_err(|error| Exit::Input.failure(error))
}

fn read(model: &[TensorMetadata], document: &str) -> Result<Vec<Input>, String> {
    let fields: Map<String, Value> =
        serde_json::from_str(document).map_err(|error| format!("the input is not a JSON object: {error}"))?;
    let fields = fields.into_iter().filter(|(_, value)| !value.is_null());
    fields
        .map(|(name, value)| {
            let metadata = model.iter().find(|input| input.name == name);
            let datatype = &metadata.ok_or_else(|| format!("{name}: the model has no such input"))?.datatype;
            input(&name, datatype, value).map_err(|error| format!("{name}: {error}"))
        })
        .collect()
}

fn input(name: &str, datatype: &str, value: Value) -> Result<Input, String> {
    let value = if value.is_array() { value } else { json!([value]) };
    let (shape, mut data) = (shape(&value), Vec::new());
    if datatype == "BYTES" {
        texts(&value, &mut data)?;
    } else {
        let dtype = dtype(datatype).ok_or_else(|| format!("inputs of datatype {datatype} cannot be sent"))?;
        write(&value, dtype, &shape, &mut data)?;
    }
    Ok(Input { name: name.to_owned(), datatype: datatype.to_owned(), shape, value, data })
}

/// Writes each text after its length.
fn texts(value: &Value, data: &mut Vec<u8>) -> Result<(), String> {
    match value {
        Value::Array(values) => values.iter().try_for_each(|value| texts(value, data)),
        Value::String(text) => {
            let length = u32::try_from(text.len()).map_err(|_| "a text is too long")?;
            data.extend(length.to_le_bytes());
            data.extend(text.as_bytes());
            Ok(())
        }
        other => Err(format!("{other} where a text is expected")),
    }
}

/// Writes a body for HTTP, and the length of its JSON if binary data follow it. Outputs are requested in the same form.
pub(super) fn body(inputs: &[Input], binary: bool) -> Result<(Option<usize>, Vec<u8>), serde_json::Error> {
    #[derive(Serialize)]
    struct Request<'a> {
        inputs: Vec<Value>,
        #[serde(skip_serializing_if = "Option::is_none")]
        parameters: Option<&'a Value>,
    }
    let document = |input: &Input| {
        let Input { name, datatype, shape, value, data } = input;
        let mut document = json!({ "name": name, "datatype": datatype, "shape": shape });
        if binary {
            document["parameters"] = json!({ "binary_data_size": data.len() });
        } else {
            document["data"] = value.clone();
        }
        document
    };
    let parameters = binary.then(|| json!({ "binary_data_output": true }));
    let request = Request { inputs: inputs.iter().map(document).collect(), parameters: parameters.as_ref() };
    let mut body = serde_json::to_vec(&request)?;
    let head_length = binary.then_some(body.len());
    if binary {
        inputs.iter().for_each(|input| body.extend_from_slice(&input.data));
    }
    Ok((head_length, body))
}

/// Returns the protocol's name of an element type: `FP32` for `float32`.
pub(super) fn datatype(dtype: DType) -> String {
    match dtype {
        DType::Bf16 => "BF16".to_owned(),
        dtype => dtype.as_str().replace("float", "FP").to_uppercase(),
    }
}

fn dtype(datatype: &str) -> Option<DType> {
    use DType::{Bf16, Bool, F16, F32, F64, I32, I64, U8, U32, U64};
    let all = [Bool, U8, U32, U64, I32, I64, F16, Bf16, F32, F64];
    all.into_iter().find(|&dtype| self::datatype(dtype) == datatype)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model(inputs: &[(&str, &str)]) -> Vec<TensorMetadata> {
        let metadata =
            |&(name, datatype): &(&str, &str)| TensorMetadata { name: name.to_owned(), datatype: datatype.to_owned() };
        inputs.iter().map(metadata).collect()
    }

    #[test]
    fn fields_become_inputs_of_the_models_datatypes() {
        let model =
            model(&[("x", "FP32"), ("edges", "UINT32"), ("kind", "BYTES"), ("directed", "BOOL"), ("n", "INT64")]);
        let document = r#"{"x": 2, "edges": [[0, 1], [1, 2]], "kind": ["put", "a"], "directed": true, "n": null}"#;
        let inputs = inputs(&model, document).unwrap();
        let found: Vec<_> =
            inputs.iter().map(|input| (&*input.name, &*input.datatype, &*input.shape, &*input.data)).collect();
        assert_eq!(
            found,
            [
                ("directed", "BOOL", &[1][..], &[1][..]),
                ("edges", "UINT32", &[2, 2], &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0]),
                ("kind", "BYTES", &[2], b"\x03\0\0\0put\x01\0\0\0a"),
                ("x", "FP32", &[1], &2.0_f32.to_le_bytes()),
            ]
        );
    }

    #[test]
    fn a_body_is_json_alone_or_json_and_binary_data() {
        let inputs = inputs(&model(&[("x", "FP32")]), r#"{"x": [1, 2]}"#).unwrap();
        let (length, json) = body(&inputs, false).unwrap();
        let expected = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [2], "data": [1, 2]}]});
        assert_eq!((length, serde_json::from_slice::<Value>(&json).unwrap()), (None, expected));

        let (length, binary) = body(&inputs, true).unwrap();
        let (head, data) = binary.split_at(length.unwrap());
        let input = json!({"name": "x", "datatype": "FP32", "shape": [2], "parameters": {"binary_data_size": 8}});
        let expected = json!({"inputs": [input], "parameters": {"binary_data_output": true}});
        assert_eq!(serde_json::from_slice::<Value>(head).unwrap(), expected);
        assert_eq!(data, [1.0_f32.to_le_bytes(), 2.0_f32.to_le_bytes()].concat());
    }

    #[test]
    fn fields_that_the_model_does_not_have_are_rejected_by_name() {
        let model = model(&[("x", "FP32"), ("small", "INT8"), ("kind", "BYTES")]);
        for (document, says) in [
            ("[]", "not a JSON object"),
            (r#"{"y": [1]}"#, "y: the model has no such input"),
            (r#"{"x": ["1"]}"#, "x: \"1\" where a number of type float32"),
            (r#"{"x": [[1], [2, 3]]}"#, "x: its arrays differ in length"),
            (r#"{"small": [1]}"#, "small: inputs of datatype INT8 cannot be sent"),
            (r#"{"kind": [1]}"#, "kind: 1 where a text is expected"),
        ] {
            let error = read(&model, document).unwrap_err();
            assert!(error.contains(says), "{error}");
        }
    }
}
