//! The test's inputs, and a comparison sort as the reference.

use super::{TopK, TopKInput, TopKOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::core::{random_numbers, sorted_indices, to_f64};
use crate::service::NumberArray;

impl Cases for TopK {
    /// Some of one row, or of several.
    fn case(&self, count: usize, random: &mut Random) -> Option<TopKInput> {
        let rows = if count.is_multiple_of(3) && count > 0 { 3 } else { 1 };
        let values = random_numbers(count, random);
        let k = 1 + random.below(1_100).min((count as u64 / rows).saturating_sub(1));
        Some(TopKInput { values, rows, k, largest: random.below(2) == 1 })
    }

    fn share(&self, _: &mut TopKInput, _: &TopKInput) {}

    fn put_nan(&self, input: &mut TopKInput, row: usize) {
        match &mut input.values {
            NumberArray::F32(values) => values[row] = -f32::NAN,
            NumberArray::F64(values) => values[row] = -f64::NAN,
            _ => {}
        }
    }

    fn reference(&self, input: &TopKInput) -> Vec<Expected> {
        let values = to_f64(&input.values);
        let (mut first, mut indices) = (Vec::new(), Vec::new());
        for row in values.chunks(values.len() / input.rows as usize) {
            for index in sorted_indices(row, input.largest).into_iter().take(input.k as usize) {
                first.push((row[index], 0.0));
                indices.push((index as f64, 0.0));
            }
        }
        vec![Expected { name: "values", values: first }, Expected { name: "indices", values: indices }]
    }

    fn values(&self, output: &TopKOutput) -> Vec<Vec<f64>> {
        vec![to_f64(&output.values), output.indices.iter().map(|&index| index.into()).collect()]
    }
}
