//! Decodes inputs from JSON and encodes outputs as JSON.

mod number_text;
mod numbers;
#[cfg(test)]
mod oracle;
mod raw;
mod text;
mod writer;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

#[cfg_attr(not(any(feature = "axum", feature = "hyper")), allow(unused_imports, reason = "only of documents"))]
pub(crate) use self::raw::RawJson;
use self::text::{JsonText, Unusual};
pub(crate) use self::writer::write_document;
use super::bounded::BoundedWriter;
use super::object::ObjectOnly;
use super::stop::stopped;
use crate::service::{InvalidInput, KernelError, RunContext};

/// The UTF-8 byte order mark, which some editors and shells write.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Decodes an input. It skips a byte order mark. An error names the field.
pub(crate) fn decode_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, InvalidInput> {
    let bytes = bytes.strip_prefix(BYTE_ORDER_MARK).unwrap_or(bytes);
    read_usual(bytes, |text| T::deserialize(ObjectOnly(text))).or_else(|Unusual| read_any(bytes))
}

/// Reads a value from the usual document. Where it fails, serde_json may still read the document.
pub(crate) fn read_usual_json<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Unusual> {
    read_usual(bytes, |text| T::deserialize(text))
}

fn read_usual<'de, T>(
    bytes: &'de [u8],
    read: impl FnOnce(&mut JsonText<'de>) -> Result<T, Unusual>,
) -> Result<T, Unusual> {
    let mut text = JsonText::new(bytes);
    let value = read(&mut text)?;
    text.end().map(|()| value)
}

#[cold]
fn read_any<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, InvalidInput> {
    let invalid = |error: serde_json::Error| InvalidInput::new("input", error.to_string());
    if let Some(stopped) = stopped() {
        return Err(invalid(serde::de::Error::custom(stopped)));
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let read = T::deserialize(ObjectOnly(&mut deserializer)).and_then(|value| deserializer.end().map(|()| value));
    // Tracking the path costs an allocation a field, so only input that is known to be wrong is read again with it.
    read.map_err(|error| tracked::<T>(bytes).unwrap_or_else(|| invalid(error)))
}

#[cold]
fn tracked<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Option<InvalidInput> {
    if stopped().is_some() {
        return None;
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let error = serde_path_to_error::deserialize::<_, T>(ObjectOnly(&mut deserializer)).err()?;
    // "." is the document itself and "?" a place that the parser did not get to.
    let path = error.path().to_string();
    let reason = error.into_inner().to_string();
    Some(match (path.as_str(), quoted_field(&reason)) {
        ("." | "?", Some(field)) => InvalidInput::new(field, reason.clone()),
        ("." | "?", None) => InvalidInput::new("input", reason),
        (path, Some(field)) if !path.ends_with(field) => InvalidInput::new(format!("{path}.{field}"), reason.clone()),
        (path, _) => InvalidInput::new(path, reason.clone()),
    })
}

/// Returns the field that is missing or unknown, which serde names only in its message.
fn quoted_field(reason: &str) -> Option<&str> {
    let rest = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| reason.strip_prefix(start))?;
    rest.split_once('`').map(|(field, _)| field)
}

/// Returns the maximum size in bytes of the values in a JSON document: 8 for each number, and at most its own length for
/// strings. Inputs whose elements are structs or collections can take more.
pub(crate) fn decoded_size(document: &[u8]) -> u64 {
    /// Smaller documents are not worth counting.
    const SMALL: usize = 4 << 10;
    // A number of an array has at least one digit and a separator.
    let most_values = document.len() as u64 / 2 + 1;
    let values = if document.len() <= SMALL {
        most_values
    } else {
        document.iter().filter(|byte| **byte == b',').count() as u64 + 1
    };
    (8 * values).max(document.len() as u64)
}

/// Encodes an output, for which `expected` bytes were reserved. NaN and infinities become `null`.
pub(crate) fn encode_json<T: Serialize>(
    output: &T,
    expected: usize,
    context: &RunContext<'_>,
) -> Result<Bytes, KernelError> {
    let mut writer = BoundedWriter::new(expected, context);
    match write_document(output, &mut writer) {
        Ok(()) => Ok(writer.finish().into()),
        Err(error) => Err(writer.into_error().unwrap_or_else(|| KernelError::Encode(error.to_string()))),
    }
}

/// Writes a value without bounds. The text is serde_json's.
pub(crate) fn write_json<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, serde_json::Error> {
    /// As serde_json's.
    const INITIAL: usize = 128;
    let mut document = Vec::with_capacity(INITIAL);
    write_document(value, &mut document)?;
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::decode_json;
    use crate::service::Buffer;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Input {
        count: u32,
        pairs: Vec<[u32; 2]>,
    }

    #[test]
    fn errors_name_the_field() {
        for (json, field) in [
            (r#"{"count": -1, "pairs": []}"#, "count"),
            (r#"{"pairs": []}"#, "count"),
            (r#"{"count": 1, "pairs": [], "extra": 1}"#, "extra"),
            (r#"{"count": 1, "pairs": [[0, 1], [0, "x"]]}"#, "pairs[1][1]"),
            (r#"{"count": 1, "pairs": [[0, 1]"#, "pairs"),
            ("", "input"),
            (r#"{"count": 1, "pairs": []} x"#, "input"),
        ] {
            let error = decode_json::<Input>(json.as_bytes()).unwrap_err();
            assert_eq!(error.field, field, "{json}: {error}");
        }
    }

    #[test]
    fn a_number_beyond_its_type_is_refused_and_not_made_infinite() {
        #[derive(Debug, Deserialize)]
        struct Floats {
            x: Buffer<f32>,
        }
        let error = decode_json::<Floats>(br#"{"x": [3.4e38, 1e39]}"#).unwrap_err();
        assert_eq!((error.field.as_str(), error.reason.contains("out of range")), ("x[1]", true), "{error}");
        assert_eq!(decode_json::<Floats>(br#"{"x": [3.4e38]}"#).unwrap().x[0], 3.4e38);
    }

    #[test]
    fn a_byte_order_mark_is_passed_over_and_positions_are_no_names() {
        let input = decode_json::<Input>("\u{feff}{\"count\": 3, \"pairs\": []}".as_bytes()).unwrap();
        assert_eq!(input.count, 3);
        for array in ["[3, []]", "[]", " [3, [[1, 2]]]"] {
            let error = decode_json::<Input>(array.as_bytes()).unwrap_err();
            assert!(error.field == "input" && error.reason.contains("invalid type: sequence"), "{array}: {error}");
        }
    }

    #[test]
    fn deep_nesting_is_refused() {
        let json = format!(r#"{{"count": 1, "pairs": {}"#, "[".repeat(100_000));
        assert!(decode_json::<Input>(json.as_bytes()).is_err());
        let json = "[".repeat(100_000);
        assert!(decode_json::<serde_json::Value>(json.as_bytes()).is_err());
    }
}
