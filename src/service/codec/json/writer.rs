//! Writes JSON documents as serde_json does, but arrays of numbers faster.
//!
//! [`ArrayWriter`] stands between a value and serde_json's serializer, which writes everything but the numbers of a
//! [`Buffer`](crate::buffer::Buffer). It knows one by the name of its newtype, and then takes its bytes: no other type is asked
//! for bytes here, as JSON is a text format. serde_json passes them to the formatter, with the document that they go to.

use std::cell::Cell;
use std::fmt;
use std::io::{self, Write};

use serde::ser::{
    Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use serde_json::ser::{CompactFormatter, Formatter};

use super::number_text::{NumberText, ROOM};
use crate::buffer::{Bf16, DType, F16};
use crate::service::codec::buffer::buffer_dtype;

/// Writes the document of a value.
pub(crate) fn write_document<T: Serialize + ?Sized>(value: &T, document: impl Write) -> serde_json::Result<()> {
    let dtype = Cell::new(None);
    let formatter = NumberFormatter { dtype: &dtype, text: [0; CHUNK] };
    value.serialize(ArrayWriter {
        inner: &mut serde_json::Serializer::with_formatter(document, formatter),
        dtype: &dtype,
        is_array: false,
    })
}

/// The length of the text that is collected before it is appended to the document.
const CHUNK: usize = 512;

/// Writes bytes that are the elements of an array as numbers, and everything else as usual.
struct NumberFormatter<'a> {
    /// The type of the elements, if the next bytes are those of an array.
    dtype: &'a Cell<Option<DType>>,
    text: [u8; CHUNK],
}

impl Formatter for NumberFormatter<'_> {
    fn write_byte_array<W: ?Sized + Write>(&mut self, document: &mut W, bytes: &[u8]) -> io::Result<()> {
        match self.dtype.take() {
            Some(DType::U8) => self.write_numbers::<u8, W>(document, bytes),
            Some(DType::U32) => self.write_numbers::<u32, W>(document, bytes),
            Some(DType::U64) => self.write_numbers::<u64, W>(document, bytes),
            Some(DType::I32) => self.write_numbers::<i32, W>(document, bytes),
            Some(DType::I64) => self.write_numbers::<i64, W>(document, bytes),
            Some(DType::F16) => self.write_numbers::<F16, W>(document, bytes),
            Some(DType::Bf16) => self.write_numbers::<Bf16, W>(document, bytes),
            Some(DType::F32) => self.write_numbers::<f32, W>(document, bytes),
            Some(DType::F64) => self.write_numbers::<f64, W>(document, bytes),
            // No array has elements of type bool.
            Some(DType::Bool) | None => CompactFormatter.write_byte_array(document, bytes),
        }
    }
}

impl NumberFormatter<'_> {
    fn write_numbers<T: NumberText, W: ?Sized + Write>(&mut self, document: &mut W, bytes: &[u8]) -> io::Result<()> {
        let numbers: &[T] = bytemuck::try_cast_slice(bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let [first, rest @ ..] = numbers else { return document.write_all(b"[]") };
        self.text[0] = b'[';
        let mut end = 1 + first.write(self.text[1..].first_chunk_mut().expect("room for a number"));
        for number in rest {
            if CHUNK - end <= ROOM {
                document.write_all(&self.text[..end])?;
                end = 0;
            }
            self.text[end] = b',';
            end += 1 + number.write(self.text[end + 1..].first_chunk_mut().expect("room for a number"));
        }
        self.text[end] = b']';
        document.write_all(&self.text[..=end])
    }
}

/// Serializes with `inner`, or what is within with it, and tells the formatter of the arrays of numbers.
struct ArrayWriter<'a, S> {
    inner: S,
    dtype: &'a Cell<Option<DType>>,
    /// Whether the value is within the newtype of an array, which writes its bytes to binary formats.
    is_array: bool,
}

/// A value that is serialized with an [`ArrayWriter`].
struct Within<'a, T: ?Sized> {
    value: &'a T,
    dtype: &'a Cell<Option<DType>>,
}

impl<T: Serialize + ?Sized> Serialize for Within<'_, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value.serialize(ArrayWriter { inner: serializer, dtype: self.dtype, is_array: false })
    }
}

impl<'a, S> ArrayWriter<'a, S> {
    fn within<'b, T: ?Sized>(&self, value: &'b T) -> Within<'b, T>
    where
        'a: 'b,
    {
        Within { value, dtype: self.dtype }
    }
}

macro_rules! forward {
    ($($method:ident($($argument:ident: $type:ty),*))*) => {$(
        fn $method(self, $($argument: $type),*) -> Result<S::Ok, S::Error> {
            self.inner.$method($($argument),*)
        }
    )*};
}

macro_rules! compounds {
    ($($method:ident($($argument:ident: $type:ty),*) -> $compound:ident;)*) => {$(
        fn $method(self, $($argument: $type),*) -> Result<Self::$compound, S::Error> {
            let Self { inner, dtype, .. } = self;
            Ok(ArrayWriter { inner: inner.$method($($argument),*)?, dtype, is_array: false })
        }
    )*};
}

impl<'a, S: Serializer> Serializer for ArrayWriter<'a, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = ArrayWriter<'a, S::SerializeSeq>;
    type SerializeTuple = ArrayWriter<'a, S::SerializeTuple>;
    type SerializeTupleStruct = ArrayWriter<'a, S::SerializeTupleStruct>;
    type SerializeTupleVariant = ArrayWriter<'a, S::SerializeTupleVariant>;
    type SerializeMap = ArrayWriter<'a, S::SerializeMap>;
    type SerializeStruct = ArrayWriter<'a, S::SerializeStruct>;
    type SerializeStructVariant = ArrayWriter<'a, S::SerializeStructVariant>;

    fn is_human_readable(&self) -> bool {
        !self.is_array && self.inner.is_human_readable()
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(self, name: &'static str, value: &T) -> Result<S::Ok, S::Error> {
        match buffer_dtype(name) {
            Some(dtype) => {
                self.dtype.set(Some(dtype));
                let result = value.serialize(ArrayWriter { inner: self.inner, dtype: self.dtype, is_array: true });
                // Should it have written no bytes.
                self.dtype.set(None);
                result
            }
            None => {
                let value = self.within(value);
                self.inner.serialize_newtype_struct(name, &value)
            }
        }
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let value = self.within(value);
        self.inner.serialize_some(&value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        let value = self.within(value);
        self.inner.serialize_newtype_variant(name, index, variant, &value)
    }

    fn collect_str<T: fmt::Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.inner.collect_str(value)
    }

    forward! {
        serialize_bool(value: bool)
        serialize_i8(value: i8) serialize_i16(value: i16) serialize_i32(value: i32) serialize_i64(value: i64)
        serialize_i128(value: i128)
        serialize_u8(value: u8) serialize_u16(value: u16) serialize_u32(value: u32) serialize_u64(value: u64)
        serialize_u128(value: u128)
        serialize_f32(value: f32) serialize_f64(value: f64)
        serialize_char(value: char) serialize_str(value: &str) serialize_bytes(value: &[u8])
        serialize_none() serialize_unit() serialize_unit_struct(name: &'static str)
        serialize_unit_variant(name: &'static str, index: u32, variant: &'static str)
    }

    compounds! {
        serialize_seq(len: Option<usize>) -> SerializeSeq;
        serialize_tuple(len: usize) -> SerializeTuple;
        serialize_tuple_struct(name: &'static str, len: usize) -> SerializeTupleStruct;
        serialize_tuple_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeTupleVariant;
        serialize_map(len: Option<usize>) -> SerializeMap;
        serialize_struct(name: &'static str, len: usize) -> SerializeStruct;
        serialize_struct_variant(name: &'static str, index: u32, variant: &'static str, len: usize) -> SerializeStructVariant;
    }
}

macro_rules! elements {
    ($($compound:ident::$method:ident)*) => {$(
        impl<C: $compound> $compound for ArrayWriter<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
                let value = self.within(value);
                self.inner.$method(&value)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
elements! {
    SerializeSeq::serialize_element SerializeTuple::serialize_element SerializeTupleStruct::serialize_field
    SerializeTupleVariant::serialize_field
}

macro_rules! fields {
    ($($compound:ident)*) => {$(
        impl<C: $compound> $compound for ArrayWriter<'_, C> {
            type Ok = C::Ok;
            type Error = C::Error;

            fn serialize_field<T: Serialize + ?Sized>(&mut self, key: &'static str, value: &T) -> Result<(), C::Error> {
                let value = self.within(value);
                self.inner.serialize_field(key, &value)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), C::Error> {
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<C::Ok, C::Error> {
                self.inner.end()
            }
        }
    )*};
}
fields! { SerializeStruct SerializeStructVariant }

impl<C: SerializeMap> SerializeMap for ArrayWriter<'_, C> {
    type Ok = C::Ok;
    type Error = C::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), C::Error> {
        self.inner.serialize_key(key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), C::Error> {
        let value = self.within(value);
        self.inner.serialize_value(&value)
    }

    fn end(self) -> Result<C::Ok, C::Error> {
        self.inner.end()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Serialize;

    use super::CHUNK;
    use crate::buffer::{Bf16, F16};
    use crate::random::SplitMix64;
    use crate::service::codec::{decode_json, encode_json};
    use crate::service::{Buffer, FloatArray, RunContext};

    fn written<T: Serialize>(value: &T) -> String {
        let document = encode_json(value, 0, &RunContext::detached()).unwrap();
        String::from_utf8(document.to_vec()).unwrap()
    }

    #[track_caller]
    fn agrees<T: Serialize>(value: &T) {
        let (ours, theirs) = (written(value), serde_json::to_string(value).unwrap());
        if ours != theirs {
            let differing = ours.split(',').zip(theirs.split(',')).find(|(ours, theirs)| ours != theirs);
            panic!("{differing:?}");
        }
    }

    #[test]
    fn numbers_of_random_bits_are_written_as_by_serde_json() {
        let random = SplitMix64::new(1);
        let bits: Vec<u64> = (0..100_000).map(|_| random.next()).collect();
        agrees(&bits.iter().map(|&bits| f64::from_bits(bits)).collect::<Buffer<f64>>());
        agrees(&bits.iter().map(|&bits| f32::from_bits(bits as u32)).collect::<Buffer<f32>>());
        // Most of those are very small or very large.
        let usual = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64 * 10_f64.powi((bits % 18) as i32 - 7);
        agrees(&bits.iter().map(|&bits| usual(bits)).collect::<Buffer<f64>>());
        agrees(&bits.iter().map(|&bits| -usual(bits) as f32).collect::<Buffer<f32>>());
    }

    #[test]
    fn short_numbers_are_written_as_by_serde_json() {
        let random = SplitMix64::new(2);
        let mut numbers = Vec::new();
        for places in 0..8 {
            let power = 10_f64.powi(places);
            numbers.extend((0..12_000).map(|number| f64::from(number) / power));
            numbers.extend((0..10_000).map(|_| (random.next() >> (24 + random.next() % 40)) as f64 / -power));
        }
        for bits in 0..53 {
            let power = (1_u64 << bits) as f64;
            numbers.extend([power, -1.0 / power, power.next_up(), power.next_down(), power + 0.5, power + 0.001]);
            let single = power as f32;
            numbers.extend([single.next_up(), single.next_down(), 1.0 / single.next_down()].map(f64::from));
        }
        for power in 0..20 {
            let power = 10_f64.powi(power);
            numbers.extend([power, power - 0.001, power - 1.0, 1.0 / power, power.next_down(), power.next_up()]);
        }
        numbers.extend([0.0, -0.0, f64::NAN, f64::INFINITY, f64::MIN, f64::MAX, f64::MIN_POSITIVE, 5e-324]);
        agrees(&numbers.iter().copied().collect::<Buffer<f64>>());
        agrees(&numbers.iter().map(|&number| number as f32).collect::<Buffer<f32>>());
    }

    /// Their texts have zeros between the digits of the short number and the last one or two.
    #[test]
    fn numbers_next_to_short_ones_are_written_as_by_serde_json() {
        let random = SplitMix64::new(4);
        let mut numbers = Vec::new();
        for _ in 0..20_000 {
            let short = (random.next() >> (30 + random.next() % 34)) as f64 / 10_f64.powi((random.next() % 12) as i32);
            for ulps in 0..4 {
                numbers.push(f64::from_bits(short.to_bits() + ulps));
                numbers.push(f64::from_bits(short.to_bits().saturating_sub(ulps)));
            }
        }
        let numbers: Buffer<f64> = numbers.into_iter().collect();
        agrees(&numbers);
        let read: Buffer<f64> = decode_json(written(&numbers).as_bytes()).unwrap();
        assert!(read.iter().zip(&*numbers).all(|(read, number)| read.to_bits() == number.to_bits()));
        let single = |number: f64, ulps: u32| f32::from_bits((number as f32).to_bits() + ulps);
        agrees(&numbers.iter().flat_map(|&number| [0, 1, 2].map(|ulps| single(number, ulps))).collect::<Buffer<f32>>());
    }

    #[test]
    fn numbers_of_each_other_type_are_written_as_by_serde_json() {
        let random = SplitMix64::new(3);
        let mut bits: Vec<u64> = (0..100_000).map(|_| random.next() >> (random.next() % 64)).collect();
        for power in 0..20 {
            let power = 10_u64.pow(power);
            bits.extend([power, power - 1, power.wrapping_neg(), (power - 1).wrapping_neg()]);
        }
        bits.extend([i64::MIN.cast_unsigned(), i64::MAX.cast_unsigned(), u64::MAX, 0x8000_0000, 0x7fff_ffff]);
        agrees(&bits.iter().copied().collect::<Buffer<u64>>());
        agrees(&bits.iter().map(|&bits| bits.cast_signed()).collect::<Buffer<i64>>());
        agrees(&bits.iter().map(|&bits| bits.cast_signed().wrapping_neg()).collect::<Buffer<i64>>());
        agrees(&bits.iter().map(|&bits| bits as u32).collect::<Buffer<u32>>());
        agrees(&bits.iter().map(|&bits| bits as i32).collect::<Buffer<i32>>());
        agrees(&(0..=u8::MAX).collect::<Buffer<u8>>());
        agrees(&(0..=u16::MAX).map(F16::from_bits).collect::<Buffer<F16>>());
        agrees(&(0..=u16::MAX).map(Bf16::from_bits).collect::<Buffer<Bf16>>());
    }

    #[test]
    fn arrays_of_each_length_are_written_as_by_serde_json() {
        for length in 0..CHUNK / 2 {
            agrees(&(0..length).map(|number| number as u32 * 37).collect::<Buffer<u32>>());
            agrees(&(0..length).map(|number| -1.0 / number as f64).collect::<Buffer<f64>>());
        }
    }

    #[test]
    fn arrays_anywhere_in_a_document_are_written_as_by_serde_json() {
        #[derive(Serialize)]
        struct Wrapped(Buffer<f64>);

        #[derive(Serialize)]
        enum Kind {
            Newtype(Buffer<u8>),
            Tuple(Buffer<i32>, u8),
            Struct { values: Buffer<u32> },
        }

        #[derive(Serialize)]
        struct Document {
            plain: Buffer<f32>,
            option: Option<Buffer<i64>>,
            wrapped: Wrapped,
            tuple: (Buffer<u64>, f64),
            list: Vec<Buffer<f64>>,
            map: BTreeMap<u8, Buffer<f32>>,
            kinds: Vec<Kind>,
            floats: [FloatArray; 3],
            text: serde_json::Value,
            #[serde(flatten)]
            flat: BTreeMap<String, Buffer<u8>>,
        }

        let floats = || Buffer::from(vec![0.1, -2.5, f64::NAN, 1e300]);
        agrees(&Document {
            plain: vec![1.5, 0.1].into(),
            option: Some(vec![-1, i64::MIN].into()),
            wrapped: Wrapped(floats()),
            tuple: (vec![u64::MAX].into(), 1.5),
            list: vec![floats(), Buffer::default()],
            map: BTreeMap::from([(7, vec![0.25].into())]),
            kinds: vec![
                Kind::Newtype(vec![1, 2].into()),
                Kind::Tuple(vec![-3].into(), 4),
                Kind::Struct { values: vec![5].into() },
            ],
            floats: [1.5.into(), floats().into(), vec![0.1_f32].into()],
            text: serde_json::to_value(floats()).unwrap(),
            flat: BTreeMap::from([("more".to_owned(), vec![8, 9].into())]),
        });
    }

    #[test]
    fn documents_are_written_as_by_serde_json() {
        #[derive(Serialize)]
        struct Document {
            name: &'static str,
            kinds: (i8, i16, i32, i64, i128, u8, u16, u32, u64, u128, bool, char),
            nested: Vec<Vec<f32>>,
            entries: BTreeMap<u32, Option<f64>>,
            unit: (),
            value: serde_json::Value,
            raw: Box<serde_json::value::RawValue>,
            choice: Result<Vec<u8>, [f64; 2]>,
        }
        agrees(&Document {
            name: "a \"quoted\"\n\u{1}\u{7f} é name",
            kinds: (-1, -2, -3, -4, -5, 1, 2, 3, 4, 5, true, '\t'),
            nested: vec![vec![], vec![0.1], vec![1.0, -2.5, f32::NAN]],
            entries: BTreeMap::from([(1, None), (2, Some(0.1)), (3, Some(1e300))]),
            unit: (),
            value: serde_json::json!({"a": [1.5, null, {}], "b": []}),
            raw: serde_json::value::RawValue::from_string("[1.50, 2]".to_owned()).unwrap(),
            choice: Err([0.25, 1.0 / 3.0]),
        });
    }
}
