//! Sorting, selecting and aggregating numbers of any type.
//!
//! An array can be a tensor of an [operand](crate::service::Operands). With `tower-kernels serve`:
//!
//! ```sh
//! curl -s -X PUT 'http://127.0.0.1:8080/operands/quotes?type=tensors' -H 'content-type: application/json' \
//!     -d '{"close": {"dtype": "float64", "data": [3.5, 1.25, 2.0, 8.0]}}'
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "core/top-k", "input":
//!     {"values": {"operand": "quotes/close"}, "k": 2}}'
//! # "output":{"values":[8.0,3.5],"indices":[3,0]}
//! curl -s http://127.0.0.1:8080/execute -H 'content-type: application/json' -d '{"kernel_id": "core/segmented-aggregate", "input":
//!     {"keys": [7, 9, 7, 9], "values": {"operand": "quotes/close"}, "aggregates": ["sum", "max"]}}'
//! # "output":{"keys":[7,9],"count":[2,2],"sum":[5.5,9.25],"max":[3.5,8.0]}
//! ```

pub mod segmented_aggregate;
pub mod sort;
pub mod top_k;

use super::authoring::Random;
use crate::service::NumberArray;

/// Random numbers of a random type for tests, some of them equal. An `f64` holds each exactly.
fn random_numbers(count: usize, random: &mut Random) -> NumberArray {
    // Few or many different ones.
    let bound = if random.below(2) == 0 { 1 + count as u64 / 4 } else { 1 << 31 };
    let kind = random.below(6);
    let mut below = || random.below(bound);
    match kind {
        0 => (0..count).map(|_| below() as u32).collect::<Vec<_>>().into(),
        1 => (0..count).map(|_| below() as i32 - (bound / 2) as i32).collect::<Vec<_>>().into(),
        2 => (0..count).map(|_| below() << 22).collect::<Vec<_>>().into(),
        3 => (0..count).map(|_| (below().cast_signed() - (bound / 2).cast_signed()) << 22).collect::<Vec<_>>().into(),
        4 => (0..count).map(|_| (below() as f32 - (bound / 2) as f32) / 3.0).collect::<Vec<_>>().into(),
        _ => (0..count).map(|_| (below() as f64 - (bound / 2) as f64) / 3.0).collect::<Vec<_>>().into(),
    }
}

/// The indices of a stable sort of these numbers, NaN last.
fn sorted_indices(values: &[f64], descending: bool) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..values.len()).collect();
    sorted.sort_by(|&a, &b| {
        let (a, b) = (values[a], values[b]);
        let order = if descending { b.total_cmp(&a) } else { a.total_cmp(&b) };
        a.is_nan().cmp(&b.is_nan()).then(if a.is_nan() { std::cmp::Ordering::Equal } else { order })
    });
    sorted
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
