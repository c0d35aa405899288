//! The `core` kernels: against numpy and pandas, and the properties of their outputs.

use tower_kernels::kernels::authoring::Random;
use tower_kernels::kernels::core::segmented_aggregate::{
    Aggregate, SegmentedAggregate, SegmentedAggregateInput, SegmentedAggregateOutput,
};
use tower_kernels::kernels::core::sort::{Sort, SortInput, SortOutput};
use tower_kernels::kernels::core::top_k::TopK;
use tower_kernels::service::{DType, Kernel, KernelError, NumberArray, RunContext};

use crate::core_goldens::{AGGREGATES, aggregates, assert_aggregates, bits_at, bits_of_rows, sorts, top_ks};
use crate::service::{ask, read, rejection, run, tensor, tensors};

fn sorted(input: &SortInput) -> SortOutput {
    Sort.validate(input).unwrap();
    Sort.run_cpu(input, &RunContext::detached()).unwrap()
}

#[test]
fn sorts_are_those_of_numpy() {
    for (input, indices) in sorts() {
        let output = sorted(&input);
        assert_eq!(output.indices.as_deref(), Some(&indices[..]), "{input:?}");
        let expected = bits_at(&input.values, indices.iter().copied());
        assert_eq!(bits_at(&output.values, 0..indices.len() as u32), expected, "{input:?}");
        // Without indices other records are moved.
        let alone = sorted(&SortInput { return_indices: false, ..input });
        assert_eq!((bits_at(&alone.values, 0..indices.len() as u32), alone.indices), (expected, None));
    }
}

#[test]
fn zeros_are_sorted_by_sign_and_nan_come_last_in_both_directions() {
    let values = vec![0.0, f64::NAN, -0.0, 1.0, -f64::NAN, -0.0];
    for (descending, expected) in [(false, [2, 5, 0, 3, 1, 4]), (true, [3, 0, 2, 5, 1, 4])] {
        let output = sorted(&SortInput { values: values.clone().into(), descending, return_indices: true });
        assert_eq!(output.indices.unwrap().to_vec(), expected);
        let NumberArray::F64(sorted) = output.values else { panic!("f64 in, f64 out") };
        assert!(sorted.iter().skip(4).all(|value| value.to_bits() == 0x7ff8_0000_0000_0000));
    }
}

#[tokio::test]
async fn a_sort_is_asked_for_by_a_document() {
    let output = ask("core/sort", r#"{"values": [3, 1, 2]}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "values": [1, 2, 3] }));
    let input = r#"{"values": [0.5, 2.5, 0.5], "descending": true, "return_indices": true}"#;
    let output = ask("core/sort", input).await.unwrap();
    assert_eq!(output, serde_json::json!({ "values": [2.5, 0.5, 0.5], "indices": [1, 0, 2] }));
    assert_eq!(ask("core/sort", r#"{"values": []}"#).await.unwrap(), serde_json::json!({ "values": [] }));
    for (document, field) in [(r#"{"values": [1, "2"]}"#, "values[1]"), (r#"{"values": 1}"#, "values")] {
        assert_eq!(rejection(ask("core/sort", document).await).field, field);
    }
}

#[test]
fn the_top_k_are_those_of_numpy() {
    for (input, indices) in top_ks() {
        TopK.validate(&input).unwrap();
        let output = TopK.run_cpu(&input, &RunContext::detached()).unwrap();
        assert_eq!(output.indices.to_vec(), indices, "{input:?}");
        assert_eq!(bits_at(&output.values, 0..indices.len() as u32), bits_of_rows(&input, &indices), "{input:?}");
    }
}

#[tokio::test]
async fn the_top_k_are_asked_for_by_a_document() {
    let output = ask("core/top-k", r#"{"values": [3, 1, 2, 3], "k": 3}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "values": [3, 3, 2], "indices": [0, 3, 2] }));
    let input = r#"{"values": [0.5, 2.5, 0.5, 7.5, 1.5, 1.0], "rows": 2, "k": 1, "largest": false}"#;
    let output = ask("core/top-k", input).await.unwrap();
    assert_eq!(output, serde_json::json!({ "values": [0.5, 1.0], "indices": [0, 2] }));
    for (document, field) in [
        (r#"{"values": [1, 2], "k": 0}"#, "k"),
        (r#"{"values": [1, 2], "k": 3}"#, "k"),
        (r#"{"values": [], "k": 1}"#, "k"),
        (r#"{"values": [1, 2], "k": 2, "rows": 2}"#, "k"),
        (r#"{"values": [1, 2], "k": 1, "rows": 0}"#, "rows"),
        (r#"{"values": [1, 2, 3], "k": 1, "rows": 2}"#, "rows"),
        (r#"{"values": [1, 2], "k": 18446744073709551615, "rows": 18446744073709551615}"#, "rows"),
    ] {
        assert_eq!(rejection(ask("core/top-k", document).await).field, field, "{document}");
    }
}

fn aggregated(input: &SegmentedAggregateInput) -> SegmentedAggregateOutput {
    SegmentedAggregate.validate(input).unwrap();
    SegmentedAggregate.run_cpu(input, &RunContext::detached()).unwrap()
}

#[test]
fn aggregates_are_those_of_pandas() {
    for (input, expected) in aggregates() {
        assert_aggregates(&input, &aggregated(&input), &expected);
    }
}

/// Rows of which few or many have the same key, whose keys are near to each other, far apart, or of which one has most rows.
#[test]
fn aggregates_of_many_rows_do_not_depend_on_their_order() {
    let mut random = Random::new(4);
    let rows = 600_000;
    type Keys = fn(&mut Random) -> u64;
    let keys: [Keys; 5] = [
        |_| 7,
        |random| random.below(1_000),
        |random| random.below(1 << 18),
        |random| random.word(),
        // Ranges that are halved again and again, and one key that half of the rows have.
        |random| if random.below(2) == 0 { 5 } else { random.word() >> random.below(64) },
    ];
    for key in keys {
        let keys: Vec<u64> = (0..rows).map(|_| key(&mut random)).collect();
        let values: Vec<i64> = (0..rows).map(|_| random.below(1 << 40).cast_signed() - (1 << 39)).collect();
        let mut sorted: Vec<(u64, i64)> = keys.iter().copied().zip(values.iter().copied()).collect();
        let all = |keys: Vec<u64>, values: Vec<i64>, sorted| SegmentedAggregateInput {
            aggregates: AGGREGATES.to_vec().into(),
            sorted,
            ..SegmentedAggregateInput::new(keys, values)
        };
        let output = aggregated(&all(keys, values, false));
        sorted.sort_unstable_by_key(|(key, value)| (*key, std::cmp::Reverse(*value)));
        let (keys, values) = sorted.iter().copied().unzip();
        assert!(aggregated(&all(keys, values, true)) == output);
        let expected: Vec<_> = sorted.chunk_by(|a, b| a.0 == b.0).collect();
        let sums: Vec<i64> = expected.iter().map(|group| group.iter().map(|(_, value)| value).sum()).collect();
        assert!(output.keys == expected.iter().map(|group| group[0].0).collect::<Vec<_>>().into());
        assert!(output.count.iter().copied().eq(expected.iter().map(|group| group.len() as u32)));
        assert!(output.sum == Some(sums.into()));
        assert!(output.max == Some(expected.iter().map(|group| group[0].1).collect::<Vec<_>>().into()));
        assert!(output.min == Some(expected.iter().map(|group| group[group.len() - 1].1).collect::<Vec<_>>().into()));
    }
}

#[test]
fn a_sum_out_of_range_is_an_error_that_names_its_key_and_its_mean_is_not() {
    let max = i64::MAX;
    let sum = |values: NumberArray, aggregate: Aggregate| SegmentedAggregateInput {
        aggregates: aggregate.into(),
        ..SegmentedAggregateInput::new(vec![-3_i64, -3, 8], values)
    };
    for (values, text) in [
        (vec![max, 1, 0].into(), "the sum of key -3 is 9223372036854775808, which int64 does not hold"),
        (vec![i64::MIN, -1, 0].into(), "the sum of key -3 is -9223372036854775809, which int64 does not hold"),
        (vec![u64::MAX, 1, 0].into(), "the sum of key -3 is 18446744073709551616, which uint64 does not hold"),
    ] {
        let input = sum(values, Aggregate::Sum);
        match SegmentedAggregate.run_cpu(&input, &RunContext::detached()).unwrap_err() {
            KernelError::InvalidInput(invalid) => assert_eq!((&*invalid.field, &*invalid.reason), ("values", text)),
            other => panic!("{other}"),
        }
    }
    let output = aggregated(&sum(vec![max, max, 5].into(), Aggregate::Mean));
    assert_eq!((output.mean, output.sum), (Some(vec![max as f64, 5.0].into()), None));
}

#[test]
fn nan_is_the_result_of_a_key_that_has_one_and_zeros_are_ordered_by_sign() {
    let input = SegmentedAggregateInput {
        aggregates: AGGREGATES.to_vec().into(),
        ..SegmentedAggregateInput::new(vec![1_u32, 0, 1, 0, 1], vec![1.0_f32, 0.0, f32::NAN, -0.0, 2.0])
    };
    let output = aggregated(&input);
    let Some(NumberArray::F32(min)) = output.min else { panic!("f32 in, f32 out") };
    let Some(NumberArray::F32(max)) = output.max else { panic!("f32 in, f32 out") };
    let Some(NumberArray::F64(sum)) = output.sum else { panic!("sums are f64") };
    assert_eq!((min[0].to_bits(), max[0].to_bits()), ((-0.0_f32).to_bits(), 0));
    assert!(min[1].is_nan() && max[1].is_nan() && sum[1].is_nan() && sum[0] == 0.0);
}

#[tokio::test]
async fn aggregates_are_asked_for_by_a_document_or_tensors() {
    let id = "core/segmented-aggregate";
    let output = ask(id, r#"{"keys": [3, 1, 3], "values": [10, 20, 30]}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "keys": [1, 3], "count": [1, 2], "sum": [20, 40] }));
    let output = ask(id, r#"{"keys": [3, 1, 3], "aggregates": "count"}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "keys": [1, 3], "count": [1, 2] }));
    let output = ask(id, r#"{"keys": [], "values": [], "aggregates": ["min", "mean"]}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "keys": [], "count": [], "min": [], "mean": [] }));
    let input = r#"{"keys": [7, 7, 9], "values": [1001, 1000, 250], "aggregates": ["sum", "mean"], "scale": 2}"#;
    let output = ask(id, input).await.unwrap();
    let expected = serde_json::json!({ "keys": [7, 9], "count": [2, 1], "sum": [2001, 250], "mean": [1000, 250] });
    assert_eq!(output, expected);

    let input = tensors([
        ("keys", tensor(DType::I32, &[3], &[5_i32, -1, 5])),
        ("values", tensor(DType::F32, &[3], &[0.5_f32, 2.0, 1.0])),
        ("aggregates", tensor(DType::U8, &[2], &[Aggregate::Max as u8, Aggregate::Sum as u8])),
    ]);
    let output = run(id, input).await.unwrap();
    assert_eq!(read::<i32>(&output, "keys", DType::I32), [-1, 5]);
    assert_eq!(read::<f32>(&output, "max", DType::F32), [2.0, 1.0]);
    assert_eq!(read::<f64>(&output, "sum", DType::F64), [2.0, 1.5]);

    for (document, field) in [
        (r#"{"keys": [1.5], "values": [1]}"#, "keys"),
        (r#"{"keys": [1, 2], "values": [1]}"#, "values"),
        (r#"{"keys": [1, 2]}"#, "values"),
        (r#"{"keys": [1], "values": [1], "aggregates": ["sum", "median"]}"#, "aggregates[1]"),
        (r#"{"keys": [1, 2, 0], "values": [1, 2, 3], "sorted": true}"#, "keys[2]"),
        (r#"{"keys": [1], "values": [1], "scale": 19}"#, "scale"),
        (r#"{"keys": [1], "values": [1], "scale": 3, "mean_scale": 2}"#, "mean_scale"),
        (r#"{"keys": [1], "values": [1], "mean_scale": 2}"#, "mean_scale"),
        (r#"{"keys": [1], "values": [0.5], "scale": 2}"#, "values"),
    ] {
        assert_eq!(rejection(ask(id, document).await).field, field, "{document}");
    }
}
