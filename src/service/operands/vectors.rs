//! [`Vectors`]: the operand type of a set of vectors.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::OnceLock;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, SeqAccess, Visitor};
use serde::ser::{self, Serialize, SerializeStruct, Serializer};
use serde_json::json;

use super::tensor_set::aligned_bytes;
use super::value::{OperandArray, OperandValue, typed_document};
use super::vector_norms::VectorNorms;
use crate::service::codec::{decode_json, is_transfer, read_into, shrink};
use crate::service::{
    Bf16, Buffer, DType, Element, F16, InvalidInput, KernelError, Payload, RunContext, Tensor, Tensors,
};

/// A set of vectors of the same dimension, as an operand: a row-major matrix of finite numbers.
///
/// A kernel takes one in a field of type [`Operand<Vectors>`](super::Operand), inline or by name.
///
/// Clients upload a tensor `vectors` of shape `[rows, dimension]` and type FP32, FP16 or BF16, or JSON:
/// `{"vectors": [[1.0, 0.5], [0.25, 2.0]], "dtype": "float16"}`. JSON numbers are read in single precision; if the dtype is
/// `float16` or `bfloat16`, they are then rounded to it. The default is `float32`.
///
/// ```
/// use tower_kernels::service::{Operands, VectorElements, Vectors};
///
/// let operands = Operands::default();
/// let corpus = Vectors::new(2, vec![1.0_f32, 0.5, 0.25, 2.0])?;
/// assert_eq!((corpus.rows(), corpus.dimension()), (2, 2));
/// let VectorElements::F32(elements) = corpus.elements() else { unreachable!("they are single precision") };
/// assert_eq!(elements[2..], [0.25, 2.0], "the second vector");
/// operands.put("corpus", corpus)?;
/// # Ok::<(), tower_kernels::service::OperandError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Vectors {
    document: VectorsDocument,
    norms: OnceLock<VectorNorms>,
}

impl Vectors {
    /// Creates vectors of this dimension from their numbers, one vector after the other.
    ///
    /// # Errors
    /// The dimension is 0, there are no numbers, their count is not a multiple of the dimension, or one is not finite.
    pub fn new(dimension: usize, elements: impl Into<VectorElements>) -> Result<Self, InvalidInput> {
        let document = VectorsDocument { dimension, elements: elements.into() };
        Self::check(&document)?;
        Ok(Self::from_checked(document))
    }

    fn from_checked(document: VectorsDocument) -> Self {
        Self { document, norms: OnceLock::new() }
    }

    /// Returns the number of vectors, which is at least 1.
    pub fn rows(&self) -> usize {
        self.document.elements.len() / self.document.dimension
    }

    /// Returns the dimension of each vector, which is at least 1.
    pub fn dimension(&self) -> usize {
        self.document.dimension
    }

    /// Returns the numbers, one vector after the other.
    pub fn elements(&self) -> &VectorElements {
        &self.document.elements
    }

    /// Returns the Euclidean norms of the vectors. They are computed at the first call and kept.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn norms(&self, context: &RunContext<'_>) -> Result<&VectorNorms, KernelError> {
        if let Some(norms) = self.norms.get() {
            return Ok(norms);
        }
        let norms = VectorNorms::new(self.elements(), self.dimension(), context)?;
        // Another thread may have made them in the meantime; they are the same.
        Ok(self.norms.get_or_init(|| norms))
    }
}

/// Compares the vectors, and not whether their norms are known.
impl PartialEq for Vectors {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
    }
}

/// The numbers of [`Vectors`], in one of three precisions.
#[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
#[non_exhaustive]
pub enum VectorElements {
    /// Single precision.
    F32(Buffer<f32>),
    /// Half precision.
    F16(Buffer<F16>),
    /// bfloat16.
    Bf16(Buffer<Bf16>),
}

impl VectorElements {
    /// Returns how many numbers there are.
    pub fn len(&self) -> usize {
        match self {
            Self::F32(elements) => elements.len(),
            Self::F16(elements) => elements.len(),
            Self::Bf16(elements) => elements.len(),
        }
    }

    /// Returns whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the type of the numbers.
    pub fn dtype(&self) -> DType {
        match self {
            Self::F32(_) => DType::F32,
            Self::F16(_) => DType::F16,
            Self::Bf16(_) => DType::Bf16,
        }
    }

    fn bytes(&self) -> &[u8] {
        match self {
            Self::F32(elements) => bytemuck::cast_slice(elements),
            Self::F16(elements) => bytemuck::cast_slice(elements),
            Self::Bf16(elements) => bytemuck::cast_slice(elements),
        }
    }

    /// Returns the index of a number in this range that is infinite or NaN.
    fn non_finite(&self, range: Range<usize>) -> Option<usize> {
        let start = range.start;
        let found = match self {
            Self::F32(elements) => non_finite(&elements[range], f32::is_finite),
            Self::F16(elements) => non_finite(&elements[range], F16::is_finite),
            Self::Bf16(elements) => non_finite(&elements[range], Bf16::is_finite),
        };
        found.map(|index| start + index)
    }
}

/// Looks at all elements before it looks for one, which the compiler can vectorize.
fn non_finite<T: Copy>(elements: &[T], is_finite: fn(T) -> bool) -> Option<usize> {
    let all_finite = elements.iter().fold(true, |all, &element| all & is_finite(element));
    if all_finite { None } else { elements.iter().position(|&element| !is_finite(element)) }
}

macro_rules! from_elements {
    ($($type:ident $variant:ident)*) => {$(
        impl From<Buffer<$type>> for VectorElements {
            fn from(elements: Buffer<$type>) -> Self {
                Self::$variant(elements)
            }
        }

        impl From<Vec<$type>> for VectorElements {
            fn from(elements: Vec<$type>) -> Self {
                Self::$variant(elements.into())
            }
        }
    )*};
}
from_elements! { f32 F32 F16 F16 Bf16 Bf16 }

/// What clients send as [`Vectors`], before it is checked.
#[derive(Clone, Debug, PartialEq)]
pub struct VectorsDocument {
    /// The dimension of each vector.
    pub dimension: usize,
    /// The numbers, one vector after the other.
    pub elements: VectorElements,
}

/// The name of the field and of the tensor.
const FIELD: &str = "vectors";

/// Numbers between two checks for cancellation: about 100 µs.
const STRIDE: usize = 1 << 20;

impl VectorsDocument {
    /// Reads the only tensor of an upload.
    fn from_tensors(tensors: &Tensors) -> Result<Self, InvalidInput> {
        if let Some((other, _)) = tensors.iter().find(|(name, _)| *name != FIELD) {
            return Err(InvalidInput::new(other, format!("unknown tensor, expected `{FIELD}`")));
        }
        let tensor = tensors.get(FIELD).ok_or_else(|| InvalidInput::new(FIELD, "missing tensor"))?;
        let elements = match tensor.dtype() {
            DType::F32 => shared::<f32>(tensor).into(),
            DType::F16 => shared::<F16>(tensor).into(),
            DType::Bf16 => shared::<Bf16>(tensor).into(),
            dtype => {
                let reason = format!("dtype {dtype} where float32, float16 or bfloat16 is expected");
                return Err(InvalidInput::new(FIELD, reason));
            }
        };
        match *tensor.shape() {
            [_, dimension] => Ok(Self { dimension, elements }),
            ref shape => Err(InvalidInput::new(FIELD, format!("shape {shape:?} where [rows, dimension] is expected"))),
        }
    }

    fn check_shape(&self) -> Result<(), InvalidInput> {
        let Self { dimension, elements } = self;
        let reason = if elements.is_empty() {
            "there are no numbers".to_owned()
        } else if !elements.len().is_multiple_of(*dimension) {
            format!("{} numbers are no multiple of the dimension {dimension}", elements.len())
        } else {
            return Ok(());
        };
        Err(InvalidInput::new(FIELD, reason))
    }

    fn check_finite(&self, range: Range<usize>) -> Result<(), InvalidInput> {
        match self.elements.non_finite(range) {
            None => Ok(()),
            Some(index) => {
                let (row, column) = (index / self.dimension, index % self.dimension);
                Err(InvalidInput::new(format!("{FIELD}[{row}][{column}]"), "it is not a finite number"))
            }
        }
    }
}

/// Returns the elements of a tensor, in its memory if they are aligned there.
fn shared<T: Element>(tensor: &Tensor) -> Buffer<T> {
    // An empty slice may have any address.
    if tensor.data().is_empty() {
        return Buffer::default();
    }
    Buffer::from_bytes(aligned_bytes(tensor.data())).expect("the bytes are aligned for any element")
}

/// The JSON form of [`Vectors`].
#[derive(serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Vectors", extend("examples" = [
    { "vectors": [[1.0, 0.5], [0.25, 2.0]] },
    { "vectors": [[1.0, 0.5, 0.0]], "dtype": "float16" },
]))]
struct JsonDocument {
    /// The vectors, at least one: arrays of finite numbers, of one length, which is at least 1.
    #[schemars(with = "Vec<Vec<f32>>", length(min = 1))]
    vectors: Rows,
    /// The type in which the numbers are stored. Default: `float32`.
    #[serde(default)]
    dtype: StoredDType,
}

#[derive(Clone, Copy, Default, serde::Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum StoredDType {
    #[default]
    Float32,
    Float16,
    BFloat16,
}

/// The form in which vectors cross to another process.
#[derive(serde::Serialize, serde::Deserialize)]
struct TransferDocument<E> {
    dimension: usize,
    elements: E,
}

/// Serializes as the JSON form.
impl Serialize for VectorsDocument {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { dimension, elements } = self;
        if is_transfer() {
            return TransferDocument { dimension: *dimension, elements }.serialize(serializer);
        }
        self.check_shape().map_err(ser::Error::custom)?;
        let mut document = serializer.serialize_struct("Vectors", 2)?;
        match elements {
            VectorElements::F32(numbers) => {
                document.serialize_field(FIELD, &numbers.chunks(*dimension).collect::<Vec<_>>())?;
            }
            VectorElements::F16(numbers) => {
                document.serialize_field(FIELD, &numbers.chunks(*dimension).collect::<Vec<_>>())?;
            }
            VectorElements::Bf16(numbers) => {
                document.serialize_field(FIELD, &numbers.chunks(*dimension).collect::<Vec<_>>())?;
            }
        }
        document.serialize_field("dtype", self.elements.dtype().as_str())?;
        document.end()
    }
}

impl<'de> Deserialize<'de> for VectorsDocument {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if is_transfer() {
            let TransferDocument { dimension, elements } = TransferDocument::deserialize(deserializer)?;
            return Ok(Self { dimension, elements });
        }
        let JsonDocument { vectors: Rows { dimension, elements }, dtype } = JsonDocument::deserialize(deserializer)?;
        let elements = match dtype {
            StoredDType::Float32 => elements.into(),
            StoredDType::Float16 => elements.into_iter().map(F16::from_f32).collect::<Vec<_>>().into(),
            StoredDType::BFloat16 => elements.into_iter().map(Bf16::from_f32).collect::<Vec<_>>().into(),
        };
        Ok(Self { dimension, elements })
    }
}

impl JsonSchema for VectorsDocument {
    fn schema_name() -> Cow<'static, str> {
        JsonDocument::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        JsonDocument::json_schema(generator)
    }
}

/// An array of arrays of one length.
#[derive(Default)]
struct Rows {
    dimension: usize,
    elements: Vec<f32>,
}

impl<'de> Deserialize<'de> for Rows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outer;

        impl<'de> Visitor<'de> for Outer {
            type Value = Rows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of vectors")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Rows, A::Error> {
                let mut rows = Rows::default();
                while seq.next_element_seed(NextRow(&mut rows))?.is_some() {}
                shrink(&mut rows.elements);
                Ok(rows)
            }
        }

        deserializer.deserialize_seq(Outer)
    }
}

/// Reads one row. The first says how long the others are.
struct NextRow<'a>(&'a mut Rows);

impl<'de> DeserializeSeed<'de> for NextRow<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for NextRow<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a vector, an array of numbers")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, seq: A) -> Result<(), A::Error> {
        let Rows { dimension, elements } = self.0;
        let start = elements.len();
        read_into(seq, elements)?;
        match (elements.len() - start, *dimension) {
            (0, _) => Err(A::Error::custom("the vector has no numbers")),
            (length, 0) => {
                *dimension = length;
                Ok(())
            }
            (length, first) if length != first => {
                Err(A::Error::custom(format!("the vector has {length} numbers, and the first has {first}")))
            }
            _ => Ok(()),
        }
    }
}

impl OperandValue for Vectors {
    const TYPE: &'static str = "vectors";

    type Document = VectorsDocument;

    fn decode(payload: Payload) -> Result<VectorsDocument, InvalidInput> {
        match payload {
            Payload::Json(document) => decode_json(&document),
            Payload::Tensors(tensors) => VectorsDocument::from_tensors(&tensors),
            Payload::Typed(value) => typed_document(value, Self::TYPE),
        }
    }

    fn check(document: &VectorsDocument) -> Result<(), InvalidInput> {
        document.check_shape()?;
        document.check_finite(0..document.elements.len())
    }

    fn from_document(document: &VectorsDocument, context: &RunContext<'_>) -> Result<Self, KernelError> {
        document.check_shape()?;
        let len = document.elements.len();
        for start in (0..len).step_by(STRIDE) {
            context.check()?;
            document.check_finite(start..len.min(start + STRIDE))?;
        }
        Ok(Self::from_checked(document.clone()))
    }

    fn summary(&self) -> serde_json::Value {
        let dtype = self.elements().dtype().as_str();
        json!({ "rows": self.rows(), "dimension": self.dimension(), "dtype": dtype })
    }

    /// Counts the norms before they are made.
    fn bytes(&self) -> u64 {
        self.elements().bytes().len() as u64 + (self.rows() * size_of::<f32>()) as u64
    }

    fn to_tensors(&self) -> Tensors {
        let data = match self.elements().clone() {
            VectorElements::F32(elements) => elements.into_bytes(),
            VectorElements::F16(elements) => elements.into_bytes(),
            VectorElements::Bf16(elements) => elements.into_bytes(),
        };
        let tensor = Tensor::new(self.elements().dtype(), vec![self.rows(), self.dimension()], data);
        let mut tensors = Tensors::new();
        tensor.and_then(|tensor| tensors.insert(FIELD, tensor)).expect("the shape is that of the elements");
        tensors
    }

    fn arrays(&self) -> Vec<OperandArray<'_>> {
        let mut arrays =
            vec![OperandArray { name: FIELD, dtype: self.elements().dtype(), bytes: self.elements().bytes() }];
        if let Some(norms) = self.norms.get() {
            arrays.push(OperandArray { name: "norms", dtype: DType::F32, bytes: bytemuck::cast_slice(norms.values()) });
        }
        arrays
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn read(payload: impl Into<Payload>) -> Result<Vectors, InvalidInput> {
        let document = Vectors::decode(payload.into())?;
        Vectors::check(&document)?;
        Ok(Vectors::from_document(&document, &RunContext::detached()).expect("it was checked"))
    }

    fn tensor(name: &str, dtype: DType, shape: &[usize], data: Vec<u8>) -> Tensors {
        let mut tensors = Tensors::new();
        tensors.insert(name, Tensor::new(dtype, shape.to_vec(), data.into()).unwrap()).unwrap();
        tensors
    }

    #[test]
    fn json_is_single_precision_unless_it_says_otherwise() {
        let vectors = read(Payload::json(r#"{"vectors": [[1, 2.5], [-3e2, 0], [4, 5]]}"#)).unwrap();
        assert_eq!((vectors.rows(), vectors.dimension()), (3, 2));
        assert_eq!(*vectors.elements(), vec![1.0_f32, 2.5, -300.0, 0.0, 4.0, 5.0].into());
        assert_eq!(vectors, Vectors::new(2, vec![1.0_f32, 2.5, -300.0, 0.0, 4.0, 5.0]).unwrap());
        for (dtype, elements) in [
            ("float32", vec![2049.0_f32, 0.5].into()),
            ("float16", vec![F16::from_f32(2048.0), F16::from_f32(0.5)].into()),
            ("bfloat16", VectorElements::from(vec![Bf16::from_f32(2048.0), Bf16::from_f32(0.5)])),
        ] {
            for json in [
                format!(r#"{{"dtype": "{dtype}", "vectors": [[2049, 0.5]]}}"#),
                format!(r#"{{"vectors": [[2049, 0.5]], "dtype": "{dtype}"}}"#),
            ] {
                let vectors = read(Payload::json(json)).unwrap();
                assert_eq!(*vectors.elements(), elements, "{dtype}");
                assert_eq!(OperandValue::summary(&vectors), json!({"rows": 1, "dimension": 2, "dtype": dtype}));
                // And a norm.
                let bytes = if dtype == "float32" { 8 + 4 } else { 4 + 4 };
                assert_eq!(OperandValue::bytes(&vectors), bytes, "{dtype}");
                assert_eq!(read(OperandValue::to_tensors(&vectors)), Ok(vectors), "read from a file");
            }
        }
    }

    #[test]
    fn tensors_are_shared_if_they_are_aligned() {
        let numbers = [1.0_f32, 2.5, -3.0, 0.5, 4.0, 0.25];
        let halves: Vec<u8> = numbers.iter().flat_map(|&n| F16::from_f32(n).to_bits().to_le_bytes()).collect();
        let brains: Vec<u8> = numbers.iter().flat_map(|&n| Bf16::from_f32(n).to_bits().to_le_bytes()).collect();
        let singles: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
        for (dtype, data, elements) in [
            (DType::F32, singles, VectorElements::from(numbers.to_vec())),
            (DType::F16, halves, numbers.map(F16::from_f32).to_vec().into()),
            (DType::Bf16, brains, numbers.map(Bf16::from_f32).to_vec().into()),
        ] {
            let vectors = read(tensor("vectors", dtype, &[3, 2], data.clone())).unwrap();
            assert_eq!((vectors.rows(), vectors.dimension(), vectors.elements()), (3, 2, &elements));
            // At an odd address.
            let shifted = Bytes::from([&[0_u8][..], &data].concat()).slice(1..);
            let mut tensors = Tensors::new();
            tensors.insert("vectors", Tensor::new(dtype, vec![2, 3], shifted).unwrap()).unwrap();
            assert_eq!(read(tensors).unwrap().elements(), &elements);
        }
        let large = Buffer::<f32>::zeroed(1 << 20).into_bytes();
        let address = large.as_ptr();
        let mut tensors = Tensors::new();
        tensors.insert("vectors", Tensor::new(DType::F32, vec![1 << 10, 1 << 10], large).unwrap()).unwrap();
        assert_eq!(read(tensors).unwrap().elements().bytes().as_ptr(), address);
    }

    #[test]
    fn what_is_no_matrix_of_finite_numbers_is_rejected_by_its_place() {
        let json = |text: &str| Payload::json(text);
        let infinite = f32::INFINITY.to_le_bytes();
        let nan_of_half = [0, 0, 0, 0x7e];
        for (payload, field, reason) in [
            (json("[]"), "input", ""),
            (json("{}"), "vectors", "missing"),
            (json(r#"{"vectors": []}"#), "vectors", "there are no numbers"),
            (json(r#"{"vectors": [[]]}"#), "vectors[0]", "no numbers"),
            (json(r#"{"vectors": [1]}"#), "vectors[0]", "a vector, an array of numbers"),
            (json(r#"{"vectors": [[1, 2], [3]]}"#), "vectors[1]", "has 1 numbers, and the first has 2"),
            (json(r#"{"vectors": [[1], [2, 3]]}"#), "vectors[1]", "has 2 numbers, and the first has 1"),
            (json(r#"{"vectors": [[1, null]]}"#), "vectors[0][1]", ""),
            (json(r#"{"vectors": [[1, "2"]]}"#), "vectors[0][1]", ""),
            (json(r#"{"vectors": [[1, 2], [1e39, 2]]}"#), "vectors[1][0]", "out of range"),
            (json(r#"{"vectors": [[1, 2], [3, 65520]], "dtype": "float16"}"#), "vectors[1][1]", "not a finite number"),
            (json(r#"{"vectors": [[1]], "dtype": "float64"}"#), "dtype", "float64"),
            (json(r#"{"vectors": [[1]], "dimension": 1}"#), "dimension", "unknown field"),
            (tensor("x", DType::F32, &[1, 1], vec![0; 4]).into(), "x", "expected `vectors`"),
            (Tensors::new().into(), "vectors", "missing tensor"),
            (tensor("vectors", DType::F64, &[1, 1], vec![0; 8]).into(), "vectors", "dtype float64 where float32"),
            (tensor("vectors", DType::F32, &[1], vec![0; 4]).into(), "vectors", "shape [1] where [rows, dimension]"),
            (tensor("vectors", DType::F32, &[1, 1, 1], vec![0; 4]).into(), "vectors", "where [rows, dimension]"),
            (tensor("vectors", DType::F16, &[0, 4], vec![]).into(), "vectors", "there are no numbers"),
            (tensor("vectors", DType::F16, &[1 << 40, 0], vec![]).into(), "vectors", "there are no numbers"),
            (tensor("vectors", DType::F32, &[1, 1], infinite.to_vec()).into(), "vectors[0][0]", "not a finite number"),
            (tensor("vectors", DType::F16, &[2, 1], nan_of_half.to_vec()).into(), "vectors[1][0]", "not a finite"),
            (Payload::typed(7_u32), "input", "u32"),
        ] {
            let error = read(payload).unwrap_err();
            assert_eq!(error.field, field, "{error}");
            assert!(error.reason.contains(reason), "{error}");
        }
        assert!(Vectors::new(0, vec![1.0_f32]).is_err() && Vectors::new(2, vec![1.0_f32; 3]).is_err());
    }

    #[test]
    fn building_stops_when_it_is_cancelled() {
        let document = VectorsDocument { dimension: 1, elements: vec![1.0_f32; 3 * STRIDE].into() };
        let checks = std::sync::atomic::AtomicUsize::new(0);
        let is_cancelled = || checks.fetch_add(1, std::sync::atomic::Ordering::Relaxed) > 1;
        let error = Vectors::from_document(&document, &RunContext::new(Some(&is_cancelled), None)).unwrap_err();
        assert!(matches!(error, KernelError::Cancelled), "{error}");
    }
}
