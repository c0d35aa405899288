//! Scores in double precision, and keys that order them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};
use crate::service::{Bf16, Element, F16};

/// The score of a query and a vector.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[repr(u32)]
pub enum Metric {
    /// The cosine of the angle between them: the largest is best.
    #[default]
    Cosine = 0,
    /// Their dot product: the largest is best.
    Dot = 1,
    /// Their Euclidean distance: the smallest is best.
    L2 = 2,
}

impl Metric {
    /// How many metrics there are.
    pub(super) const COUNT: u64 = 3;

    /// Returns a number that is larger for a better score.
    pub fn rank(self, score: f32) -> f32 {
        if self == Self::L2 { -score } else { score }
    }

    /// Returns the score of a rank.
    pub fn score(self, rank: f32) -> f32 {
        // Not -0.
        if self == Self::L2 { 0.0 - rank } else { rank }
    }

    /// Returns the rank of a query and a vector from double precision. `norm` is that of the query.
    pub fn exact_rank<T: VectorElement>(self, query: &[f32], norm: f64, vector: &[T]) -> f32 {
        // Several sums, so that additions need not wait for each other.
        const SUMS: usize = 8;
        let (mut first, mut second) = ([0.0_f64; SUMS], [0.0_f64; SUMS]);
        for (query, vector) in query.chunks(SUMS).zip(vector.chunks(SUMS)) {
            for (index, (&q, &c)) in query.iter().zip(vector).enumerate() {
                let (q, c) = (f64::from(q), f64::from(c.widen()));
                match self {
                    Self::L2 => first[index] += (q - c) * (q - c),
                    Self::Dot => first[index] += q * c,
                    Self::Cosine => {
                        first[index] += q * c;
                        second[index] += c * c;
                    }
                }
            }
        }
        let sum: f64 = first.iter().sum();
        let rank = match self {
            Self::L2 => -sum.sqrt(),
            Self::Dot => sum,
            Self::Cosine => {
                let norms = norm * second.iter().sum::<f64>().sqrt();
                if norms > 0.0 { sum / norms } else { 0.0 }
            }
        };
        // Not -0, which would come after 0.
        rank as f32 + 0.0
    }
}

/// The rank of a vector and its index as one number, which is larger for a better one: of equal ranks, that of the
/// lower index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key(u64);

impl Key {
    /// Creates a key.
    pub fn new(rank: f32, index: u32) -> Self {
        Self(u64::from(rank.to_ordered(SortOrder::Ascending)) << 32 | u64::from(!index))
    }

    /// Creates a key from its bits, as device code computes them.
    #[cfg(feature = "cuda")]
    pub(super) const fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The rank.
    pub fn rank(self) -> f32 {
        f32::from_ordered((self.0 >> 32) as u32, SortOrder::Ascending)
    }

    /// The index of the vector.
    pub fn index(self) -> u32 {
        !(self.0 as u32)
    }
}

/// Queries of one dimension and metric.
#[derive(Debug, Clone)]
pub struct Queries<'a> {
    pub(super) numbers: &'a [f32],
    pub(super) dimension: usize,
    pub(super) metric: Metric,
    /// The Euclidean norm of each.
    pub(super) norms: Vec<f64>,
}

impl<'a> Queries<'a> {
    /// Creates queries from their numbers, one query after the other.
    pub fn new(numbers: &'a [f32], dimension: usize, metric: Metric) -> Self {
        let norm = |query: &[f32]| query.iter().map(|&number| f64::from(number).powi(2)).sum::<f64>().sqrt();
        Self { numbers, dimension, metric, norms: numbers.chunks_exact(dimension).map(norm).collect() }
    }

    /// The number of queries.
    pub(super) fn len(&self) -> usize {
        self.norms.len()
    }

    /// A query.
    pub(super) fn query(&self, index: usize) -> &'a [f32] {
        &self.numbers[index * self.dimension..(index + 1) * self.dimension]
    }
}

/// A number of a vector: single precision, or one of the 16-bit formats.
pub trait VectorElement: Element {
    /// Converts a finite number to single precision, in code that the compiler can vectorize.
    fn widen(self) -> f32;

    /// Returns the numbers if they are in single precision already.
    fn as_f32(numbers: &[Self]) -> Option<&[f32]> {
        let _ = numbers;
        None
    }
}

impl VectorElement for f32 {
    // Into the code that pulp compiles for the processor's vector instructions.
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }

    fn as_f32(numbers: &[f32]) -> Option<&[f32]> {
        Some(numbers)
    }
}

impl VectorElement for Bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        f32::from_bits(u32::from(self.to_bits()) << 16)
    }
}

impl VectorElement for F16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        let bits = u32::from(self.to_bits());
        // The exponents of the two formats differ by 112, for numbers below the normal range as well.
        const SCALE: f32 = f32::from_bits((127 + 112) << 23);
        let magnitude = f32::from_bits((bits & 0x7fff) << 13) * SCALE;
        f32::from_bits(magnitude.to_bits() | (bits & 0x8000) << 16)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finite_numbers_are_widened_exactly() {
        for bits in 0..=u16::MAX {
            let (half, bfloat) = (F16::from_bits(bits), Bf16::from_bits(bits));
            if half.is_finite() {
                assert_eq!(half.widen().to_bits(), half.to_f32().to_bits(), "{bits:x}");
            }
            if bfloat.is_finite() {
                assert_eq!(bfloat.widen().to_bits(), bfloat.to_f32().to_bits(), "{bits:x}");
            }
        }
    }

    #[test]
    fn keys_order_by_rank_and_then_by_index() {
        let keys = [
            Key::new(f32::INFINITY, 7),
            Key::new(2.0, 0),
            Key::new(2.0, 5),
            Key::new(0.0, 1),
            Key::new(-1.0, 3),
            Key::new(-1.0, u32::MAX - 1),
            Key::new(f32::NEG_INFINITY, 0),
        ];
        assert!(keys.is_sorted_by(|a, b| a > b), "{keys:?}");
        assert_eq!(keys.map(Key::index), [7, 0, 5, 1, 3, u32::MAX - 1, 0]);
        assert_eq!(keys[4].rank(), -1.0);
    }

    #[test]
    fn scores_are_those_of_their_definitions() {
        let (query, vector) = ([3.0, 0.0, 4.0_f32], [0.0, 2.0, 1.0_f32]);
        let rank = |metric: Metric| metric.score(metric.exact_rank(&query, 5.0, &vector));
        assert_eq!(rank(Metric::Dot), 4.0);
        assert_eq!(rank(Metric::L2), (9.0_f64 + 4.0 + 9.0).sqrt() as f32);
        assert_eq!(rank(Metric::Cosine), (4.0 / (5.0 * 5.0_f64.sqrt())) as f32);
        for (query, norm, vector) in
            [([0.0; 3], 0.0, vector), (query, 5.0, [0.0; 3]), ([1.0, 0.0, 0.0], 1.0, [-0.0; 3])]
        {
            let rank = Metric::Cosine.exact_rank(&query, norm, &vector);
            assert_eq!(rank.to_bits(), 0.0_f32.to_bits(), "zero has no direction");
        }
        assert_eq!(Metric::L2.score(Metric::L2.exact_rank(&query, 5.0, &query)).to_bits(), 0);
    }
}
