//! `temporal/volatility-analysis`: against the package arch, and the laws of its estimates.

use serde_json::{Value, json};
use tower_kernels::service::{DType, Payload};

use crate::service::{ask, read, rejection, run, tensor, tensors};

const ID: &str = "temporal/volatility-analysis";

fn goldens() -> Vec<Value> {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/volatility.json")).unwrap();
    assert!(goldens.len() >= 30);
    goldens
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn series(golden: &Value) -> Vec<f64> {
    numbers(&golden["returns"])
}

/// Of a request for one series.
fn first(output: &Value, field: &str) -> f64 {
    output[field][0].as_f64().unwrap()
}

fn near(name: &str, value: f64, expected: f64, bound: f64) {
    assert!((value - expected).abs() <= bound, "{name}: {value:e}, not {expected:e} within {bound:e}");
}

#[tokio::test]
async fn estimates_are_those_of_arch() {
    let mut same_maximum = 0;
    let goldens = goldens();
    for golden in &goldens {
        let input = json!({ "returns": golden["returns"], "mean": golden["mean"], "forecast_horizon": 6 });
        let output = ask(ID, &input.to_string()).await.unwrap();
        let name = format!("{}, {}", golden["name"], golden["mean"]);
        assert_eq!(output["status"], json!([0]), "{name}");

        let expected = golden["log_likelihood"].as_f64().unwrap();
        let found = first(&output, "log_likelihood");
        let bound = 1e-6 * expected.abs();
        assert!(found >= expected - bound, "{name}: {found} is below {expected}");
        if golden["arch_is_feasible"] == true {
            assert!(found >= golden["log_likelihood_of_arch"].as_f64().unwrap() - bound, "{name}");
        }
        let persistence = first(&output, "persistence");
        assert!(persistence <= 1.0 && first(&output, "alpha") >= 0.0 && first(&output, "beta") >= 0.0, "{name}");
        if found > expected + bound {
            // A higher one of several maxima.
            continue;
        }
        same_maximum += 1;
        let relative = if golden["is_interior"] == true { 1e-4 } else { 1e-3 };
        for field in ["mu", "omega", "alpha", "beta"] {
            let expected = golden[field].as_f64().unwrap();
            near(&format!("{field} of {name}"), first(&output, field), expected, relative * expected.abs() + 1e-9);
        }
        let volatility = golden["volatility"].as_f64().unwrap();
        near(&name, first(&output, "volatility"), volatility, relative * volatility);
        for (value, expected) in numbers(&output["forecast"]).into_iter().zip(numbers(&golden["forecast"])) {
            near(&name, value, expected, relative * expected);
        }
    }
    assert!(same_maximum >= 28, "{same_maximum} of {}", goldens.len());
}

/// More series than any vector register has lanes, and a number that is not a multiple.
#[tokio::test]
async fn series_together_have_the_bits_of_each_alone() {
    let goldens: Vec<Vec<f64>> = goldens().iter().map(series).filter(|series| series.len() >= 500).collect();
    let together: Vec<&[f64]> = goldens.iter().map(|series| &series[..500]).collect();
    assert!(together.len() > 17);
    let outputs = |output: &Payload| -> Vec<Vec<u64>> {
        ["mu", "omega", "alpha", "beta", "log_likelihood", "volatility", "forecast"]
            .map(|field| read::<f64>(output, field, DType::F64).into_iter().map(f64::to_bits).collect())
            .to_vec()
    };
    let request = |returns: &[f64], series: u32| {
        tensors([
            ("returns", tensor(DType::F64, &[returns.len()], returns)),
            ("num_series", tensor(DType::U32, &[], &[series])),
        ])
    };
    let all = run(ID, request(&together.concat(), together.len() as u32)).await.unwrap();
    for (index, series) in together.iter().enumerate() {
        let alone = outputs(&run(ID, request(series, 1)).await.unwrap());
        for (together, alone) in outputs(&all).iter().zip(&alone) {
            assert_eq!(together[index], alone[0], "series {index}");
        }
    }
}

#[tokio::test]
async fn the_unit_of_the_returns_does_not_matter() {
    for golden in goldens().iter().take(12) {
        let returns = series(golden);
        let scaled: Vec<f64> = returns.iter().map(|value| value * 1024.0).collect();
        let [plain, scaled] =
            [returns, scaled].map(|returns| json!({ "returns": returns, "mean": golden["mean"] }).to_string());
        let (plain, scaled) = (ask(ID, &plain).await.unwrap(), ask(ID, &scaled).await.unwrap());
        // A power of two changes no digit.
        for (field, unit) in
            [("mu", 1024.0), ("omega", 1_048_576.0), ("alpha", 1.0), ("beta", 1.0), ("volatility", 1024.0)]
        {
            assert_eq!(first(&scaled, field), unit * first(&plain, field), "{field} of {}", golden["name"]);
        }
    }
}

#[tokio::test]
async fn forecasts_approach_the_variance_in_the_long_run() {
    let golden = &goldens()[0];
    let input = json!({ "returns": golden["returns"], "forecast_horizon": 1000 });
    let output = ask(ID, &input.to_string()).await.unwrap();
    let forecast = numbers(&output["forecast"]);
    let (omega, persistence) = (first(&output, "omega"), first(&output, "persistence"));
    let long_run = omega / (1.0 - persistence);
    assert_eq!(forecast.len(), 1000);
    let distances: Vec<f64> = forecast.iter().map(|variance| (variance - long_run).abs()).collect();
    assert!(distances.is_sorted_by(|before, after| after <= before));
    near("the last", forecast[999], long_run, 1e-6 * long_run);
    let input = json!({ "returns": golden["returns"], "forecast_horizon": 0 });
    assert_eq!(ask(ID, &input.to_string()).await.unwrap()["forecast"], json!([]));
}

#[tokio::test]
async fn single_precision_is_computed_in_double() {
    let single: Vec<f32> = series(&goldens()[0]).into_iter().map(|value| value as f32).collect();
    let double: Vec<f64> = single.iter().map(|&value| value.into()).collect();
    let single = tensors([("returns", tensor(DType::F32, &[single.len()], &single))]);
    let double = tensors([("returns", tensor(DType::F64, &[double.len()], &double))]);
    let (single, double) = (run(ID, single).await.unwrap(), run(ID, double).await.unwrap());
    for field in ["omega", "alpha", "beta", "log_likelihood"] {
        assert_eq!(read::<f64>(&single, field, DType::F64), read::<f64>(&double, field, DType::F64), "{field}");
    }
}

#[tokio::test]
async fn a_series_that_cannot_be_fitted_fails_by_itself() {
    let good = series(&goldens()[0]);
    let len = good.len();
    let mut returns = good.clone();
    returns.extend(vec![0.1; len]);
    returns.extend(vec![0.0; len]);
    for bad in [f64::NAN, f64::INFINITY, 1e300] {
        returns.extend(&good);
        let last = returns.len() - 7;
        returns[last] = bad;
    }
    returns.extend(&good);
    let input = tensors([
        ("returns", tensor(DType::F64, &[returns.len()], &returns)),
        ("num_series", tensor(DType::U32, &[], &[7_u32])),
    ]);
    let output = run(ID, input).await.unwrap();
    assert_eq!(read::<u8>(&output, "status", DType::U8), [0, 2, 2, 3, 3, 3, 0]);
    for field in ["mu", "omega", "alpha", "beta", "persistence", "log_likelihood", "volatility", "forecast"] {
        let values = read::<f64>(&output, field, DType::F64);
        assert!(values[0].is_finite() && values[0] == values[6], "{field}");
        assert!(values[1..6].iter().all(|value| value.is_nan()), "{field}: {values:?}");
    }
}

#[tokio::test]
async fn wrong_inputs_are_rejected() {
    let returns = vec![0.5; 30];
    for (input, field) in [
        (json!({ "returns": 0.5 }), "returns"),
        (json!({ "returns": [] }), "returns"),
        (json!({ "returns": returns[..9] }), "returns"),
        (json!({ "returns": returns, "num_series": 4 }), "num_series"),
        (json!({ "returns": returns, "num_series": 0 }), "num_series"),
        (json!({ "returns": returns, "num_series": 15 }), "returns"),
        (json!({ "returns": returns, "forecast_horizon": 1001 }), "forecast_horizon"),
        (json!({ "returns": returns, "mean": "median" }), "mean"),
        (json!({ "returns": returns, "p": 2 }), "p"),
    ] {
        assert_eq!(rejection(ask(ID, &input.to_string()).await).field, field, "{input}");
    }
}
