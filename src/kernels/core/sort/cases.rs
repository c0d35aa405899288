//! The test's inputs, and a comparison sort as the reference.

use super::{Sort, SortInput, SortOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::core::{random_numbers, sorted_indices, to_f64};
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
        let sorted = sorted_indices(&values, input.descending);
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
