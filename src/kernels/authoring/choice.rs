//! [`Choices`]: a field whose values are names of a small set, one for all rows or one for each.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};

use super::cases::Random;
use super::column::Operand;
use super::field::FieldFacts;
use crate::service::{Buffer, Element, array_of_section, is_transfer, read_all};

/// A set of names, such as `call` and `put`; kernels compute with their codes.
pub trait Choice: Copy + Send + Sync + 'static {
    /// The names as JSON has them. The code of a name is its index.
    const NAMES: &'static [&'static str];

    /// The code of a value.
    fn code(self) -> u8;
}

/// One name for all rows, or one for each.
///
/// In JSON a name or an array of names. As a tensor `uint8` of rank 1: the text of a name, or a code for each row.
pub struct Choices<E>(Codes, PhantomData<E>);

#[derive(Clone, Debug, PartialEq)]
enum Codes {
    One(u8),
    Each(Buffer<u8>),
}

impl<E: Choice> Choices<E> {
    const fn new(codes: Codes) -> Self {
        Self(codes, PhantomData)
    }

    /// The length of an array; `None` for one name, which fits any.
    pub fn array_len(&self) -> Option<usize> {
        if let Codes::Each(codes) = &self.0 { Some(codes.len()) } else { None }
    }

    /// The codes, which a kernel's code reads.
    pub fn operand(&self) -> Operand<'_, u8> {
        match &self.0 {
            Codes::One(code) => Operand::One(*code),
            Codes::Each(codes) => Operand::Each(codes),
        }
    }

    /// Random names for tests.
    pub fn generate(rows: usize, random: &mut Random) -> Self {
        Self::new(Codes::Each((0..rows).map(|_| random.below(E::NAMES.len() as u64) as u8).collect()))
    }
}

/// What is derived from a field of these codes.
pub fn choice_facts(name: &'static str, codes: Operand<'_, u8>) -> FieldFacts {
    match codes {
        Operand::One(code) => FieldFacts { name, rows: None, uniform: Some(code.into()), element: None },
        Operand::Each(codes) => FieldFacts { name, rows: Some(codes.len()), uniform: None, element: Some(u8::DTYPE) },
    }
}

impl<E> Clone for Choices<E> {
    fn clone(&self) -> Self {
        Self(self.0.clone(), PhantomData)
    }
}

impl<E> PartialEq for Choices<E> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<E> fmt::Debug for Choices<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: Choice> From<E> for Choices<E> {
    fn from(value: E) -> Self {
        Self::new(Codes::One(value.code()))
    }
}

impl<E: Choice> From<Vec<E>> for Choices<E> {
    fn from(values: Vec<E>) -> Self {
        Self::new(Codes::Each(values.into_iter().map(E::code).collect()))
    }
}

fn code_of<E: Choice, Error: de::Error>(name: &str) -> Result<u8, Error> {
    let code = E::NAMES.iter().position(|known| *known == name);
    code.map(|code| code as u8).ok_or_else(|| Error::unknown_variant(name, E::NAMES))
}

/// Returns these codes if each is that of a name.
fn checked<E: Choice, Error: de::Error>(codes: Buffer<u8>) -> Result<Codes, Error> {
    match codes.iter().find(|code| usize::from(**code) >= E::NAMES.len()) {
        None => Ok(Codes::Each(codes)),
        Some(&code) => {
            let names = E::NAMES.iter().enumerate().map(|(code, name)| format!("{code} for `{name}`"));
            let expected = names.collect::<Vec<_>>().join(" or ");
            Err(Error::invalid_value(Unexpected::Unsigned(code.into()), &expected.as_str()))
        }
    }
}

/// Serializes in each format as it is read there.
impl<E: Choice> Serialize for Choices<E> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let name = |code: &u8| E::NAMES[usize::from(*code)];
        match &self.0 {
            Codes::Each(codes) if is_transfer() || !serializer.is_human_readable() => codes.serialize(serializer),
            Codes::Each(codes) => serializer.collect_seq(codes.iter().map(name)),
            Codes::One(code) if serializer.is_human_readable() => serializer.serialize_str(name(code)),
            Codes::One(code) => Buffer::from(name(code).as_bytes().to_vec()).serialize(serializer),
        }
    }
}

impl<'de, E: Choice> Deserialize<'de> for Choices<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            return deserializer.deserialize_any(Text::<E>(PhantomData)).map(Self::new);
        }
        let codes = Buffer::<u8>::deserialize(deserializer)?;
        // Text has no byte that is a code, so the two forms cannot be confused.
        if let Some(code) = E::NAMES.iter().position(|name| name.as_bytes() == &*codes) {
            return Ok(Self::new(Codes::One(code as u8)));
        }
        checked::<E, D::Error>(codes).map(Self::new)
    }
}

struct Text<E>(PhantomData<E>);

impl<'de, E: Choice> Visitor<'de> for Text<E> {
    type Value = Codes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}`, or an array of these", E::NAMES.join("`, `"))
    }

    fn visit_str<Error: de::Error>(self, name: &str) -> Result<Codes, Error> {
        code_of::<E, Error>(name).map(Codes::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<Codes, A::Error> {
        let names: Vec<Name<E>> = read_all(seq)?;
        Ok(Codes::Each(names.into_iter().map(|Name(code, _)| code).collect()))
    }

    fn visit_u64<Error: de::Error>(self, section: u64) -> Result<Codes, Error> {
        checked::<E, Error>(array_of_section(section, &self)?)
    }
}

/// The code of one name of an array.
struct Name<E>(u8, PhantomData<E>);

impl<'de, E: Choice> Deserialize<'de> for Name<E> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = Cow::<str>::deserialize(deserializer)?;
        code_of::<E, D::Error>(&name).map(|code| Self(code, PhantomData))
    }
}

impl<E: Choice> JsonSchema for Choices<E> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Choices".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let name = json_schema!({ "enum": E::NAMES });
        json_schema!({ "anyOf": [name, { "type": "array", "items": name }], "x-dtype": "uint8" })
    }
}
