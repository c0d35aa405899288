//! `linalg/saxpy`.

use crate::service::{ask, read, rejection, run, tensor, tensors};
use tower_kernels::kernels::linalg::saxpy::{SaxpyInput, SaxpyOutput};
use tower_kernels::service::{DType, Payload};

const ID: &str = "linalg/saxpy";

#[tokio::test]
async fn all_payloads_give_the_same_output() {
    let answer = ask(ID, r#"{"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}"#).await.unwrap();
    assert_eq!(answer, serde_json::json!({ "y": [12.0, 24.0] }));

    let (a, x, y) = (0.1_f32, vec![1.0_f32, -3.5, 1e-8], vec![1e8_f32, 0.25, 7.0]);
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| a.mul_add(*x, *y)).collect();
    let input = SaxpyInput { a, x: x.clone().into(), y: y.clone().into() };
    let typed = run(ID, Payload::typed(input)).await.unwrap();
    assert_eq!(typed.downcast::<SaxpyOutput>().unwrap().y[..], expected);
    let fields = [
        ("a", tensor(DType::F32, &[], &[a])),
        ("x", tensor(DType::F32, &[3], &x)),
        ("y", tensor(DType::F32, &[3], &y)),
    ];
    assert_eq!(read::<f32>(&run(ID, tensors(fields)).await.unwrap(), "y", DType::F32), expected);
}

#[tokio::test]
async fn the_pool_gives_what_one_thread_gives() {
    let x: Vec<f32> = (0..300_001).map(|index| index as f32 * 0.37).collect();
    let y: Vec<f32> = x.iter().map(|x| 1e5 - x).collect();
    let expected: Vec<f32> = x.iter().zip(&y).map(|(x, y)| 1.7_f32.mul_add(*x, *y)).collect();
    let answer = run(ID, Payload::typed(SaxpyInput { a: 1.7, x: x.into(), y: y.into() })).await.unwrap();
    assert!(answer.downcast::<SaxpyOutput>().unwrap().y[..] == expected);
}

#[tokio::test]
async fn rejections_name_the_field() {
    for (document, field) in [
        (r#"{"a": 1, "x": [], "y": []}"#, "x"),
        (r#"{"a": 1, "x": [1], "y": [1, 2]}"#, "y"),
        (r#"{"a": 1, "x": [1, "2"], "y": [1, 2]}"#, "x[1]"),
        (r#"{"a": 1, "x": [1]}"#, "y"),
        (r#"{"a": 1, "x": [1], "y": [1], "z": 0}"#, "z"),
    ] {
        assert_eq!(rejection(ask(ID, document).await).field, field, "{document}");
    }
    let fields = [
        ("a", tensor(DType::F32, &[], &[1.0_f32])),
        ("x", tensor(DType::F64, &[1], &[1.0_f64])),
        ("y", tensor(DType::F32, &[1], &[1.0_f32])),
    ];
    assert_eq!(rejection(run(ID, tensors(fields)).await).field, "x");
}
