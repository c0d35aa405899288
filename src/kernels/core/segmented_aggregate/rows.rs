//! Reads the rows of an input, whatever the types of its arrays are.

use std::ops::Range;

use super::accumulator::Row;
use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};
use crate::service::{Buffer, NumberArray};

/// Rows that are converted at a time.
const BLOCK: usize = 1 << 10;

/// A sequence of rows.
pub(super) trait Rows<V>: Sync {
    /// The number of rows.
    fn len(&self) -> usize;

    /// Calls `use_block` with the rows of a range, a block at a time.
    fn for_each_block(&self, range: Range<usize>, use_block: impl FnMut(&[Row<V>]));
}

impl<V: Sync> Rows<V> for [Row<V>] {
    fn len(&self) -> usize {
        <[Row<V>]>::len(self)
    }

    fn for_each_block(&self, range: Range<usize>, mut use_block: impl FnMut(&[Row<V>])) {
        use_block(&self[range]);
    }
}

/// The rows of an input.
#[derive(Clone, Copy)]
pub(super) struct InputRows<'a, V> {
    pub(super) keys: &'a dyn Read<u64>,
    pub(super) values: &'a dyn Read<V>,
}

impl<V: Copy + Default> Rows<V> for InputRows<'_, V> {
    fn len(&self) -> usize {
        self.keys.len()
    }

    fn for_each_block(&self, range: Range<usize>, mut use_block: impl FnMut(&[Row<V>])) {
        let (mut keys, mut values, mut rows) = ([0; BLOCK], [V::default(); BLOCK], [Row::default(); BLOCK]);
        for start in range.clone().step_by(BLOCK) {
            let len = BLOCK.min(range.end - start);
            // Through a pointer once for each block, so that the algorithm is not compiled for each type of the arrays.
            self.keys.read(start, &mut keys[..len]);
            self.values.read(start, &mut values[..len]);
            for (row, (&key, &value)) in rows.iter_mut().zip(keys.iter().zip(&values)) {
                *row = Row { key, value };
            }
            use_block(&rows[..len]);
        }
    }
}

/// An array whose elements are read as ordered bits or as values.
pub(super) trait Read<V>: Sync {
    /// The number of elements.
    fn len(&self) -> usize;

    /// Reads the elements from `start` on.
    fn read(&self, start: usize, to: &mut [V]);
}

macro_rules! read {
    ($($from:ident as $to:ident: $convert:expr;)*) => {$(
        impl Read<$to> for Buffer<$from> {
            fn len(&self) -> usize {
                <[$from]>::len(self)
            }

            fn read(&self, start: usize, to: &mut [$to]) {
                for (to, &from) in to.iter_mut().zip(&self[start..]) {
                    *to = $convert(from);
                }
            }
        }
    )*};
}
read! {
    u32 as u64: u64::from;
    u64 as u64: std::convert::identity;
    i32 as u64: |value| i64::from(value).to_ordered(SortOrder::Ascending);
    i64 as u64: |value: i64| value.to_ordered(SortOrder::Ascending);
    f32 as f64: f64::from;
    f64 as f64: std::convert::identity;
}

/// The values of rows of which only the number counts.
pub(super) struct NoValues;

impl Read<()> for NoValues {
    fn len(&self) -> usize {
        0
    }

    fn read(&self, _: usize, _: &mut [()]) {}
}

/// Returns an array of integers; `None` for one of floating-point numbers.
pub(super) fn integers(array: &NumberArray) -> Option<&dyn Read<u64>> {
    match array {
        NumberArray::U32(numbers) => Some(numbers),
        NumberArray::I32(numbers) => Some(numbers),
        NumberArray::U64(numbers) => Some(numbers),
        NumberArray::I64(numbers) => Some(numbers),
        NumberArray::F32(_) | NumberArray::F64(_) => None,
    }
}

/// Returns an array of floating-point numbers; `None` for one of integers.
pub(super) fn floats(array: &NumberArray) -> Option<&dyn Read<f64>> {
    match array {
        NumberArray::F32(numbers) => Some(numbers),
        NumberArray::F64(numbers) => Some(numbers),
        _ => None,
    }
}
