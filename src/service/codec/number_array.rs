//! [`NumberArray`]: an array of integers or floating-point numbers of 32 or 64 bits.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Unexpected, Visitor};
use serde::ser::{Serialize, Serializer};
use serde_json::json;

use super::buffer::RawBytes;
use super::sections::{array_of_section, dtype_of_section};
use super::stop::read_all;
use super::{Buffer, Element};
use crate::buffer::DType;
use crate::service::operands::{array_of_reference, dtype_of_reference, read_reference_object, reference_schema};

/// The newtype name by which the tensor codec recognises a [`NumberArray`]. It then passes a map of one entry, from the name
/// of the dtype to the bytes.
pub(super) const ANNOUNCED: &str = "tower_kernels::NumberArray";

/// The integers up to which an `f64` is exact.
const MAX_EXACT: u64 = 1 << 53;

macro_rules! number_arrays {
    ($($(#[$doc:meta])* $type:ident $variant:ident,)*) => {
        /// An array of numbers of one of six types, for kernels that work with any of them.
        ///
        /// A tensor has rank 1, and its dtype is the type. In JSON the numbers decide: if one has a fraction or an exponent,
        /// all are `f64`; otherwise they are `i64`, or `u64` where one is above the range of `i64`. Integers that neither
        /// type holds exactly, such as one above 2^53 among fractions, are an error.
        #[derive(Clone, Debug, PartialEq)]
        #[non_exhaustive]
        pub enum NumberArray {
            $($(#[$doc])* $variant(Buffer<$type>),)*
        }

        impl NumberArray {
            /// Returns the number of elements.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$variant(numbers) => numbers.len(),)*
                }
            }

            /// Returns the type of the elements.
            pub fn dtype(&self) -> DType {
                match self {
                    $(Self::$variant(_) => <$type>::DTYPE,)*
                }
            }
        }

        $(
            impl From<Buffer<$type>> for NumberArray {
                fn from(numbers: Buffer<$type>) -> Self {
                    Self::$variant(numbers)
                }
            }

            impl From<Vec<$type>> for NumberArray {
                fn from(numbers: Vec<$type>) -> Self {
                    Self::$variant(numbers.into())
                }
            }
        )*

        impl Serialize for NumberArray {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(numbers) => numbers.serialize(serializer),)*
                }
            }
        }

        /// Returns the array that a reference names, in its own type.
        fn numbers_of_reference<E: de::Error>(reference: &str) -> Result<NumberArray, E> {
            match dtype_of_reference(reference)? {
                $(DType::$variant => array_of_reference::<$type, E>(reference).map(NumberArray::$variant),)*
                dtype => Err(E::custom(unexpected(dtype.as_str()))),
            }
        }

        /// Reads the bytes of an array of this dtype.
        fn numbers_of_bytes<'de, A: MapAccess<'de>>(dtype: &str, map: &mut A) -> Result<NumberArray, A::Error> {
            match DType::from_name(dtype) {
                $(Some(DType::$variant) => map.next_value_seed(RawBytes::<$type>::new()).map(NumberArray::$variant),)*
                _ => Err(de::Error::custom(unexpected(dtype))),
            }
        }

        /// Returns the array in a section of this dtype.
        fn numbers_of_section<E: de::Error>(dtype: DType, section: u64) -> Result<NumberArray, E> {
            match dtype {
                $(DType::$variant => array_of_section::<$type, E>(section, &Text).map(NumberArray::$variant),)*
                dtype => Err(E::custom(unexpected(dtype.as_str()))),
            }
        }

        const DTYPES: &[DType] = &[$(DType::$variant),*];
    };
}
number_arrays! {
    /// Unsigned 32-bit integers.
    u32 U32,
    /// Signed 32-bit integers.
    i32 I32,
    /// Unsigned 64-bit integers.
    u64 U64,
    /// Signed 64-bit integers.
    i64 I64,
    /// Single-precision numbers.
    f32 F32,
    /// Double-precision numbers.
    f64 F64,
}

fn unexpected(dtype: &str) -> String {
    let names: Vec<&str> = DTYPES.iter().map(|dtype| dtype.as_str()).collect();
    format!("dtype {dtype} where one of {} is expected", names.join(", "))
}

impl NumberArray {
    /// Returns whether there are no elements.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for NumberArray {
    fn default() -> Self {
        Self::F64(Buffer::default())
    }
}

impl<'de> Deserialize<'de> for NumberArray {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(Text)
        } else {
            deserializer.deserialize_newtype_struct(ANNOUNCED, Binary)
        }
    }
}

/// A number of a JSON document.
#[derive(Clone, Copy)]
enum Number {
    Unsigned(u64),
    Negative(i64),
    Float(f64),
}

impl<'de> Deserialize<'de> for Number {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct AnyNumber;

        impl Visitor<'_> for AnyNumber {
            type Value = Number;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number")
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Number, E> {
                Ok(Number::Unsigned(value))
            }

            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Number, E> {
                Ok(u64::try_from(value).map_or(Number::Negative(value), Number::Unsigned))
            }

            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Number, E> {
                Ok(Number::Float(value))
            }
        }

        deserializer.deserialize_any(AnyNumber)
    }
}

impl Number {
    fn to_i64(self) -> Option<i64> {
        match self {
            Self::Unsigned(value) => value.try_into().ok(),
            Self::Negative(value) => Some(value),
            Self::Float(_) => None,
        }
    }

    fn to_u64(self) -> Option<u64> {
        if let Self::Unsigned(value) = self { Some(value) } else { None }
    }

    fn to_f64(self) -> Option<f64> {
        match self {
            Self::Unsigned(value) => (value <= MAX_EXACT).then_some(value as f64),
            Self::Negative(value) => (value.unsigned_abs() <= MAX_EXACT).then_some(value as f64),
            Self::Float(value) => Some(value),
        }
    }
}

/// Converts all numbers, or says which one the type cannot hold.
fn convert<T: Element, E: de::Error>(numbers: &[Number], to: fn(Number) -> Option<T>) -> Result<Buffer<T>, E> {
    let convert = |(index, number): (usize, &Number)| {
        let inexact = || E::custom(format!("number {index} is an integer that {} does not hold exactly", T::DTYPE));
        to(*number).ok_or_else(inexact)
    };
    numbers.iter().enumerate().map(convert).collect()
}

struct Text;

impl<'de> Visitor<'de> for Text {
    type Value = NumberArray;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<NumberArray, A::Error> {
        let numbers = read_all::<Number, A>(seq)?;
        let has = |is: fn(&Number) -> bool| numbers.iter().any(is);
        if has(|number| matches!(number, Number::Float(_))) {
            convert(&numbers, Number::to_f64).map(NumberArray::F64)
        } else if has(|number| matches!(number, Number::Unsigned(value) if *value > i64::MAX.cast_unsigned())) {
            convert(&numbers, Number::to_u64).map(NumberArray::U64)
        } else {
            convert(&numbers, Number::to_i64).map(NumberArray::I64)
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<NumberArray, A::Error> {
        numbers_of_reference(&read_reference_object(map)?)
    }

    fn visit_u64<E: de::Error>(self, section: u64) -> Result<NumberArray, E> {
        match dtype_of_section(section) {
            Some(dtype) => numbers_of_section(dtype, section),
            None => Err(E::invalid_type(Unexpected::Unsigned(section), &self)),
        }
    }
}

struct Binary;

impl<'de> Visitor<'de> for Binary {
    type Value = NumberArray;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tensor of rank 1, of integers or floating-point numbers of 32 or 64 bits")
    }

    /// Reads a reference to an array of an operand.
    fn visit_str<E: de::Error>(self, reference: &str) -> Result<NumberArray, E> {
        numbers_of_reference(reference)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<NumberArray, A::Error> {
        let dtype: Option<String> = map.next_key()?;
        numbers_of_bytes(dtype.as_deref().unwrap_or("none"), &mut map)
    }
}

impl JsonSchema for NumberArray {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NumberArray".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        // NaN and the infinities are written as null.
        let is_output = generator.contract().is_serialize();
        let kind = if is_output { json!(["number", "null"]) } else { json!("number") };
        let array = json!({ "type": "array", "items": { "type": kind } });
        let dtypes: Vec<&str> = DTYPES.iter().map(|dtype| dtype.as_str()).collect();
        if is_output {
            json_schema!({ "type": "array", "items": { "type": kind }, "x-dtype": dtypes })
        } else {
            json_schema!({ "anyOf": [array, reference_schema()], "x-dtype": dtypes })
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use serde::{Deserialize, Serialize};

    use super::*;
    use crate::service::codec::{decode_json, decode_tensors, encode_tensors};
    use crate::service::{RunContext, Tensor, Tensors};

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Arrays {
        values: NumberArray,
    }

    #[test]
    fn the_numbers_of_a_document_decide_their_type() {
        let read = |text: &str| decode_json::<NumberArray>(text.as_bytes());
        assert_eq!(read("[3, -1]").unwrap(), vec![3_i64, -1].into());
        assert_eq!(read("[]").unwrap(), Vec::<i64>::new().into());
        assert_eq!(read("[3, 18446744073709551615]").unwrap(), vec![3, u64::MAX].into());
        assert_eq!(read("[3, -1, 1e0]").unwrap(), vec![3.0, -1.0, 1.0].into());
        for text in ["[-1, 18446744073709551615]", "[0.5, 9007199254740993]", "[-9007199254740993, 0.5]"] {
            let error = read(text).unwrap_err();
            assert!(error.reason.contains("does not hold exactly"), "{error}");
        }
        assert!(read("[\"1\"]").is_err() && read("[null]").is_err() && read("1").is_err());
    }

    #[test]
    fn a_tensor_keeps_its_type() {
        fn check<T: Element>(numbers: Vec<T>)
        where
            NumberArray: From<Vec<T>>,
        {
            let arrays = Arrays { values: numbers.into() };
            let tensors = encode_tensors(&arrays, &RunContext::detached()).unwrap();
            assert_eq!(tensors.get("values").unwrap().dtype(), T::DTYPE);
            assert_eq!(decode_tensors::<Arrays>(&tensors).unwrap(), arrays);
        }
        // One element is an array as well.
        check(vec![1_u32]);
        check(vec![-1_i32, 5]);
        check(vec![u64::MAX, 0]);
        check(vec![i64::MIN, 0]);
        check(vec![1.5_f32]);
        check(vec![1.5_f64, -0.0]);

        let other = |dtype, shape: &[usize], bytes: &'static [u8]| {
            let mut tensors = Tensors::new();
            tensors.insert("values", Tensor::new(dtype, shape.to_vec(), Bytes::from_static(bytes)).unwrap()).unwrap();
            decode_tensors::<Arrays>(&tensors).unwrap_err().to_string()
        };
        assert!(other(DType::U8, &[2], &[1, 2]).contains("uint8"));
        assert!(other(DType::F32, &[1, 1], &[0; 4]).contains("one dimension"));
        assert!(other(DType::F32, &[], &[0; 4]).contains("one dimension"));
    }
}
