//! [`JsonText`]: a `Deserializer` of JSON text that reads arrays of numbers fast.
//!
//! It is for the usual document. Where it finds anything else, it fails without a reason, and serde_json reads the document
//! from its start: that one has the last word about what is valid, and its errors say what is wrong and where. What
//! [`JsonText`] reads, serde_json reads to the same value.

use std::fmt;

use serde::de::value::{BorrowedStrDeserializer, StringDeserializer};
use serde::de::{self, DeserializeSeed, Deserializer, IgnoredAny, IntoDeserializer, MapAccess, SeqAccess, Visitor};
use serde_json::de::SliceRead;

use super::numbers::{JsonNumber, Token, read_numbers, skip_whitespace};
use super::raw::{RAW_JSON, length_of_value};
use crate::buffer::{Buffer, DType};
use crate::service::codec::buffer::buffer_dtype;
use crate::service::codec::{stop, zero_copy};

/// The document is not a usual one.
#[derive(Debug)]
pub(crate) struct Unusual;

impl fmt::Display for Unusual {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a usual document")
    }
}

impl std::error::Error for Unusual {}

impl de::Error for Unusual {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self
    }
}

/// As in serde_json, so that a document cannot exhaust the stack.
const MAX_DEPTH: u32 = 127;

/// Returns whether this thread's decoding is not to stop.
fn goes_on() -> bool {
    stop::check::<Unusual>().is_ok()
}

/// A document, of which the first part has been read.
pub(super) struct JsonText<'de> {
    text: &'de [u8],
    at: usize,
    depth: u32,
}

impl<'de> JsonText<'de> {
    pub(super) fn new(text: &'de [u8]) -> Self {
        Self { text, at: 0, depth: 0 }
    }

    /// Checks that nothing follows.
    pub(super) fn end(&mut self) -> Result<(), Unusual> {
        if self.next().is_none() { Ok(()) } else { Err(Unusual) }
    }

    /// Skips whitespace, and returns the character after it.
    #[inline]
    fn next(&mut self) -> Option<u8> {
        self.at = skip_whitespace(self.text, self.at);
        self.text.get(self.at).copied()
    }

    #[inline]
    fn take(&mut self, byte: u8) -> Result<(), Unusual> {
        if self.next() != Some(byte) {
            return Err(Unusual);
        }
        self.at += 1;
        Ok(())
    }

    fn take_word(&mut self, word: &str) -> Result<(), Unusual> {
        if !self.text[self.at..].starts_with(word.as_bytes()) {
            return Err(Unusual);
        }
        self.at += word.len();
        Ok(())
    }

    /// Reads a string without escapes; `None` if it has some, or is not valid.
    fn plain_string(&mut self) -> Option<&'de str> {
        let content = self.text.get(self.at + 1..)?;
        let length = content.iter().position(|&byte| matches!(byte, b'"' | b'\\' | ..b' '))?;
        if content[length] != b'"' {
            return None;
        }
        let string = str::from_utf8(&content[..length]).ok()?;
        self.at += length + 2;
        Some(string)
    }

    /// Has serde_json read the next value.
    fn with_serde_json<T>(
        &mut self,
        read: impl FnOnce(&mut serde_json::Deserializer<SliceRead<'de>>) -> serde_json::Result<T>,
    ) -> Result<T, Unusual> {
        let mut rest = serde_json::Deserializer::from_slice(&self.text[self.at..]);
        let value = read(&mut rest).map_err(|_| Unusual)?;
        self.at += rest.into_iter::<IgnoredAny>().byte_offset();
        Ok(value)
    }

    /// Reads what stands between two brackets.
    fn within<T>(
        &mut self,
        (open, close): (u8, u8),
        read: impl FnOnce(&mut Items<'_, 'de>) -> Result<T, Unusual>,
    ) -> Result<T, Unusual> {
        self.take(open)?;
        if self.depth == MAX_DEPTH {
            return Err(Unusual);
        }
        self.depth += 1;
        let mut items = Items { text: self, close, state: State::Start };
        let value = read(&mut items)?;
        if items.has_next()? {
            return Err(Unusual);
        }
        self.depth -= 1;
        Ok(value)
    }

    fn array<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unusual> {
        self.within((b'[', b']'), |items| visitor.visit_seq(items))
    }

    fn object<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unusual> {
        self.within((b'{', b'}'), |items| visitor.visit_map(items))
    }

    /// Reads a number with a fraction or an exponent as a `T`.
    #[inline]
    fn number<T: JsonNumber + Into<f64>, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unusual> {
        self.next();
        let rest = &self.text[self.at..];
        let token = Token::of(rest).ok_or(Unusual)?;
        self.at += token.length;
        match (token.integer, token.is_negative) {
            (Some(magnitude), false) => visitor.visit_u64(magnitude),
            (Some(0), true) => visitor.visit_f64(-0.0),
            (Some(magnitude), true) => visitor.visit_i64(0_i64.checked_sub_unsigned(magnitude).ok_or(Unusual)?),
            (None, _) => visitor.visit_f64(T::of_text(&rest[..token.length]).ok_or(Unusual)?.into()),
        }
    }

    /// Reads the numbers up to the end of an array, and passes them on as the bytes of a [`Buffer`].
    fn numbers<T: JsonNumber, V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Unusual> {
        let (numbers, end) = read_numbers::<T>(self.text, self.at, goes_on).ok_or(Unusual)?;
        self.at = end;
        let numbers = Buffer::from(numbers);
        let bytes = bytemuck::cast_slice(&numbers);
        match numbers.shared_bytes() {
            Some(shared) => zero_copy::offering(shared, || visitor.visit_bytes(bytes)),
            None => visitor.visit_bytes(bytes),
        }
    }
}

enum State {
    Start,
    AfterItem,
    End,
}

/// The elements of an array, or the entries of an object.
struct Items<'a, 'de> {
    text: &'a mut JsonText<'de>,
    close: u8,
    state: State,
}

impl Items<'_, '_> {
    /// Moves on to the next one. Returns `false` past the closing bracket.
    #[inline]
    fn has_next(&mut self) -> Result<bool, Unusual> {
        let byte = match self.state {
            State::End => return Ok(false),
            State::Start | State::AfterItem => self.text.next().ok_or(Unusual)?,
        };
        if byte == self.close {
            self.text.at += 1;
            self.state = State::End;
            return Ok(false);
        }
        if let State::AfterItem = self.state {
            self.text.take(b',')?;
        }
        self.state = State::AfterItem;
        Ok(true)
    }
}

impl<'de> SeqAccess<'de> for &mut Items<'_, 'de> {
    type Error = Unusual;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unusual> {
        if self.has_next()? { seed.deserialize(&mut *self.text).map(Some) } else { Ok(None) }
    }
}

impl<'de> MapAccess<'de> for &mut Items<'_, 'de> {
    type Error = Unusual;

    fn next_key_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Unusual> {
        if !self.has_next()? {
            return Ok(None);
        }
        if self.text.next() != Some(b'"') {
            return Err(Unusual);
        }
        if let Some(key) = self.text.plain_string() {
            return seed.deserialize(BorrowedStrDeserializer::new(key)).map(Some);
        }
        let key: String = self.text.with_serde_json(|rest| de::Deserialize::deserialize(rest))?;
        seed.deserialize(StringDeserializer::new(key)).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Unusual> {
        self.text.take(b':')?;
        seed.deserialize(&mut *self.text)
    }
}

macro_rules! numbers {
    ($($method:ident $type:ident)*) => {$(
        #[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
            self.number::<$type, V>(visitor)
        }
    )*};
}

macro_rules! by_serde_json {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method<V: Visitor<'de>>(self, $($argument: $type,)* visitor: V) -> Result<V::Value, Unusual> {
            self.with_serde_json(|rest| rest.$method($($argument,)* visitor))
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut JsonText<'de> {
    type Error = Unusual;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.next().ok_or(Unusual)? {
            b'[' => self.array(visitor),
            b'{' => self.object(visitor),
            b'"' => self.deserialize_str(visitor),
            b'-' | b'0'..=b'9' => self.number::<f64, V>(visitor),
            b't' => self.take_word("true").and_then(|()| visitor.visit_bool(true)),
            b'f' => self.take_word("false").and_then(|()| visitor.visit_bool(false)),
            b'n' => self.take_word("null").and_then(|()| visitor.visit_unit()),
            _ => Err(Unusual),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        match self.next() {
            Some(b'n') => self.take_word("null").and_then(|()| visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        if self.next() != Some(b'"') {
            return Err(Unusual);
        }
        match self.plain_string() {
            Some(string) => visitor.visit_borrowed_str(string),
            None => self.with_serde_json(|rest| rest.deserialize_str(visitor)),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.deserialize_str(visitor)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.array(visitor)
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Unusual> {
        self.array(visitor)
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        self.array(visitor)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Unusual> {
        self.object(visitor)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        match self.next() {
            Some(b'[') => self.array(visitor),
            _ => self.object(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(self, name: &'static str, visitor: V) -> Result<V::Value, Unusual> {
        if name == RAW_JSON {
            self.next();
            let rest = &self.text[self.at..];
            let length = length_of_value(rest, goes_on).ok_or(Unusual)?;
            self.at += length;
            return visitor.visit_borrowed_bytes(&rest[..length]);
        }
        match buffer_dtype(name) {
            Some(DType::F32) => self.numbers::<f32, V>(visitor),
            Some(DType::F64) => self.numbers::<f64, V>(visitor),
            Some(DType::U32) => self.numbers::<u32, V>(visitor),
            Some(DType::I32) => self.numbers::<i32, V>(visitor),
            Some(DType::U64) => self.numbers::<u64, V>(visitor),
            Some(DType::I64) => self.numbers::<i64, V>(visitor),
            // `RawValue` is known to serde_json's own deserializer by its name.
            None if name.starts_with("$serde_json::") => {
                self.with_serde_json(|rest| rest.deserialize_newtype_struct(name, visitor))
            }
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Unusual> {
        if self.next() == Some(b'"')
            && let Some(variant) = self.plain_string()
        {
            return visitor.visit_enum(IntoDeserializer::<Unusual>::into_deserializer(variant));
        }
        self.with_serde_json(|rest| rest.deserialize_enum(name, variants, visitor))
    }

    numbers! {
        deserialize_i8 f64 deserialize_i16 f64 deserialize_i32 f64 deserialize_i64 f64
        deserialize_u8 f64 deserialize_u16 f64 deserialize_u32 f64 deserialize_u64 f64
        deserialize_f32 f32 deserialize_f64 f64
    }

    by_serde_json! {
        deserialize_bool() deserialize_i128() deserialize_u128() deserialize_char() deserialize_bytes()
        deserialize_byte_buf() deserialize_unit() deserialize_unit_struct(name: &'static str) deserialize_identifier()
        deserialize_ignored_any()
    }
}
