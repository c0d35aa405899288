//! Makes the columns of the output of the states of the groups.

use rayon::prelude::*;

use super::accumulator::Group;
use super::{Decimal, SegmentedAggregateInput};
use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};
use crate::service::{Buffer, DType, Element, InvalidInput, KernelError, NumberArray, RunContext};

/// What sums and means are made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Total<S> {
    /// The ordered bits of the key.
    pub(super) key: u64,
    /// The number of rows.
    pub(super) count: u32,
    /// The sum of the values as they are accumulated.
    pub(super) sum: S,
}

/// The groups of all rows, ascending by key.
pub(super) trait Groups<S> {
    /// Computes an element for each group.
    ///
    /// # Errors
    /// Those of `element`; those of [`RunContext::check`].
    fn column<T: Element>(
        &self,
        element: impl Fn(&Total<S>) -> Result<T, InvalidInput> + Sync,
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError>;
}

/// Computes an element for each group of several lists.
pub(super) fn column_of_lists<T: Element, S: Copy + Send + Sync, E: Copy + Send + Sync>(
    lists: &[Vec<Group<S, E>>],
    element: impl Fn(&Group<S, E>) -> Result<T, InvalidInput> + Sync,
    context: &RunContext<'_>,
) -> Result<Buffer<T>, KernelError> {
    let mut column = Buffer::zeroed_with_others(lists.iter().map(Vec::len).sum());
    let mut rest = &mut *column;
    let mut parts = Vec::with_capacity(lists.len());
    for list in lists {
        let (part, behind) = rest.split_at_mut(list.len());
        parts.push((list, part));
        rest = behind;
    }
    parts.into_par_iter().try_for_each(|(list, part)| {
        context.check()?;
        for (group, to) in list.iter().zip(part) {
            *to = element(group)?;
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(column)
}

impl<S: Copy + Send + Sync, E: Copy + Send + Sync> Groups<S> for [Vec<Group<S, E>>] {
    fn column<T: Element>(
        &self,
        element: impl Fn(&Total<S>) -> Result<T, InvalidInput> + Sync,
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        let total = |group: &Group<S, E>| element(&Total { key: group.key, count: group.count, sum: group.sum });
        column_of_lists(self, total, context)
    }
}

/// A number that is ordered as its conversion to 64 bits.
pub(super) trait FromOrdered: Element {
    /// Returns the number whose conversion has these ordered bits.
    fn from_wide(bits: u64, order: SortOrder) -> Self;
}

macro_rules! from_ordered {
    ($($number:ident through $wide:ident;)*) => {$(
        impl FromOrdered for $number {
            fn from_wide(bits: u64, order: SortOrder) -> Self {
                <$wide as OrderedNumber>::from_ordered(bits, order) as $number
            }
        }
    )*};
}
from_ordered! {
    u32 through u64;
    u64 through u64;
    i32 through i64;
    i64 through i64;
    f32 through f64;
    f64 through f64;
}

/// Returns a key as text.
pub(super) fn key_text(key: u64, dtype: DType) -> String {
    if is_signed(dtype) { i64::from_wide(key, SortOrder::Ascending).to_string() } else { key.to_string() }
}

fn is_signed(dtype: DType) -> bool {
    matches!(dtype, DType::I32 | DType::I64)
}

/// The sum of a group as it is accumulated.
pub(super) trait Sum: Copy + Send + Sync {
    /// The sums of all groups.
    fn sums(
        groups: &(impl Groups<Self> + ?Sized),
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError>;

    /// The means of all groups.
    fn means(
        groups: &(impl Groups<Self> + ?Sized),
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError>;
}

/// Without values there is none.
impl Sum for () {
    fn sums(
        _: &(impl Groups<()> + ?Sized),
        _: &SegmentedAggregateInput,
        _: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        Ok(None)
    }

    fn means(
        _: &(impl Groups<()> + ?Sized),
        _: &SegmentedAggregateInput,
        _: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        Ok(None)
    }
}

impl Sum for f64 {
    fn sums(
        groups: &(impl Groups<Self> + ?Sized),
        _: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        Ok(Some(groups.column(|group| Ok(group.sum), context)?.into()))
    }

    fn means(
        groups: &(impl Groups<Self> + ?Sized),
        _: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        Ok(Some(groups.column(|group| Ok(group.sum / Self::from(group.count)), context)?.into()))
    }
}

impl Sum for u128 {
    fn sums(
        groups: &(impl Groups<Self> + ?Sized),
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        integers("sum", groups, input, |group| exact_sum(group, input), context).map(Some)
    }

    fn means(
        groups: &(impl Groups<Self> + ?Sized),
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<Option<NumberArray>, KernelError> {
        let means = match input.decimal() {
            None => {
                let mean = |group: &Total<Self>| Ok(exact_sum(group, input) as f64 / f64::from(group.count));
                groups.column(mean, context)?.into()
            }
            Some(Decimal { scale, mean_scale }) => {
                let mean = |group: &Total<Self>| rounded_mean(exact_sum(group, input), group.count, mean_scale - scale);
                integers("mean", groups, input, mean, context)?
            }
        };
        Ok(Some(means))
    }
}

/// Returns a column of integers: `i64` if the values are signed, otherwise `u64`.
fn integers(
    name: &str,
    groups: &(impl Groups<u128> + ?Sized),
    input: &SegmentedAggregateInput,
    integer: impl Fn(&Total<u128>) -> i128 + Sync,
    context: &RunContext<'_>,
) -> Result<NumberArray, KernelError> {
    let out_of_range = |group: &Total<u128>, value: i128, dtype: DType| {
        let key = key_text(group.key, input.keys.dtype());
        InvalidInput::new("values", format!("the {name} of key {key} is {value}, which {dtype} does not hold"))
    };
    if is_signed(input.values_dtype()) {
        let checked = |group: &Total<u128>| {
            let value = integer(group);
            i64::try_from(value).map_err(|_| out_of_range(group, value, DType::I64))
        };
        Ok(groups.column(checked, context)?.into())
    } else {
        let checked = |group: &Total<u128>| {
            let value = integer(group);
            u64::try_from(value).map_err(|_| out_of_range(group, value, DType::U64))
        };
        Ok(groups.column(checked, context)?.into())
    }
}

/// Returns the sum of the integers whose ordered bits have been added.
fn exact_sum(group: &Total<u128>, input: &SegmentedAggregateInput) -> i128 {
    // Ordered bits of signed integers are 2^63 above them. The sum is below 2^96.
    let above = if is_signed(input.values_dtype()) { i128::from(group.count) << 63 } else { 0 };
    group.sum.cast_signed() - above
}

/// Returns `sum / count * 10^digits`, rounded to the nearest integer, and to the even one of two that are as near.
fn rounded_mean(sum: i128, count: u32, digits: u32) -> i128 {
    let (count, power) = (i128::from(count), 10_i128.pow(digits));
    let remainder = sum.rem_euclid(count) * power;
    let floor = sum.div_euclid(count) * power + remainder / count;
    match (2 * (remainder % count)).cmp(&count) {
        std::cmp::Ordering::Less => floor,
        std::cmp::Ordering::Equal => floor + floor.rem_euclid(2),
        std::cmp::Ordering::Greater => floor + 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_are_rounded_to_the_nearest_and_to_even_of_two() {
        for (sum, count, digits, mean) in [
            (5, 2, 0, 2),
            (7, 2, 0, 4),
            (-5, 2, 0, -2),
            (-7, 2, 0, -4),
            (-1, 3, 0, 0),
            (-2, 3, 0, -1),
            (5, 2, 1, 25),
            (2, 3, 3, 667),
            (-2, 3, 3, -667),
            (i128::from(u64::MAX) * 3, 3, 18, i128::from(u64::MAX) * 1_000_000_000_000_000_000),
        ] {
            assert_eq!(rounded_mean(sum, count, digits), mean, "{sum} / {count} * 10^{digits}");
        }
    }

    #[test]
    fn numbers_come_back_from_64_ordered_bits() {
        let order = SortOrder::Ascending;
        assert_eq!(i32::from_wide((-7_i64).to_ordered(order), order), -7);
        assert_eq!(u32::from_wide(u64::from(u32::MAX), order), u32::MAX);
        assert_eq!(f32::from_wide(f64::from(-1.5_f32).to_ordered(order), order), -1.5);
        assert!(f32::from_wide(f64::NAN.to_ordered(order), order).is_nan());
        assert_eq!(i64::from_wide(5_i64.to_ordered(SortOrder::Descending), SortOrder::Descending), 5);
    }
}
