//! The goldens of the `core` kernels, which numpy and pandas have made: `tests/goldens/make_core.py` and
//! `make_aggregate.py`.

use serde_json::Value;
use tower_kernels::kernels::core::segmented_aggregate::{Aggregate, SegmentedAggregateInput, SegmentedAggregateOutput};
use tower_kernels::kernels::core::sort::SortInput;
use tower_kernels::kernels::core::top_k::TopKInput;
use tower_kernels::service::NumberArray;

fn goldens(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../goldens/core.json")).unwrap();
    all[name].as_array().unwrap().clone()
}

/// The inputs of `core/sort`, and the indices of the sorted values.
pub(crate) fn sorts() -> Vec<(SortInput, Vec<u32>)> {
    let cases = goldens("sort");
    assert_eq!(cases.len(), 36);
    let read = |case: Value| {
        let values = numbers(case["dtype"].as_str().unwrap(), &case["values"]);
        let descending = case["descending"].as_bool().unwrap();
        (SortInput { values, descending, return_indices: true }, indices(&case["indices"]))
    };
    cases.into_iter().map(read).collect()
}

/// The inputs of `core/top-k`, and the indices of the selected values in their rows.
pub(crate) fn top_ks() -> Vec<(TopKInput, Vec<u32>)> {
    let cases = goldens("top_k");
    assert_eq!(cases.len(), 48);
    let read = |case: Value| {
        let values = numbers(case["dtype"].as_str().unwrap(), &case["values"]);
        let [rows, k] = ["rows", "k"].map(|field| case[field].as_u64().unwrap());
        let largest = case["largest"].as_bool().unwrap();
        (TopKInput { values, rows, k, largest }, indices(&case["indices"]))
    };
    cases.into_iter().map(read).collect()
}

/// All aggregates.
pub(crate) const AGGREGATES: [Aggregate; 5] =
    [Aggregate::Sum, Aggregate::Min, Aggregate::Max, Aggregate::Count, Aggregate::Mean];

/// The inputs of `core/segmented-aggregate`, and what is expected of each.
pub(crate) fn aggregates() -> Vec<(SegmentedAggregateInput, Value)> {
    let all: Value = serde_json::from_str(include_str!("../goldens/segmented_aggregate.json")).unwrap();
    let groups = all["groups"].as_array().unwrap().iter().map(|case| {
        let array = |name: &str| numbers(case[format!("{name}_dtype")].as_str().unwrap(), &case[name]);
        let input = SegmentedAggregateInput {
            aggregates: AGGREGATES.to_vec().into(),
            sorted: case["sorted"].as_bool().unwrap(),
            ..SegmentedAggregateInput::new(array("keys"), array("values"))
        };
        (input, case["expected"].clone())
    });
    let decimals = all["decimals"].as_array().unwrap().iter().map(|case| {
        let [keys, values] = ["keys", "values"].map(|name| numbers("int64", &case[name]));
        let [scale, mean_scale] = ["scale", "mean_scale"].map(|name| Some(case[name].as_u64().unwrap() as u32));
        let aggregates = vec![Aggregate::Sum, Aggregate::Mean].into();
        let input =
            SegmentedAggregateInput { aggregates, scale, mean_scale, ..SegmentedAggregateInput::new(keys, values) };
        (input, case["expected"].clone())
    });
    let cases: Vec<_> = groups.chain(decimals).collect();
    assert_eq!(cases.len(), 76);
    cases
}

/// Compares an output with what is expected: integers exactly, floating-point numbers but for rounding.
pub(crate) fn assert_aggregates(input: &SegmentedAggregateInput, output: &SegmentedAggregateOutput, expected: &Value) {
    let output = serde_json::to_value(output).unwrap();
    let magnitude = input.values.as_ref().map_or(0.0, |values| {
        let values = serde_json::to_value(values).unwrap();
        values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap().abs()).sum::<f64>()
    });
    for (name, expected) in expected.as_object().unwrap() {
        let (found, expected) = (output[name].as_array().unwrap(), expected.as_array().unwrap());
        assert_eq!(found.len(), expected.len(), "{name} of {input:?}");
        for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
            let is_same = found == expected
                || found.is_f64() && (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs() <= 1e-14 * magnitude;
            assert!(is_same, "{name}[{index}] is {found}, not {expected}: {input:?}");
        }
    }
}

/// The bits of the numbers with these indices in their rows, `k` of each row.
pub(crate) fn bits_of_rows(input: &TopKInput, indices: &[u32]) -> Vec<u64> {
    let row_len = input.values.len() / input.rows as usize;
    let rows = indices.chunks(input.k as usize).enumerate();
    let indices = rows.flat_map(|(row, of_row)| of_row.iter().map(move |index| (row * row_len) as u32 + index));
    bits_at(&input.values, indices)
}

/// The numbers with these indices, as bits; all NaN are the same.
pub(crate) fn bits_at(values: &NumberArray, indices: impl IntoIterator<Item = u32>) -> Vec<u64> {
    let bits = |index: usize| match values {
        NumberArray::U32(values) => values[index].into(),
        NumberArray::I32(values) => i64::from(values[index]).cast_unsigned(),
        NumberArray::U64(values) => values[index],
        NumberArray::I64(values) => values[index].cast_unsigned(),
        NumberArray::F32(values) if values[index].is_nan() => f64::NAN.to_bits(),
        NumberArray::F32(values) => f64::from(values[index]).to_bits(),
        NumberArray::F64(values) if values[index].is_nan() => f64::NAN.to_bits(),
        NumberArray::F64(values) => values[index].to_bits(),
        other => panic!("{other:?}"),
    };
    indices.into_iter().map(|index| bits(index as usize)).collect()
}

fn indices(values: &Value) -> Vec<u32> {
    values.as_array().unwrap().iter().map(|value| value.as_u64().unwrap() as u32).collect()
}

fn numbers(dtype: &str, values: &Value) -> NumberArray {
    let values = values.as_array().unwrap().iter();
    let float = |value: &Value| match value {
        Value::Null => f64::NAN,
        Value::String(name) => name.parse().unwrap(),
        number => number.as_f64().unwrap(),
    };
    match dtype {
        "uint32" => values.map(|value| value.as_u64().unwrap() as u32).collect::<Vec<_>>().into(),
        "int32" => values.map(|value| value.as_i64().unwrap() as i32).collect::<Vec<_>>().into(),
        "uint64" => values.map(|value| value.as_u64().unwrap()).collect::<Vec<_>>().into(),
        "int64" => values.map(|value| value.as_i64().unwrap()).collect::<Vec<_>>().into(),
        "float32" => values.map(|value| float(value) as f32).collect::<Vec<_>>().into(),
        "float64" => values.map(float).collect::<Vec<_>>().into(),
        other => panic!("{other}"),
    }
}
