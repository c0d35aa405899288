//! [`Measure`]: how the score of two nodes follows from their common neighbours.

use std::ops::AddAssign;

/// A score of two nodes. A common neighbour adds 1 or a weight to a sum, and the score follows from the sum and the degrees
/// of the two. `similarity.cu` has the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels::graph) enum Measure {
    /// The number of common neighbours.
    CommonNeighbors = 0,
    /// Common neighbours by all neighbours of the two; 0 if there are none.
    Jaccard = 1,
    /// The sum of the reciprocal logarithms of the degrees of the common neighbours.
    AdamicAdar = 2,
    /// Common neighbours by the geometric mean of the degrees; 0 if one is 0.
    Cosine = 3,
}

impl Measure {
    /// Returns the score of two nodes of these degrees with this sum.
    pub(super) fn score(self, sum: f64, degrees: [usize; 2]) -> f64 {
        let [a, b] = degrees.map(|degree| degree as f64);
        match self {
            Self::CommonNeighbors | Self::AdamicAdar => sum,
            // Without common neighbours the divisor may be 0.
            _ if sum == 0.0 => 0.0,
            Self::Jaccard => sum / (a + b - sum),
            Self::Cosine => sum / (a * b).sqrt(),
        }
    }
}

/// A sum over common neighbours: their number as `u32`, or that of their weights as [`WeightSum`].
pub(super) trait Sum: Copy + Default + PartialEq + AddAssign + Send {
    /// Returns what a common neighbour of this degree, which is 2 or more, adds to the sum. It is not zero.
    fn of_neighbor(degree: usize) -> Self;

    /// Returns the sum as a number.
    fn value(self) -> f64;
}

impl Sum for u32 {
    fn of_neighbor(_: usize) -> Self {
        1
    }

    fn value(self) -> f64 {
        self.into()
    }
}

/// Units of a [`WeightSum`] in 1. The weight of a node is less than 2 and more than 2^-5, as degrees are below 2^28, so that
/// its last bit is a unit or more.
const UNITS: f64 = (1_u64 << 57) as f64;

/// A sum of the weights of the Adamic-Adar index, `1 / ln(degree)`. It is exact, so that it is the same in any order, and
/// rounded once by [`value`](Sum::value).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct WeightSum(u128);

impl WeightSum {
    /// Returns the weight of a common neighbour of this degree, which is 2 or more, in units of 2^-57.
    pub(super) fn units(degree: usize) -> u64 {
        ((degree as f64).ln().recip() * UNITS) as u64
    }
}

impl AddAssign for WeightSum {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for WeightSum {
    fn of_neighbor(degree: usize) -> Self {
        Self(Self::units(degree).into())
    }

    fn value(self) -> f64 {
        self.0 as f64 / UNITS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_whole_numbers_of_units() {
        for degree in [2, 3, 7, 88, 1_000, 65_537, (1 << 28) - 1] {
            assert_eq!(WeightSum::of_neighbor(degree).value(), 1.0 / (degree as f64).ln());
        }
        // As `similarity.cu` relies on for nodes with up to 88 neighbours.
        assert!(88 * u128::from(WeightSum::units(2)) < 1 << 64);
    }

    #[test]
    fn sums_are_rounded_once() {
        let mut sum = WeightSum::default();
        for degree in [2, 1_000_000].repeat(1 << 16) {
            sum += WeightSum::of_neighbor(degree);
        }
        let [large, small] = [2, 1_000_000].map(WeightSum::units);
        let exact = (u128::from(large) + u128::from(small)) << 16;
        assert_eq!(sum, WeightSum(exact));
        assert_eq!(sum.value(), exact as f64 / UNITS);
    }
}
