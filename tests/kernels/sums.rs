//! `linalg/dot`, `linalg/weighted-sum-product` and `stats/moments`: against exact sums, numpy and scipy.

use serde_json::Value;

use crate::service::{ask, rejection};

fn goldens(name: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../goldens/sums.json")).unwrap();
    let cases = all[name].as_array().unwrap().clone();
    assert!(cases.len() >= 7);
    cases
}

/// The case's inputs as a document.
fn document(case: &Value, outputs: &[&str]) -> String {
    let mut fields = case.as_object().unwrap().clone();
    for output in outputs {
        assert!(fields.remove(*output).is_some(), "{output}");
    }
    Value::Object(fields).to_string()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

#[tokio::test]
async fn dot_products_are_those_of_exact_sums() {
    for case in goldens("dot") {
        let output = ask("linalg/dot", &document(&case, &["dot"])).await.unwrap();
        let (dot, expected) = (output["dot"].as_f64().unwrap(), case["dot"].as_f64().unwrap());
        let sizes = numbers(&case["x"]).iter().zip(numbers(&case["y"])).map(|(x, y)| (x * y).abs()).sum::<f64>();
        assert!((dot - expected).abs() <= 1e-14 * sizes, "{dot:e} {expected:e}");
    }
}

#[tokio::test]
async fn weighted_sums_are_those_of_exact_sums() {
    for case in goldens("weighted_sum_product") {
        let output = ask("linalg/weighted-sum-product", &document(&case, &["out"])).await.unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|weight| case[weight].as_f64().unwrap());
        let [x, y, z, w] = ["x", "y", "z", "w"].map(|vector| numbers(&case[vector]));
        let rows = numbers(&output["out"]).into_iter().zip(numbers(&case["out"])).enumerate();
        assert_eq!(rows.len(), x.len());
        for (row, (value, expected)) in rows {
            let size = (a * x[row]).abs() + (b * y[row]).abs() + (c * z[row] * w[row]).abs();
            assert!((value - expected).abs() <= 3e-7 * size, "{row}: {value:e} {expected:e}");
        }
    }
}

#[tokio::test]
async fn moments_are_those_of_numpy_and_scipy() {
    for case in goldens("moments") {
        let names = ["mean", "variance", "skewness", "kurtosis"];
        let output = ask("stats/moments", &document(&case, &names)).await.unwrap();
        let of = |source: &Value| names.map(|name| source[name].as_f64().unwrap());
        let (values, expected) = (of(&output), of(&case));
        let scales = [expected[0].abs(), expected[1], 1.0 + expected[2].abs(), 3.0 + expected[3].abs()];
        // The rounding of the mean itself, in deviations: what it costs the other outputs.
        let rounding = 1e-15 * expected[0].abs() / expected[1].sqrt();
        for (index, name) in names.into_iter().enumerate() {
            let error = (values[index] - expected[index]).abs();
            let bound = if name == "mean" { 1e-14 } else { 1e-12 + 4.0 * rounding };
            assert!(error <= bound * scales[index], "{name}: {} {}", values[index], expected[index]);
        }
    }
}

#[tokio::test]
async fn skewness_and_kurtosis_of_equal_numbers_are_not_numbers() {
    let output = ask("stats/moments", r#"{"x": [3.5, 3.5, 3.5]}"#).await.unwrap();
    assert_eq!(output, serde_json::json!({ "mean": 3.5, "variance": 0.0, "skewness": null, "kurtosis": null }));
}

#[tokio::test]
async fn empty_and_unequal_vectors_are_rejected() {
    for (id, document, field) in [
        ("linalg/dot", r#"{"x": [], "y": []}"#, "x"),
        ("linalg/dot", r#"{"x": [1, 2], "y": [1]}"#, "y"),
        ("stats/moments", r#"{"x": []}"#, "x"),
        ("stats/moments", r#"{"x": [1], "weights": [1]}"#, "weights"),
        ("linalg/weighted-sum-product", r#"{"a": 1, "b": 1, "c": 1, "x": [1], "y": [1], "z": [1, 2], "w": [1]}"#, "z"),
    ] {
        assert_eq!(rejection(ask(id, document).await).field, field, "{document}");
    }
}
