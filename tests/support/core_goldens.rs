//! The goldens of the `core` kernels, which numpy has made: `tests/goldens/make_core.py`.

use serde_json::Value;
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
