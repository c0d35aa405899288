//! Inputs that are not plain arrays of numbers: texts and references to operands.

use bytes::Bytes;

use super::{ParameterValue, RegionParameters};
use crate::servers::sections::{Data, Input};
use crate::service::{DType, InvalidInput, OperandReference, REFERENCE_SUFFIX, Tensor, Tensors};

/// An input with text, which is an array of bytes to kernels.
pub(crate) fn text_input(name: String, text: impl Into<Bytes>) -> Input {
    let text = text.into();
    Input { name, dtype: DType::U8, shape: vec![text.len()], data: Data::Here(text) }
}

/// An input whose value is an operand.
///
/// # Errors
/// The reference is invalid.
pub(crate) fn operand_input(name: &str, reference: String) -> Result<Input, InvalidInput> {
    OperandReference::parse(&reference)
        .map_err(|InvalidInput { reason, .. }| InvalidInput::new("parameters.operand", reason))?;
    Ok(text_input(format!("{name}{REFERENCE_SUFFIX}"), reference))
}

/// Returns the text of a binary `BYTES` tensor of one element: its length in four bytes, and its bytes.
///
/// # Errors
/// The length is not that of the rest.
pub(crate) fn text_of_binary(data: &Bytes) -> Result<Bytes, InvalidInput> {
    let text =
        data.split_first_chunk::<4>().filter(|(length, text)| u32::from_le_bytes(**length) as usize == text.len());
    match text {
        Some((_, text)) => Ok(data.slice_ref(text)),
        None => {
            Err(InvalidInput::new("data", "it is not one element of BYTES: a length in 4 bytes, and as many bytes"))
        }
    }
}

/// Returns tensors of which these inputs are texts without their lengths.
///
/// # Errors
/// One of them is not one element of `BYTES`.
pub(crate) fn with_texts(tensors: &Tensors, texts: &[String]) -> Result<Tensors, InvalidInput> {
    let mut all = Tensors::new();
    for (name, tensor) in tensors.iter() {
        let tensor = if texts.iter().any(|text| text == name) {
            let text =
                text_of_binary(tensor.data()).map_err(|error| InvalidInput { field: name.to_owned(), ..error })?;
            Tensor::new(DType::U8, vec![text.len()], text)
        } else {
            Ok(tensor.clone())
        };
        let added = tensor.and_then(|tensor| all.insert(name, tensor));
        added.map_err(|error| InvalidInput::new(name, error.to_string()))?;
    }
    Ok(all)
}

/// The `parameters` of an input.
#[derive(Debug, Default)]
pub(crate) struct InputParameters {
    /// Length of its binary data.
    pub(crate) binary_data_size: Option<usize>,
    /// The operand in place of its value.
    pub(crate) operand: Option<String>,
    /// The shared memory that its value is in.
    pub(crate) region: RegionParameters,
}

impl InputParameters {
    /// Parses parameters, whose names differ. Errors have the field within the input.
    ///
    /// # Errors
    /// The first that is unknown or invalid.
    pub(crate) fn parse(parameters: impl IntoIterator<Item = (String, ParameterValue)>) -> Result<Self, InvalidInput> {
        let mut parsed = Self::default();
        for (name, value) in parameters {
            if parsed.region.take(&name, &value)? {
                continue;
            }
            let invalid = |reason: &str| Err(InvalidInput::new(format!("parameters.{name}"), reason));
            match (name.as_str(), value) {
                ("binary_data_size", ParameterValue::Integer(size)) if usize::try_from(size).is_ok() => {
                    parsed.binary_data_size = usize::try_from(size).ok();
                }
                ("binary_data_size", _) => return invalid("it is not a number of bytes"),
                ("operand", ParameterValue::Text(reference)) => parsed.operand = Some(reference),
                ("operand", _) => return invalid("it is not a string"),
                (name, _) => return Err(unknown_parameter(name)),
            }
        }
        Ok(parsed)
    }
}

/// The error of a parameter of an input or output that this server does not know.
pub(crate) fn unknown_parameter(name: &str) -> InvalidInput {
    let reason = match name {
        "classification" => "classification is not supported",
        _ => "unknown parameter",
    };
    InvalidInput::new(format!("parameters.{name}"), reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_one_element_of_the_length_that_it_has() {
        let read = |bytes: &'static [u8]| text_of_binary(&Bytes::from_static(bytes));
        assert_eq!(read(b"\x02\0\0\0ab").unwrap(), "ab");
        assert_eq!(read(b"\0\0\0\0").unwrap(), "");
        for bytes in [&b""[..], b"\0\0\0", b"\x02\0\0\0a", b"\x01\0\0\0ab", b"\xff\xff\xff\xffab"] {
            assert!(read(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn parameters_of_inputs_are_known_or_rejected_by_name() {
        let parse = |name: &str, value| InputParameters::parse([(name.to_owned(), value)]);
        assert_eq!(parse("binary_data_size", ParameterValue::Integer(12)).unwrap().binary_data_size, Some(12));
        for (name, value) in [
            ("binary_data_size", ParameterValue::Integer(-1)),
            ("binary_data_size", ParameterValue::Integer(i128::MAX)),
            ("binary_data_size", ParameterValue::Text("1".to_owned())),
            ("operand", ParameterValue::Integer(1)),
            ("shared_memory_region", ParameterValue::Integer(1)),
            ("shared_memory_byte_size", ParameterValue::Integer(-1)),
            ("shared_memory_offset", ParameterValue::Text("0".to_owned())),
            ("other", ParameterValue::Bool(true)),
        ] {
            assert_eq!(parse(name, value.clone()).unwrap_err().field, format!("parameters.{name}"), "{value:?}");
        }
        assert!(operand_input("graph", "../a".to_owned()).is_err());
        assert_eq!(operand_input("graph", "payments@7".to_owned()).unwrap().name, "graph.operand");
    }
}
