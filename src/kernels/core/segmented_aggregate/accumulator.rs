//! What is accumulated of the values of a group.

use crate::kernels::ordered_bits::{OrderedNumber, SortOrder};

/// A value as it is accumulated: the ordered bits of an integer as `u64`, or a number as `f64`.
pub(super) trait Value: OrderedNumber<Bits = u64> + Default {
    /// Its sum: exact as `u128`, or `f64`.
    type Sum: Accumulator<Self>;
}

impl Value for u64 {
    type Sum = u128;
}

impl Value for f64 {
    type Sum = Self;
}

/// The state of one or several aggregates.
pub(super) trait Accumulator<V>: Copy + Send + Sync {
    /// The state of one value.
    fn new(value: V) -> Self;

    /// Adds a value.
    fn add(&mut self, value: V);

    /// Adds the values of another state, which follow those of this one.
    fn merge(&mut self, other: Self);
}

impl Accumulator<u64> for u128 {
    fn new(value: u64) -> Self {
        value.into()
    }

    fn add(&mut self, value: u64) {
        *self += Self::from(value);
    }

    fn merge(&mut self, other: Self) {
        *self += other;
    }
}

impl Accumulator<f64> for f64 {
    fn new(value: f64) -> Self {
        value
    }

    fn add(&mut self, value: f64) {
        *self += value;
    }

    fn merge(&mut self, other: Self) {
        *self += other;
    }
}

/// Nothing, where an aggregate is not asked for.
impl<V> Accumulator<V> for () {
    fn new(_: V) -> Self {}

    fn add(&mut self, _: V) {}

    fn merge(&mut self, (): Self) {}
}

/// The smallest and the largest value. Each is the maximum of ordered bits, of which those of NaN are the largest in both
/// directions, so that NaN is the result where there is one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extremes {
    /// Ordered bits of the smallest value, in descending order.
    pub(super) min: u64,
    /// Ordered bits of the largest value, in ascending order.
    pub(super) max: u64,
}

impl<V: Value> Accumulator<V> for Extremes {
    fn new(value: V) -> Self {
        Self { min: value.to_ordered(SortOrder::Descending), max: value.to_ordered(SortOrder::Ascending) }
    }

    fn add(&mut self, value: V) {
        Accumulator::<V>::merge(self, Accumulator::<V>::new(value));
    }

    fn merge(&mut self, other: Self) {
        self.min = self.min.max(other.min);
        self.max = self.max.max(other.max);
    }
}

/// The rows of one key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<S, E> {
    /// The ordered bits of the key.
    pub(super) key: u64,
    /// The number of rows.
    pub(super) count: u32,
    /// The sum of the values, if it is asked for.
    pub(super) sum: S,
    /// The smallest and the largest value, if they are asked for.
    pub(super) extremes: E,
}

impl<S, E> Group<S, E> {
    /// A group of one row.
    pub(super) fn new<V: Copy>(row: &Row<V>) -> Self
    where
        S: Accumulator<V>,
        E: Accumulator<V>,
    {
        Self { key: row.key, count: 1, sum: S::new(row.value), extremes: E::new(row.value) }
    }

    /// Adds a row with the same key.
    pub(super) fn add<V: Copy>(&mut self, value: V)
    where
        S: Accumulator<V>,
        E: Accumulator<V>,
    {
        self.count += 1;
        self.sum.add(value);
        self.extremes.add(value);
    }

    /// Adds the rows of another group with the same key, which follow those of this one.
    pub(super) fn merge<V>(&mut self, other: Self)
    where
        S: Accumulator<V>,
        E: Accumulator<V>,
    {
        self.count += other.count;
        self.sum.merge(other.sum);
        self.extremes.merge(other.extremes);
    }
}

/// A key, as ordered bits, and its value.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Row<V> {
    pub(super) key: u64,
    pub(super) value: V,
}
