//! Kernels that work in single or double precision, on fields that are one number or an array ([`FloatArray`]).

use std::borrow::Cow;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::column::Operand;
use super::elementary::Elementary;
use super::field::FieldFacts;
use crate::service::{Element, FloatArray, InvalidInput};

/// Precision of a computation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single.
    F32,
    /// Double.
    F64,
}

impl Precision {
    /// Single where there are arrays and all of them are `f32`, else double.
    pub fn of<'a>(fields: impl IntoIterator<Item = &'a FloatArray>) -> Self {
        let mut arrays = fields.into_iter().filter(|values| values.array_len().is_some()).peekable();
        let single = arrays.peek().is_some() && arrays.all(|values| matches!(values, FloatArray::F32(_)));
        if single { Self::F32 } else { Self::F64 }
    }

    /// Whether an array has to be converted for a computation in this precision.
    pub fn converts(self, values: &FloatArray) -> bool {
        match self {
            Self::F32 => matches!(values, FloatArray::F64(_)),
            Self::F64 => matches!(values, FloatArray::F32(_)),
        }
    }
}

/// `f32` or `f64`.
pub trait Float: Elementary + Element {
    /// This type as a value.
    const PRECISION: Precision;

    /// The values of a field in this precision.
    fn convert(values: &FloatArray) -> Converted<'_, Self>;
    /// The absolute value.
    fn abs(self) -> Self;

    /// What is derived from a field that is computed with in this precision.
    fn facts(name: &'static str, values: &FloatArray) -> FieldFacts {
        let uniform = if let FloatArray::One(value) = values { Some(value.to_bits()) } else { None };
        let rows = values.array_len();
        FieldFacts { name, rows, uniform, element: rows.map(|_| Self::DTYPE) }
    }
}

/// The values of a field in one precision; an array is copied only where it has the other.
#[derive(Clone, Debug)]
pub enum Converted<'a, T: Clone> {
    /// One number for all rows.
    One(T),
    /// A number for each row.
    Each(Cow<'a, [T]>),
}

impl<T: Copy> Converted<'_, T> {
    /// The column that a kernel's code reads.
    pub fn operand(&self) -> Operand<'_, T> {
        match self {
            Self::One(value) => Operand::One(*value),
            Self::Each(values) => Operand::Each(values),
        }
    }
}

impl Float for f32 {
    const PRECISION: Precision = Precision::F32;

    fn convert(values: &FloatArray) -> Converted<'_, f32> {
        match values {
            FloatArray::One(value) => Converted::One(*value as f32),
            FloatArray::F32(values) => Converted::Each(Cow::Borrowed(values)),
            FloatArray::F64(values) => Converted::Each(values.iter().map(|&value| value as f32).collect()),
        }
    }

    fn abs(self) -> f32 {
        self.abs()
    }
}

impl Float for f64 {
    const PRECISION: Precision = Precision::F64;

    fn convert(values: &FloatArray) -> Converted<'_, f64> {
        match values {
            FloatArray::One(value) => Converted::One(*value),
            FloatArray::F32(values) => Converted::Each(values.iter().map(|&value| value.into()).collect()),
            FloatArray::F64(values) => Converted::Each(Cow::Borrowed(values)),
        }
    }

    fn abs(self) -> f64 {
        self.abs()
    }
}

/// Chunks for the cores of the machine; an array of few values is one chunk, which the calling thread checks.
fn chunks<T: Sync>(values: &[T]) -> impl IndexedParallelIterator<Item = &[T]> {
    values.par_chunks(1 << 18)
}

impl<T: Float> Operand<'_, T> {
    /// The value of a row.
    pub fn value(&self, row: usize) -> T {
        match self {
            Self::One(value) => *value,
            Self::Each(values) => values[row],
        }
    }

    /// The largest absolute value.
    pub fn largest(&self) -> T {
        let larger = |a: T, b: T| if b > a { b } else { a };
        let of_chunk = |values: &[T]| values.iter().fold(T::of(0.0), |most, value| larger(most, value.abs()));
        match self {
            Self::One(value) => value.abs(),
            Self::Each(values) => chunks(values).map(of_chunk).reduce(|| T::of(0.0), larger),
        }
    }

    /// Checks every value.
    ///
    /// # Errors
    /// The first value for which `holds` is false, with its field and index; `expected` describes a value for which it
    /// is true.
    pub fn require(&self, field: &str, holds: impl Fn(T) -> bool + Sync, expected: &str) -> Result<(), InvalidInput> {
        let wrong =
            |field: String, value: T| Err(InvalidInput::new(field, format!("{value:?} where {expected} is expected")));
        match self {
            Self::One(value) if !holds(*value) => wrong(field.to_owned(), *value),
            // Without an early exit within a chunk the usual case is vector code.
            Self::Each(values)
                if !chunks(values).all(|values| values.iter().fold(true, |all, &value| all & holds(value))) =>
            {
                match values.iter().position(|&value| !holds(value)) {
                    Some(index) => wrong(format!("{field}[{index}]"), values[index]),
                    None => Ok(()),
                }
            }
            _ => Ok(()),
        }
    }
}
