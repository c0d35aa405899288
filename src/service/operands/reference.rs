//! [`OperandReference`]: how a request names an operand.

use std::fmt;

use serde_json::{Value, json};

use crate::service::InvalidInput;

/// Maximum number of bytes in the name of an operand.
pub(super) const MAX_NAME: usize = 128;

/// Checks the name of an operand: 1 to 128 characters of `A-Z a-z 0-9 - _ .`, of which the first is not a dot.
///
/// So a name is one segment of a URL path and one file name.
///
/// # Errors
/// What is wrong; the error does not repeat the name.
pub fn check_operand_name(name: &str) -> Result<(), InvalidInput> {
    let is_allowed = |byte| matches!(byte, b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    let reason = match name.as_bytes() {
        [] => "it is empty",
        [b'.', ..] => "it starts with a dot",
        bytes if bytes.len() > MAX_NAME => "it is longer than 128 bytes",
        bytes if bytes.iter().copied().all(is_allowed) => return Ok(()),
        _ => "it has a character other than A-Z a-z 0-9 - _ .",
    };
    Err(InvalidInput::new("operand", format!("the name of the operand is invalid: {reason}")))
}

/// The regular expression of a name, as [`check_operand_name`] has it, without its anchors.
const NAME_PATTERN: &str = "[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}";

/// Returns the JSON Schema of the name of an operand.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn name_schema() -> Value {
    json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": format!("^{NAME_PATTERN}$") })
}

/// Returns the JSON Schema of a name with an optional version.
#[cfg(any(feature = "axum", feature = "hyper"))]
pub(crate) fn version_schema() -> Value {
    let pattern = format!("^{NAME_PATTERN}(@{VERSION_PATTERN})?$");
    json!({ "type": "string", "minLength": 1, "maxLength": MAX_NAME + 1 + MAX_VERSION, "pattern": pattern })
}

/// Returns the JSON Schema of a reference in an input: a name, with an optional version and tensor.
pub(super) fn reference_schema() -> Value {
    json!({ "type": "string", "minLength": 1, "pattern": format!("^{NAME_PATTERN}(@{VERSION_PATTERN})?(/.+)?$") })
}

/// Maximum number of digits of a version, which has 64 bits.
#[cfg(any(feature = "axum", feature = "hyper"))]
const MAX_VERSION: usize = 20;
/// The regular expression of a version.
const VERSION_PATTERN: &str = "[0-9]{1,20}";

/// A reference to an operand: `name`, `name@version`, and either followed by `/tensor` for one tensor of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperandReference<'a> {
    /// The name of the operand.
    pub name: &'a str,
    /// The version; the newest if it is `None`.
    pub version: Option<u64>,
    /// The tensor of a set of tensors; the whole operand if it is `None`.
    pub tensor: Option<&'a str>,
}

impl<'a> OperandReference<'a> {
    /// Parses a reference.
    ///
    /// ```
    /// use tower_kernels::service::OperandReference;
    ///
    /// let reference = OperandReference::parse("prices@7/close").unwrap();
    /// assert_eq!((reference.name, reference.version, reference.tensor), ("prices", Some(7), Some("close")));
    /// assert!(OperandReference::parse("../prices").is_err());
    /// ```
    ///
    /// # Errors
    /// The part that is invalid.
    pub fn parse(text: &'a str) -> Result<Self, InvalidInput> {
        let (operand, tensor) = match text.split_once('/') {
            Some((_, "")) => return Err(InvalidInput::new("operand", "the name of the tensor after `/` is empty")),
            Some((operand, tensor)) => (operand, Some(tensor)),
            None => (text, None),
        };
        let (name, version) = match operand.split_once('@') {
            Some((name, version)) => (name, Some(parse_version(version)?)),
            None => (operand, None),
        };
        check_operand_name(name)?;
        Ok(Self { name, version, tensor })
    }
}

/// Digits only: `u64::from_str` reads a sign as well.
fn parse_version(text: &str) -> Result<u64, InvalidInput> {
    let version = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    version.ok_or_else(|| InvalidInput::new("operand", "the version after `@` is not a whole number"))
}

impl fmt::Display for OperandReference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)?;
        if let Some(version) = self.version {
            write!(f, "@{version}")?;
        }
        if let Some(tensor) = self.tensor {
            write!(f, "/{tensor}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The texts that match the pattern of a schema.
    fn matching(schema: &Value) -> impl Strategy<Value = String> + use<> {
        let pattern = schema["pattern"].as_str().unwrap().trim_start_matches('^').trim_end_matches('$');
        proptest::string::string_regex(pattern).unwrap()
    }

    proptest! {
        #[test]
        fn what_matches_the_pattern_of_references_is_one_unless_the_version_is_too_large(
            text in matching(&reference_schema()),
        ) {
            match OperandReference::parse(&text) {
                Ok(reference) => prop_assert!(reference.name.len() <= MAX_NAME),
                Err(error) => prop_assert!(error.reason.contains("version"), "{}: {}", text, error),
            }
        }
    }

    #[cfg(any(feature = "axum", feature = "hyper"))]
    proptest! {
        #[test]
        fn what_matches_the_pattern_of_names_is_one(name in matching(&name_schema())) {
            prop_assert!(check_operand_name(&name).is_ok(), "{}", name);
        }
    }

    #[test]
    fn the_pattern_is_as_long_as_a_name_may_be() {
        assert!(NAME_PATTERN.ends_with(&format!("{{0,{}}}", MAX_NAME - 1)));
        assert!(check_operand_name(&"x".repeat(MAX_NAME)).is_ok());
        assert!(check_operand_name(&"x".repeat(MAX_NAME + 1)).is_err());
    }

    #[test]
    fn a_reference_is_written_as_it_was_read() {
        for text in ["a", "payments@7", "prices/close", "prices@18446744073709551615/a/b c", "A-z_0.9"] {
            assert_eq!(OperandReference::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_are_one_segment_of_a_path_and_errors_do_not_repeat_them() {
        let long = "x".repeat(10_000);
        let invalid = [
            "",
            "@1",
            "/x",
            "..",
            "../etc/passwd",
            ".hidden",
            "a b",
            "naïve",
            "a\\b",
            "a\nb",
            "a@",
            "a@-1",
            "a@+1",
            "a@1.0",
            "a@99999999999999999999",
            "a/",
            "a@@1",
            "\u{202e}a",
            &long,
        ];
        for text in invalid {
            let error = OperandReference::parse(text).unwrap_err();
            assert_eq!(error.field, "operand");
            assert!(error.reason.len() < 100 && (text.len() < 3 || !error.reason.contains(text)), "{error}");
        }
    }
}
