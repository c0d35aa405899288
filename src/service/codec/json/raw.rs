//! [`RawJson`]: a value of a document that is left as text.

use std::fmt;

use memchr::memchr2;
use serde::de::{Deserialize, Deserializer, Visitor};
use serde_json::value::RawValue;

use super::numbers::{lanes, lanes_equal};

/// The newtype name by which [`JsonText`](super::text::JsonText) recognises a [`RawJson`].
pub(super) const RAW_JSON: &str = "tower_kernels::RawJson";

/// The text of a value, for a reader that comes later and finds out whether it is valid: here only its end is looked for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawJson<'a>(&'a [u8]);

impl<'a> RawJson<'a> {
    pub(crate) fn text(self) -> &'a [u8] {
        self.0
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for RawJson<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Raw;

        impl<'de> Visitor<'de> for Raw {
            type Value = RawJson<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_borrowed_bytes<E>(self, text: &'de [u8]) -> Result<RawJson<'de>, E> {
                Ok(RawJson(text))
            }

            fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawJson<'de>, D::Error> {
                <&RawValue>::deserialize(deserializer).map(|value| RawJson(value.get().as_bytes()))
            }
        }

        deserializer.deserialize_newtype_struct(RAW_JSON, Raw)
    }
}

/// Returns the length of the value at the start of the text, which need not be valid. `None` if it does not end, and once
/// `goes_on` returns `false`, which is asked from time to time.
pub(super) fn length_of_value(text: &[u8], goes_on: impl Fn() -> bool) -> Option<usize> {
    match text.first()? {
        b'"' => length_of_string(text),
        b'[' | b'{' => length_of_brackets(text, goes_on),
        _ => text.iter().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\n' | b'\t' | b'\r')),
    }
}

fn length_of_string(text: &[u8]) -> Option<usize> {
    let mut at = 1;
    loop {
        at += memchr2(b'"', b'\\', text.get(at..)?)?;
        match text[at] {
            b'"' => return Some(at + 1),
            _ => at += 2,
        }
    }
}

/// Whichever kind a bracket is of: the reader that comes later sees whether they match.
fn length_of_brackets(text: &[u8], goes_on: impl Fn() -> bool) -> Option<usize> {
    /// Bytes between two questions, which take less than a millisecond.
    const INTERVAL: usize = 1 << 20;

    let (mut at, mut depth, mut unasked) = (0, 0_usize, INTERVAL);
    loop {
        if at >= unasked {
            if !goes_on() {
                return None;
            }
            unasked = at + INTERVAL;
        }
        let end = at + 8;
        if let Some(eight) = text.get(at..)?.first_chunk()
            && !has_bracket_or_quote(u64::from_le_bytes(*eight))
        {
            at = end;
        }
        while at < end {
            match text.get(at)? {
                b'"' => at += length_of_string(&text[at..])?,
                b'[' | b'{' => {
                    depth += 1;
                    at += 1;
                }
                b']' | b'}' => {
                    depth -= 1;
                    at += 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => at += 1,
            }
        }
    }
}

fn has_bracket_or_quote(text: u64) -> bool {
    // Square brackets become curly ones; what else becomes one of these, or a quote, only looks like one here.
    let text = text | lanes(0x20);
    (lanes_equal(text, b'{') | lanes_equal(text, b'}') | lanes_equal(text, b'"')) != 0
}

#[cfg(test)]
mod tests {
    use super::length_of_value;

    #[test]
    fn values_end_where_their_last_character_is() {
        for value in [
            "1",
            "-1.5e3",
            "true",
            "null",
            r#""""#,
            r#""a\"]}\\""#,
            "[]",
            "{}",
            "[[1, 2], [3]]",
            r#"{"x": [1.25, 2.5, 3.75, 4.125], "y": "]}\"", "z": {"deep": [{}]}}"#,
            "[\"\\u0022]\"]",
        ] {
            for after in [",", "}", " ", "]", "\n", ", \"more\": [1]}"] {
                assert_eq!(
                    length_of_value(format!("{value}{after}").as_bytes(), || true),
                    Some(value.len()),
                    "{value}{after}"
                );
            }
        }
        for unended in ["", "[", "[1, 2", "{\"a\": [}", "\"a", "\"a\\", "\"a\\\"", "[\"]", "1", "true"] {
            assert_eq!(length_of_value(unended.as_bytes(), || true), None, "{unended}");
        }
    }

    #[test]
    fn a_long_value_is_given_up_once_it_is_not_wanted() {
        let long = format!("[{}0]", "0,".repeat(4 << 20));
        let asked = std::cell::Cell::new(0);
        let twice = || {
            asked.set(asked.get() + 1);
            asked.get() < 3
        };
        assert_eq!((length_of_value(long.as_bytes(), twice), asked.get()), (None, 3));
        assert_eq!(length_of_value(long.as_bytes(), || true), Some(long.len()));
    }
}
