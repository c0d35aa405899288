//! `risk/monte-carlo-var`: against numpy on the same random numbers, against the normal distribution, and its laws.

use serde_json::{Value, json};
use tower_kernels::kernels::risk::monte_carlo_var::{MonteCarloVar, MonteCarloVarInput, MonteCarloVarOutput};
use tower_kernels::service::{Kernel, RunContext};

use crate::service::{ask, rejection};

const ID: &str = "risk/monte-carlo-var";

fn goldens(kind: &str) -> Vec<Value> {
    let all: Value = serde_json::from_str(include_str!("../goldens/monte_carlo_var.json")).unwrap();
    all[kind].as_array().unwrap().clone()
}

fn numbers(values: &Value) -> Vec<f64> {
    let one = std::slice::from_ref(values);
    values.as_array().map_or(one, Vec::as_slice).iter().map(|value| value.as_f64().unwrap()).collect()
}

fn run(input: &MonteCarloVarInput) -> MonteCarloVarOutput {
    MonteCarloVar.validate(input).unwrap();
    MonteCarloVar.run_cpu(input, &RunContext::detached()).unwrap()
}

/// Three correlated factors at three confidence levels.
fn book(num_scenarios: u64) -> MonteCarloVarInput {
    MonteCarloVarInput {
        cholesky: Some(vec![1.0, 0.0, 0.0, 0.6, 0.8, 0.0, -0.36, 0.48, 0.8].into()),
        confidence_levels: vec![0.9, 0.95, 0.99].into(),
        ..MonteCarloVarInput::new(vec![1000.0, -500.0, 250.0], vec![0.01, 0.02, 0.05], num_scenarios)
    }
}

#[tokio::test]
async fn linear_books_have_the_losses_of_numpy() {
    let goldens = goldens("linear");
    assert!(goldens.len() >= 4);
    for golden in goldens {
        let output = ask(ID, &golden["input"].to_string()).await.unwrap();
        let unit = golden["output"]["standard_deviation"].as_f64().unwrap();
        let expected = golden["output"].as_object().unwrap();
        assert_eq!(expected.len(), 7);
        for (field, expected) in expected {
            for (value, expected) in numbers(&output[field]).into_iter().zip(numbers(expected)) {
                // The losses are rounded to single precision.
                assert!((value - expected).abs() <= 5e-6 * unit, "{field}: {value:e}, not {expected:e}");
            }
        }
    }
}

#[tokio::test]
async fn books_with_gammas_are_within_the_errors_of_numpy() {
    let goldens = goldens("delta_gamma");
    assert!(goldens.len() >= 3);
    for golden in goldens {
        let output = ask(ID, &golden["input"].to_string()).await.unwrap();
        for field in ["value_at_risk", "expected_shortfall", "mean"] {
            let error_field = format!("{field}_error");
            let errors = numbers(&output[&error_field]).into_iter().zip(numbers(&golden["output"][&error_field]));
            let values = numbers(&output[field]).into_iter().zip(numbers(&golden["output"][field]));
            for ((value, expected), (error, other)) in values.zip(errors) {
                let bound = 4.0 * f64::hypot(error, other);
                assert!((value - expected).abs() <= bound, "{field}: {value}, not {expected} within {bound}");
            }
        }
    }
}

/// The quantiles and the tail means of the normal distribution.
#[test]
fn a_linear_book_is_normal() {
    let input = book(400_000);
    let output = run(&input);
    let exposures = [1000.0 * 0.01, -500.0 * 0.02, 250.0 * 0.05];
    // The columns of the Cholesky factor.
    let columns = [[1.0, 0.6, -0.36], [0.0, 0.8, 0.48], [0.0, 0.0, 0.8]];
    let variance: f64 = columns
        .map(|column| column.iter().zip(exposures).map(|(entry, exposure)| entry * exposure).sum::<f64>().powi(2))
        .iter()
        .sum();
    let deviation = variance.sqrt();
    let normal = [
        (1.281_551_565_545, 1.754_983_319_325),
        (1.644_853_626_951, 2.062_712_807_507),
        (2.326_347_874_041, 2.665_214_220_346),
    ];
    for (index, (quantile, tail)) in normal.into_iter().enumerate() {
        let near = |value: f64, expected: f64, error: f64| {
            assert!((value - expected).abs() <= 4.0 * error, "{value}, not {expected} within {error}");
        };
        near(output.value_at_risk[index], deviation * quantile, output.value_at_risk_error[index]);
        near(output.expected_shortfall[index], deviation * tail, output.expected_shortfall_error[index]);
        assert!(output.value_at_risk_error[index] < 0.02 * deviation);
    }
    assert!(output.mean.abs() <= 4.0 * output.mean_error);
}

#[test]
fn an_output_depends_on_the_seed_and_not_on_the_threads() {
    let input = book(70_001);
    let outputs = [1, 3].map(|threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| run(&input))
    });
    assert_eq!(outputs[0], outputs[1]);
    let other = run(&MonteCarloVarInput { seed: 1, ..input });
    assert_ne!(outputs[0].value_at_risk, other.value_at_risk);
}

#[test]
fn twice_the_book_has_twice_the_risk() {
    let input = book(50_000);
    let twice = MonteCarloVarInput { values: input.values.iter().map(|value| 2.0 * value).collect(), ..input.clone() };
    let (single, twice) = (run(&input), run(&twice));
    for index in 0..3 {
        assert_eq!(twice.value_at_risk[index], 2.0 * single.value_at_risk[index]);
        assert_eq!(twice.expected_shortfall[index], 2.0 * single.expected_shortfall[index]);
        assert!(single.expected_shortfall[index] > single.value_at_risk[index]);
    }
    assert!(single.value_at_risk.is_sorted());
}

#[test]
fn a_book_without_risk_loses_what_is_expected() {
    let returns = Some(vec![-0.001].into());
    let input =
        MonteCarloVarInput { expected_returns: returns, ..MonteCarloVarInput::new(vec![1024.0], vec![0.0], 1000) };
    let output = run(&input);
    let loss = f64::from(1.024_f32);
    assert_eq!((output.value_at_risk[0], output.expected_shortfall[0]), (loss, loss));
    assert_eq!(output.value_at_risk_error[0], 0.0);
    // The origin of the sums is in double precision, and the losses are not.
    assert!(output.standard_deviation <= 1e-7 * loss);
}

#[tokio::test]
async fn wrong_inputs_are_rejected() {
    let good = json!({ "values": [1.0, 2.0], "volatilities": [0.1, 0.2], "num_scenarios": 1000 });
    assert!(ask(ID, &good.to_string()).await.is_ok());
    for (field, value, named) in [
        ("values", json!([]), "values"),
        ("values", json!([1.0]), "volatilities"),
        ("values", json!([1e300, 1.0]), "values"),
        ("volatilities", json!([0.1, -0.2]), "volatilities[1]"),
        ("expected_returns", json!([0.1]), "expected_returns"),
        ("gammas", json!([0.1, 0.2, 0.3]), "gammas"),
        ("cholesky", json!([1.0, 0.0, 0.6]), "cholesky"),
        ("cholesky", json!([1.0, 0.1, 0.6, 0.8]), "cholesky[1]"),
        ("cholesky", json!([1.0, 0.0, 0.6, 0.9]), "cholesky[2]"),
        ("holding_period", json!(0), "holding_period"),
        ("num_scenarios", json!(99), "num_scenarios"),
        ("num_scenarios", json!(1_000_000_001), "num_scenarios"),
        ("confidence_levels", json!([]), "confidence_levels"),
        ("confidence_levels", json!([0.99, 0.4]), "confidence_levels[1]"),
        ("confidence_levels", json!([0.9999]), "confidence_levels[0]"),
        ("quantile", json!(0.9), "quantile"),
    ] {
        let mut input = good.clone();
        input[field] = value;
        assert_eq!(rejection(ask(ID, &input.to_string()).await).field, named, "{input}");
    }
}
