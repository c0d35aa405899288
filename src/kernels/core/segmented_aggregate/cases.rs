//! The test's inputs, and a map of the rows of each key as the reference.

use std::collections::BTreeMap;

use super::{Aggregate, SegmentedAggregate, SegmentedAggregateInput, SegmentedAggregateOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::core::{random_numbers, to_f64};
use crate::service::NumberArray;

impl Cases for SegmentedAggregate {
    /// Keys of a random type, few or many, near to each other or not; sorted or not; and values of a random type.
    fn case(&self, rows: usize, random: &mut Random) -> Option<SegmentedAggregateInput> {
        let bound = [3, 1 + rows as u64 / 5, 1 << 20][random.below(3) as usize];
        // Of 64-bit keys in which the highest bits differ.
        let step = [1, 1 << 40][random.below(2) as usize];
        let sorted = random.below(3) == 0;
        let mut numbers: Vec<i64> = (0..rows).map(|_| random.below(bound).cast_signed() - (bound / 2) as i64).collect();
        if sorted {
            numbers.sort_unstable();
        }
        let keys: NumberArray = match random.below(4) {
            0 => numbers.iter().map(|&key| (key + (bound / 2) as i64) as u32).collect::<Vec<_>>().into(),
            1 => numbers.iter().map(|&key| key as i32).collect::<Vec<_>>().into(),
            2 => numbers.iter().map(|&key| ((key + (bound / 2) as i64) * step) as u64).collect::<Vec<_>>().into(),
            _ => numbers.iter().map(|&key| key * step).collect::<Vec<_>>().into(),
        };
        let all = [Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Count, Aggregate::Mean];
        let values = small_numbers(random_numbers(rows, random));
        Some(SegmentedAggregateInput {
            aggregates: all.to_vec().into(),
            sorted,
            ..SegmentedAggregateInput::new(keys, values)
        })
    }

    fn share(&self, _: &mut SegmentedAggregateInput, _: &SegmentedAggregateInput) {}

    fn put_nan(&self, input: &mut SegmentedAggregateInput, row: usize) {
        match &mut input.values {
            Some(NumberArray::F32(values)) => values[row] = -f32::NAN,
            Some(NumberArray::F64(values)) => values[row] = -f64::NAN,
            _ => {}
        }
    }

    fn reference(&self, input: &SegmentedAggregateInput) -> Vec<Expected> {
        let values = to_f64(input.values.as_ref().expect("the cases have values"));
        let mut groups: BTreeMap<i128, Vec<f64>> = BTreeMap::new();
        for (key, value) in integers(&input.keys).into_iter().zip(values) {
            groups.entry(key).or_default().push(value);
        }
        let column = |name, of: &dyn Fn(&[f64]) -> (f64, f64)| Expected {
            name,
            values: groups.values().map(|values| of(values)).collect(),
        };
        // The sums of integers are exact in `f64`; those of others differ in the order of the additions.
        let bound = |values: &[f64]| values.iter().map(|value| value.abs()).sum::<f64>() * 1e-13;
        let extreme = |of: fn(f64, f64) -> f64| {
            move |values: &[f64]| {
                let has_nan = values.iter().any(|value| value.is_nan());
                (if has_nan { f64::NAN } else { values.iter().copied().fold(values[0], of) }, 0.0)
            }
        };
        vec![
            Expected { name: "keys", values: groups.keys().map(|&key| (key as f64, 0.0)).collect() },
            column("count", &|values| (values.len() as f64, 0.0)),
            column("sum", &|values| (values.iter().sum(), bound(values))),
            column("min", &extreme(f64::min)),
            column("max", &extreme(f64::max)),
            column("mean", &|values| {
                let count = values.len() as f64;
                (values.iter().sum::<f64>() / count, bound(values) / count)
            }),
        ]
    }

    fn values(&self, output: &SegmentedAggregateOutput) -> Vec<Vec<f64>> {
        let column = |column: &Option<NumberArray>| column.as_ref().map(to_f64).unwrap_or_default();
        vec![
            integers(&output.keys).into_iter().map(|key| key as f64).collect(),
            output.count.iter().map(|&count| count.into()).collect(),
            column(&output.sum),
            column(&output.min),
            column(&output.max),
            column(&output.mean),
        ]
    }
}

/// Divides 64-bit integers so that no sum is out of range, and an `f64` holds it.
fn small_numbers(numbers: NumberArray) -> NumberArray {
    match numbers {
        NumberArray::U64(numbers) => numbers.iter().map(|number| number >> 21).collect::<Vec<_>>().into(),
        NumberArray::I64(numbers) => numbers.iter().map(|number| number >> 21).collect::<Vec<_>>().into(),
        other => other,
    }
}

fn integers(numbers: &NumberArray) -> Vec<i128> {
    match numbers {
        NumberArray::U32(numbers) => numbers.iter().map(|&number| number.into()).collect(),
        NumberArray::I32(numbers) => numbers.iter().map(|&number| number.into()).collect(),
        NumberArray::U64(numbers) => numbers.iter().map(|&number| number.into()).collect(),
        NumberArray::I64(numbers) => numbers.iter().map(|&number| number.into()).collect(),
        other => panic!("keys of {other:?}"),
    }
}
