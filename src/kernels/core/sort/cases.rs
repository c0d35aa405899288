//! The test's inputs, and a comparison sort as the reference.

use super::{Sort, SortInput, SortOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::core::random_numbers;
use crate::service::NumberArray;

impl Cases for Sort {
    /// Numbers of a random type, some of them equal.
    fn case(&self, count: usize, random: &mut Random) -> Option<SortInput> {
        let values = random_numbers(count, random);
        Some(SortInput { values, descending: random.below(2) == 1, return_indices: true })
    }

    fn share(&self, _: &mut SortInput, _: &SortInput) {}

    fn put_nan(&self, input: &mut SortInput, row: usize) {
        match &mut input.values {
            NumberArray::F32(values) => values[row] = -f32::NAN,
            NumberArray::F64(values) => values[row] = -f64::NAN,
            _ => {}
        }
    }

    fn reference(&self, input: &SortInput) -> Vec<Expected> {
        let values = to_f64(&input.values);
        let mut sorted: Vec<usize> = (0..values.len()).collect();
        sorted.sort_by(|&a, &b| {
            let (a, b) = (values[a], values[b]);
            let order = if input.descending { b.total_cmp(&a) } else { a.total_cmp(&b) };
            // NaN last, and equal.
            a.is_nan().cmp(&b.is_nan()).then(if a.is_nan() { std::cmp::Ordering::Equal } else { order })
        });
        let column = |of: &dyn Fn(usize) -> f64| sorted.iter().map(|&index| (of(index), 0.0)).collect();
        vec![
            Expected { name: "values", values: column(&|index| values[index]) },
            Expected { name: "indices", values: column(&|index| index as f64) },
        ]
    }

    fn values(&self, output: &SortOutput) -> Vec<Vec<f64>> {
        let indices = output.indices.iter().flat_map(|indices| indices.iter().map(|&index| index.into()));
        vec![to_f64(&output.values), indices.collect()]
    }
}

/// The numbers as `f64`, which holds those of [`random_numbers`] exactly.
fn to_f64(values: &NumberArray) -> Vec<f64> {
    match values {
        NumberArray::U32(values) => values.iter().map(|&value| value.into()).collect(),
        NumberArray::I32(values) => values.iter().map(|&value| value.into()).collect(),
        NumberArray::U64(values) => values.iter().map(|&value| value as f64).collect(),
        NumberArray::I64(values) => values.iter().map(|&value| value as f64).collect(),
        NumberArray::F32(values) => values.iter().map(|&value| value.into()).collect(),
        NumberArray::F64(values) => values.to_vec(),
    }
}
