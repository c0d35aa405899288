//! [`Kinds`]: calls and puts as a request names them.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};

use super::black_scholes::OptionKind;
use crate::service::{Buffer, read_all};

/// Calls and puts: one kind for all contracts, or one for each.
///
/// In JSON `"call"`, `"put"`, or an array of these. As a tensor `uint8` of rank 1: the text `call` or `put`, or a number
/// for each contract, 0 for a call and 1 for a put.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kinds {
    /// One for all.
    All(OptionKind),
    /// One for each.
    Each(Vec<OptionKind>),
}

impl Kinds {
    /// The length of an array; `None` for one kind, which fits any.
    pub fn array_len(&self) -> Option<usize> {
        match self {
            Self::All(_) => None,
            Self::Each(kinds) => Some(kinds.len()),
        }
    }
}

impl From<OptionKind> for Kinds {
    fn from(kind: OptionKind) -> Self {
        Self::All(kind)
    }
}

impl From<Vec<OptionKind>> for Kinds {
    fn from(kinds: Vec<OptionKind>) -> Self {
        Self::Each(kinds)
    }
}

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Text);
        }
        let bytes = Buffer::<u8>::deserialize(deserializer)?;
        // Text has no byte of 0 or 1, so that the two forms cannot be taken for each other.
        match &*bytes {
            b"call" => Ok(Self::All(OptionKind::Call)),
            b"put" => Ok(Self::All(OptionKind::Put)),
            codes => codes.iter().map(|&code| kind(code)).collect::<Result<_, _>>().map(Self::Each),
        }
    }
}

fn kind<E: de::Error>(code: u8) -> Result<OptionKind, E> {
    match code {
        0 => Ok(OptionKind::Call),
        1 => Ok(OptionKind::Put),
        code => Err(E::invalid_value(Unexpected::Unsigned(code.into()), &"0 for a call or 1 for a put")),
    }
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = Kinds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("`call`, `put`, or an array of these")
    }

    fn visit_str<E: de::Error>(self, name: &str) -> Result<Kinds, E> {
        match name {
            "call" => Ok(Kinds::All(OptionKind::Call)),
            "put" => Ok(Kinds::All(OptionKind::Put)),
            name => Err(E::invalid_value(Unexpected::Str(name), &self)),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Kinds, A::Error> {
        read_all(seq).map(Kinds::Each)
    }
}

impl JsonSchema for Kinds {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Kinds".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let kind = json_schema!({ "enum": ["call", "put"] });
        json_schema!({ "anyOf": [kind, { "type": "array", "items": kind }], "x-dtype": "uint8" })
    }
}
