//! Ordered bits: unsigned integers that compare as the numbers that they stand for, for sorting and selecting numbers of
//! any type.
//!
//! Floating-point numbers are in the total order of IEEE 754 but for NaN: -inf, negative numbers, -0, +0, positive
//! numbers, +inf. All NaN are equal, come last in either direction, and come back as the quiet NaN.
//! `include/ordered_bits.cuh` is the same on the device.

use std::fmt::Debug;
use std::ops::{BitAnd, BitOr, BitXor, Not};

use bytemuck::Pod;

use crate::service::{Buffer, Element, NumberArray};

/// What the bits of a number mean, by the numbers that the device code has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum NumberKind {
    /// An unsigned integer.
    Unsigned = 0,
    /// A signed integer in two's complement.
    Signed = 1,
    /// A binary floating-point number of IEEE 754.
    Float = 2,
}

/// Which numbers come first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SortOrder {
    /// The smallest.
    Ascending,
    /// The largest.
    Descending,
}

impl SortOrder {
    /// Returns [`Descending`](Self::Descending) if `descending`.
    pub fn new(descending: bool) -> Self {
        if descending { Self::Descending } else { Self::Ascending }
    }

    /// Returns whether the largest come first.
    pub fn is_descending(self) -> bool {
        self == Self::Descending
    }
}

/// `u32` or `u64`: the bits of a number.
pub trait OrderedBits:
    Element
    + Pod
    + Ord
    + Into<u64>
    + Debug
    + BitXor<Output = Self>
    + BitAnd<Output = Self>
    + BitOr<Output = Self>
    + Not<Output = Self>
{
    /// The highest bit.
    const SIGN: Self;
    /// No bit.
    const ZERO: Self;
    /// The bits of infinity.
    const INFINITY: Self;
    /// The bits of the quiet NaN.
    const QUIET_NAN: Self;
    /// The number of 8-bit digits.
    const DIGITS: u32;

    /// Returns a digit; 0 is the lowest.
    fn digit(self, digit: u32) -> usize;

    /// Returns an index as a word of this size.
    fn from_index(index: u32) -> Self;

    /// Returns the index that [`from_index`](Self::from_index) made a word of.
    fn to_index(self) -> u32;
}

macro_rules! ordered_bits {
    ($($bits:ident $float:ident)*) => {$(
        impl OrderedBits for $bits {
            const SIGN: Self = 1 << ($bits::BITS - 1);
            const ZERO: Self = 0;
            const INFINITY: Self = $float::INFINITY.to_bits();
            // Its sign is not specified.
            const QUIET_NAN: Self = $float::NAN.to_bits() & !Self::SIGN;
            const DIGITS: u32 = $bits::BITS / 8;

            fn digit(self, digit: u32) -> usize {
                usize::from((self >> (8 * digit)) as u8)
            }

            fn from_index(index: u32) -> Self {
                index.into()
            }

            fn to_index(self) -> u32 {
                self as u32
            }
        }
    )*};
}
ordered_bits! { u32 f32 u64 f64 }

/// A number of 32 or 64 bits that has ordered bits.
pub trait OrderedNumber: Element + PartialOrd {
    /// The unsigned integer of its size.
    type Bits: OrderedBits;
    /// What its bits mean.
    const KIND: NumberKind;

    /// Returns an array of this type.
    fn array(numbers: Buffer<Self>) -> NumberArray;

    /// Returns the ordered bits of the number.
    fn to_ordered(self, order: SortOrder) -> Self::Bits {
        let bits: Self::Bits = bytemuck::cast(self);
        let sign = Self::Bits::SIGN;
        let is_negative = bits & sign != Self::Bits::ZERO;
        let flipped = match Self::KIND {
            NumberKind::Unsigned => Self::Bits::ZERO,
            NumberKind::Signed => sign,
            NumberKind::Float if bits & !sign > Self::Bits::INFINITY => return !Self::Bits::ZERO,
            NumberKind::Float if is_negative => !Self::Bits::ZERO,
            NumberKind::Float => sign,
        };
        let ordered = bits ^ flipped;
        if order.is_descending() { !ordered } else { ordered }
    }

    /// Returns the number whose ordered bits these are.
    fn from_ordered(ordered: Self::Bits, order: SortOrder) -> Self {
        if Self::KIND == NumberKind::Float && ordered == !Self::Bits::ZERO {
            return bytemuck::cast(Self::Bits::QUIET_NAN);
        }
        let ordered = if order.is_descending() { !ordered } else { ordered };
        let sign = Self::Bits::SIGN;
        let flipped = match Self::KIND {
            NumberKind::Unsigned => Self::Bits::ZERO,
            NumberKind::Float if ordered & sign == Self::Bits::ZERO => !Self::Bits::ZERO,
            NumberKind::Signed | NumberKind::Float => sign,
        };
        bytemuck::cast(ordered ^ flipped)
    }
}

macro_rules! ordered_numbers {
    ($($number:ident $bits:ident $kind:ident $variant:ident)*) => {$(
        impl OrderedNumber for $number {
            type Bits = $bits;
            const KIND: NumberKind = NumberKind::$kind;

            fn array(numbers: Buffer<Self>) -> NumberArray {
                NumberArray::$variant(numbers)
            }
        }
    )*};
}
ordered_numbers! {
    u32 u32 Unsigned U32
    i32 u32 Signed I32
    f32 u32 Float F32
    u64 u64 Unsigned U64
    i64 u64 Signed I64
    f64 u64 Float F64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T: OrderedNumber>(ascending: &[T]) {
        for order in [SortOrder::Ascending, SortOrder::Descending] {
            let ordered: Vec<T::Bits> = ascending.iter().map(|&number| number.to_ordered(order)).collect();
            assert!(ordered.is_sorted_by(|a, b| if order.is_descending() { a > b } else { a < b }), "{ascending:?}");
            let back: Vec<T> = ordered.into_iter().map(|bits| T::from_ordered(bits, order)).collect();
            let (back, from): (&[u8], &[u8]) = (bytemuck::cast_slice(&back), bytemuck::cast_slice(ascending));
            assert_eq!(back, from);
        }
    }

    #[test]
    fn ordered_bits_compare_as_their_numbers_and_give_them_back() {
        check(&[0, 1, u32::MAX / 2, u32::MAX - 1, u32::MAX]);
        check(&[i32::MIN, -2, -1, 0, 1, i32::MAX]);
        check(&[0, 1, u64::MAX - 1, u64::MAX]);
        check(&[i64::MIN, -1, 0, 1, i64::MAX]);
        check(&[f32::NEG_INFINITY, f32::MIN, -1.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, f32::MAX, f32::INFINITY]);
        check(&[f64::NEG_INFINITY, f64::MIN, -1.0, -5e-324, -0.0, 0.0, 5e-324, 1.0, f64::MAX, f64::INFINITY]);
    }

    #[test]
    fn every_nan_comes_last_in_either_direction_and_comes_back_quiet() {
        for order in [SortOrder::Ascending, SortOrder::Descending] {
            for bits in [0x7fc0_0000, 0xffc0_0000, 0x7f80_0001, 0xffff_ffff] {
                assert_eq!(f32::from_bits(bits).to_ordered(order), u32::MAX);
            }
            assert_eq!(f32::from_ordered(u32::MAX, order).to_bits(), 0x7fc0_0000);
            assert_eq!((-f64::NAN).to_ordered(order), u64::MAX);
            assert_eq!(f64::from_ordered(u64::MAX, order).to_bits(), 0x7ff8_0000_0000_0000);
        }
    }
}
