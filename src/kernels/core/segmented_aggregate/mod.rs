//! `core/segmented-aggregate`: sum, smallest, largest, number and mean of the values with each key.
//!
//! | field | type | |
//! |---|---|---|
//! | `keys` | `u32`, `i32`, `u64` or `i64`, `[n]` | the key of each row; fewer than 2^32 rows |
//! | `values` | `u32`, `i32`, `u64`, `i64`, `f32` or `f64`, `[n]` | the value of each row; optional for `count` alone |
//! | `aggregates` | one or an array of `sum`, `min`, `max`, `count`, `mean`; default `sum` | what is computed |
//! | `sorted` | bool, default false | whether the keys ascend, so that they need not be sorted |
//! | `scale` | integer, 0 to 18, default none | the values are decimals: integers of the unit 10^-`scale` |
//! | `mean_scale` | integer, `scale` to 18, default `scale` | the same for the means of decimals |
//! | out: `keys` | as the input, `[g]` | the different keys, ascending |
//! | out: `count` | `u32`, `[g]` | the rows of each key |
//! | out: `sum` | `i64`, `u64` or `f64`, `[g]` | the sum of each key's values |
//! | out: `min`, `max` | as `values`, `[g]` | the smallest and the largest of each key's values |
//! | out: `mean` | `f64`, or for decimals as `sum`, `[g]` | the sum over the number of rows |
//!
//! The output has `count` in any case, and the other arrays if they are asked for. In tensors `aggregates` is the text of
//! one name, or a code for each: 0 for `sum`, 1 `min`, 2 `max`, 3 `count`, 4 `mean`.
//!
//! Integers are added exactly. Their sum is `i64` if the values are signed and otherwise `u64`; one that these do not hold
//! is an error that names the key. The mean of integers is the exact sum, rounded to `f64`, over the count; it is there even
//! where the sum would be out of range. Decimals are integers: with `scale` 2 a value of 1234 is 12.34, and so is a sum. A
//! mean of decimals is exact before it is rounded to `mean_scale` digits, to the even digit of two that are as near.
//! `f32` and `f64` are added in double precision, in an order that depends on the input alone: the result has the same
//! bits in each run, for any number of threads, and differs by rounding between the backends. NaN among the values of a
//! key makes its sum, mean, smallest and largest value NaN, as in numpy; -0 is smaller than 0.
//!
//! On the CPU rows are grouped by hash tables that stay in the cache, after a partition by key where there are many keys:
//! Müller, Sanders, Lacurie, Lehner and Färber, *Cache-efficient aggregation: hashing is sorting* (2015). It takes O(n) time
//! for few keys, and O(n log n) at most. On CUDA rows that are not sorted are sorted by key, as
//! [`device::radix_sort`](crate::kernels::device) does, and the values of each key are reduced in one pass
//! (`include/segmented_reduce.cuh`).
//!
//! Errors: keys that are no integers, 2^32 rows or more; no `values` where they are needed, or not one for each key; `scale`
//! or `mean_scale` out of its range, or with values that are no integers; keys that do not ascend although `sorted` is
//! true; a sum or a mean that is out of range.

mod accumulator;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod group_table;
mod output;
mod rows;
mod sorted;
mod unsorted;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::accumulator::{Accumulator, Extremes, Group, Value};
use self::output::{FromOrdered, Groups, Sum, column_of_lists};
use self::rows::{InputRows, NoValues, Read, floats, integers};
use crate::kernels::authoring::{Choice, Choices, Operand};
use crate::kernels::ordered_bits::SortOrder;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, DType, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, NumberArray, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct SegmentedAggregate;

/// The largest `scale`: `i64` holds 18 digits.
const MAX_SCALE: u32 = 18;

/// The input of `core/segmented-aggregate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "keys": [3, 1, 3], "values": [10, 20, 30] },
    { "keys": [1, 1, 2], "values": [0.5, 1.5, 4.0], "aggregates": ["sum", "min", "max", "mean"], "sorted": true },
    { "keys": [7, 7, 9], "values": [1001, 1000, 250], "aggregates": ["sum", "mean"], "scale": 2 },
]))]
pub struct SegmentedAggregateInput {
    /// The key of each row: integers.
    pub keys: NumberArray,
    /// The value of each row. Optional where only `count` is asked for.
    #[serde(default)]
    pub values: Option<NumberArray>,
    /// What is computed for each key.
    #[serde(default = "default_aggregates")]
    pub aggregates: Choices<Aggregate>,
    /// Whether the keys ascend.
    #[serde(default)]
    pub sorted: bool,
    /// The digits after the point, of values that are decimals.
    #[serde(default)]
    pub scale: Option<u32>,
    /// The digits after the point of means of decimals.
    #[serde(default)]
    pub mean_scale: Option<u32>,
}

fn default_aggregates() -> Choices<Aggregate> {
    Aggregate::Sum.into()
}

/// What is computed of the values of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Aggregate {
    /// Their sum.
    Sum = 0,
    /// The smallest.
    Min = 1,
    /// The largest.
    Max = 2,
    /// Their number.
    Count = 3,
    /// Their mean.
    Mean = 4,
}

impl Choice for Aggregate {
    const NAMES: &'static [&'static str] = &["sum", "min", "max", "count", "mean"];

    fn code(self) -> u8 {
        self as u8
    }
}

/// The output of `core/segmented-aggregate`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SegmentedAggregateOutput {
    /// The different keys, ascending.
    pub keys: NumberArray,
    /// The number of rows of each key.
    pub count: Buffer<u32>,
    /// The sum of each key's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sum: Option<NumberArray>,
    /// The smallest of each key's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<NumberArray>,
    /// The largest of each key's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<NumberArray>,
    /// The mean of each key's values.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<NumberArray>,
}

/// The digits after the point of decimals.
#[derive(Clone, Copy, Debug)]
struct Decimal {
    scale: u32,
    mean_scale: u32,
}

impl SegmentedAggregateInput {
    /// Creates an input for the sums of unsorted rows.
    pub fn new(keys: impl Into<NumberArray>, values: impl Into<NumberArray>) -> Self {
        Self {
            keys: keys.into(),
            values: Some(values.into()),
            aggregates: default_aggregates(),
            sorted: false,
            scale: None,
            mean_scale: None,
        }
    }

    /// Returns whether an aggregate is asked for.
    fn has(&self, aggregate: Aggregate) -> bool {
        match self.aggregates.operand() {
            Operand::One(code) => code == aggregate.code(),
            Operand::Each(codes) => codes.contains(&aggregate.code()),
        }
    }

    fn needs_sum(&self) -> bool {
        self.has(Aggregate::Sum) || self.has(Aggregate::Mean)
    }

    fn needs_extremes(&self) -> bool {
        self.has(Aggregate::Min) || self.has(Aggregate::Max)
    }

    /// Returns the values that are read: none where only `count` is asked for.
    fn read_values(&self) -> Option<&NumberArray> {
        self.values.as_ref().filter(|_| self.needs_sum() || self.needs_extremes())
    }

    fn values_dtype(&self) -> DType {
        self.values.as_ref().map_or(DType::I64, NumberArray::dtype)
    }

    fn decimal(&self) -> Option<Decimal> {
        let decimal = |scale: u32| Decimal { scale, mean_scale: self.mean_scale.unwrap_or(scale) };
        self.scale.map(decimal)
    }

    /// Returns the keys, checked as all other fields.
    fn checked_keys(&self) -> Result<&dyn Read<u64>, InvalidInput> {
        let invalid = |field, reason| Err(InvalidInput::new(field, reason));
        let Some(keys) = integers(&self.keys) else {
            return invalid("keys", format!("{} where integers are expected", self.keys.dtype()));
        };
        let rows = keys.len();
        if u32::try_from(rows).is_err() {
            return invalid("keys", format!("{rows} keys where fewer than 2^32 are expected"));
        }
        match &self.values {
            Some(values) if values.len() != rows => {
                return invalid("values", format!("{} values for {rows} keys", values.len()));
            }
            None if self.needs_sum() || self.needs_extremes() => {
                return invalid("values", "missing, and an aggregate other than `count` is asked for".to_owned());
            }
            _ => {}
        }
        let Some(Decimal { scale, mean_scale }) = self.decimal() else {
            return match self.mean_scale {
                None => Ok(keys),
                Some(_) => invalid("mean_scale", "given without `scale`".to_owned()),
            };
        };
        if scale > MAX_SCALE {
            return invalid("scale", format!("{scale} where 0 to {MAX_SCALE} is expected"));
        }
        if !(scale..=MAX_SCALE).contains(&mean_scale) {
            return invalid("mean_scale", format!("{mean_scale} where {scale} to {MAX_SCALE} is expected"));
        }
        if self.values.as_ref().is_some_and(|values| integers(values).is_none()) {
            return invalid("values", format!("{} where `scale` expects integers", self.values_dtype()));
        }
        Ok(keys)
    }

    /// Returns the error of a key that is below the one before although `sorted` is true.
    fn descent(&self, row: usize) -> InvalidInput {
        InvalidInput::new(format!("keys[{row}]"), "below the key before it, although `sorted` is true")
    }

    /// Returns the bytes of the output of this many groups.
    fn output_bytes(&self, groups: u64) -> u64 {
        let value = self.values_dtype().size();
        let arrays = [
            (true, self.keys.dtype().size() + size_of::<u32>()),
            (self.has(Aggregate::Sum), 8),
            (self.has(Aggregate::Min), value),
            (self.has(Aggregate::Max), value),
            (self.has(Aggregate::Mean), 8),
        ];
        let row: usize = arrays.iter().filter(|(is_there, _)| *is_there).map(|(_, size)| size).sum();
        groups.saturating_mul(row as u64)
    }

    /// Returns the bytes of the rows that are read.
    fn input_bytes(&self) -> u64 {
        let value = self.read_values().map_or(0, |values| values.dtype().size());
        (self.keys.len() as u64).saturating_mul((self.keys.dtype().size() + value) as u64)
    }
}

impl Kernel for SegmentedAggregate {
    type Input = SegmentedAggregateInput;
    type Output = SegmentedAggregateOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Sum, minimum, maximum, count and mean of the values with each key, exact for integers and decimals.";
        KernelInfo::new("core/segmented-aggregate", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &SegmentedAggregateInput) -> Result<(), InvalidInput> {
        input.checked_keys().map(drop)
    }

    fn cost(&self, input: &SegmentedAggregateInput) -> Cost {
        let rows = input.keys.len() as u64;
        // A sort by key reads and writes the rows several times.
        let passes = if input.sorted { 1 } else { 6 };
        Cost {
            bytes: input.input_bytes().saturating_mul(passes).saturating_add(input.output_bytes(rows)),
            operations: rows.saturating_mul(8 * passes),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &SegmentedAggregateInput) -> Option<Footprint> {
        let rows = input.keys.len() as u64;
        let scratch = unsorted::scratch_bytes::<u64, u128, Extremes>(rows);
        Some(Footprint { output: input.output_bytes(rows), scratch })
    }

    /// Any number of rows may have the same key.
    fn min_output(&self, input: &SegmentedAggregateInput) -> Option<u64> {
        Some(input.output_bytes((input.keys.len() as u64).min(1)))
    }

    fn run_cpu(
        &self,
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<SegmentedAggregateOutput, KernelError> {
        let keys = input.checked_keys()?;
        let Some(values) = input.read_values() else {
            return Run { input, context }.aggregate::<(), (), ()>(InputRows { keys, values: &NoValues });
        };
        if let Some(values) = integers(values) {
            return Run { input, context }.with_values(InputRows { keys, values });
        }
        match floats(values) {
            Some(values) => Run { input, context }.with_values(InputRows { keys, values }),
            None => Err(InvalidInput::new("values", format!("unexpected dtype {}", values.dtype())).into()),
        }
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &SegmentedAggregateInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<SegmentedAggregateOutput, KernelError> {
        input.checked_keys()?;
        cuda::run(input, cuda)
    }
}

/// A run on the CPU.
#[derive(Clone, Copy)]
struct Run<'a> {
    input: &'a SegmentedAggregateInput,
    context: &'a RunContext<'a>,
}

impl Run<'_> {
    /// Runs with the states of what is asked for, and no others.
    fn with_values<V: Value>(self, rows: InputRows<'_, V>) -> Result<SegmentedAggregateOutput, KernelError>
    where
        V::Sum: Sum,
    {
        match (self.input.needs_sum(), self.input.needs_extremes()) {
            (true, true) => self.aggregate::<V, V::Sum, Extremes>(rows),
            (true, false) => self.aggregate::<V, V::Sum, ()>(rows),
            (false, true) => self.aggregate::<V, (), Extremes>(rows),
            (false, false) => self.aggregate::<V, (), ()>(rows),
        }
    }

    fn aggregate<V, S, E>(self, rows: InputRows<'_, V>) -> Result<SegmentedAggregateOutput, KernelError>
    where
        V: Copy + Default + Send + Sync,
        S: Accumulator<V> + Sum,
        E: Accumulator<V> + OptionalExtremes,
    {
        let Self { input, context } = self;
        let groups = if input.sorted {
            sorted::groups::<V, S, E>(&rows, |row| input.descent(row).into(), context)?
        } else {
            unsorted::groups::<V, S, E>(&rows, context)?
        };
        let groups = &groups[..];
        let [min, max] = E::columns(groups, input, context)?;
        Ok(SegmentedAggregateOutput {
            keys: keys_column(groups, input, context)?,
            count: groups.column(|group| Ok(group.count), context)?,
            sum: if input.has(Aggregate::Sum) { S::sums(groups, input, context)? } else { None },
            min,
            max,
            mean: if input.has(Aggregate::Mean) { S::means(groups, input, context)? } else { None },
        })
    }
}

/// Returns the keys of all groups, of the type of the input's.
fn keys_column<S>(
    groups: &(impl Groups<S> + ?Sized),
    input: &SegmentedAggregateInput,
    context: &RunContext<'_>,
) -> Result<NumberArray, KernelError> {
    fn column<T: FromOrdered, S>(
        _: &Buffer<T>,
        groups: &(impl Groups<S> + ?Sized),
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        groups.column(|group| Ok(T::from_wide(group.key, SortOrder::Ascending)), context)
    }
    with_numbers!(&input.keys, keys => Ok(column(keys, groups, context)?.into()))
}

/// The smallest and the largest value of a group, where they are accumulated.
trait OptionalExtremes: Copy + Send + Sync + Sized {
    /// Returns those of the two columns that are asked for.
    fn columns<S: Copy + Send + Sync>(
        groups: &[Vec<Group<S, Self>>],
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<[Option<NumberArray>; 2], KernelError>;
}

impl OptionalExtremes for () {
    fn columns<S: Copy + Send + Sync>(
        _: &[Vec<Group<S, ()>>],
        _: &SegmentedAggregateInput,
        _: &RunContext<'_>,
    ) -> Result<[Option<NumberArray>; 2], KernelError> {
        Ok([None, None])
    }
}

impl OptionalExtremes for Extremes {
    fn columns<S: Copy + Send + Sync>(
        groups: &[Vec<Group<S, Self>>],
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<[Option<NumberArray>; 2], KernelError> {
        fn column<T: FromOrdered, S: Copy + Send + Sync>(
            _: &Buffer<T>,
            groups: &[Vec<Group<S, Extremes>>],
            order: SortOrder,
            context: &RunContext<'_>,
        ) -> Result<Buffer<T>, KernelError> {
            let bits = |extremes: &Extremes| if order.is_descending() { extremes.min } else { extremes.max };
            column_of_lists(groups, |group| Ok(T::from_wide(bits(&group.extremes), order)), context)
        }
        let Some(values) = &input.values else { return Ok([None, None]) };
        let extreme = |aggregate, order| -> Result<Option<NumberArray>, KernelError> {
            if !input.has(aggregate) {
                return Ok(None);
            }
            with_numbers!(values, values => Ok(Some(column(values, groups, order, context)?.into())))
        };
        Ok([extreme(Aggregate::Min, SortOrder::Descending)?, extreme(Aggregate::Max, SortOrder::Ascending)?])
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &SegmentedAggregateInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &SegmentedAggregateInput) -> u64 {
    0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    /// Sums of numbers that do not add up in any order.
    #[test]
    fn sums_have_the_same_bits_for_any_number_of_threads() {
        let mut random = Random::new(6);
        let values: Vec<f64> = (0..500_000).map(|_| random.number() * 1e3).collect();
        for (groups, sorted) in [(3, false), (40_000, false), (3, true)] {
            let mut keys: Vec<u32> = values.iter().map(|_| random.below(groups) as u32).collect();
            if sorted {
                keys.sort_unstable();
            }
            let input = SegmentedAggregateInput { sorted, ..SegmentedAggregateInput::new(keys, values.clone()) };
            let with_threads = |threads: usize| {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let output = pool.install(|| SegmentedAggregate.run_cpu(&input, &RunContext::detached())).unwrap();
                let Some(NumberArray::F64(sums)) = output.sum else { panic!("sums are f64") };
                sums.iter().map(|sum| sum.to_bits()).collect::<Vec<_>>()
            };
            assert!(with_threads(1) == with_threads(5), "{groups} groups");
        }
    }

    #[test]
    fn a_cancelled_run_ends() {
        let context = RunContext::new(Some(&|| true), None);
        for (rows, sorted) in [(10, false), (300_000, false), (300_000, true)] {
            let keys: Vec<u32> = (0..rows).collect();
            let input = SegmentedAggregateInput { sorted, ..SegmentedAggregateInput::new(keys.clone(), keys) };
            let error = SegmentedAggregate.run_cpu(&input, &context).unwrap_err();
            assert!(matches!(error, KernelError::Cancelled), "{error}");
        }
    }

    #[test]
    fn a_response_is_as_small_as_one_group() {
        let input = SegmentedAggregateInput::new(vec![1_u32; 1_000], vec![1.0_f32; 1_000]);
        assert_eq!(SegmentedAggregate.min_output(&input), Some(4 + 4 + 8));
        assert_eq!(SegmentedAggregate.footprint(&input).unwrap().output, 16_000);
    }
}
