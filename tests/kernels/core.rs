//! The `core` kernels: against numpy, and the properties of their outputs.

use tower_kernels::kernels::core::sort::{Sort, SortInput, SortOutput};
use tower_kernels::kernels::core::top_k::TopK;
use tower_kernels::service::{Kernel, NumberArray, RunContext};

use crate::core_goldens::{bits_at, bits_of_rows, sorts, top_ks};
use crate::service::{ask, rejection};

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
