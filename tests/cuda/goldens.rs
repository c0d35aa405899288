//! The goldens on CUDA: networkx's scores, option prices of 40 digits, and arch's estimates.

use serde_json::{Value, json};
use tower::{Service, ServiceExt};
use tower_kernels::service::{KernelRequest, Payload};

use crate::probe::Bench;

crate::tests! {
    betweenness_is_that_of_networkx
    option_prices_are_within_1e12_of_40_digits
    volatility_models_are_those_of_arch
}

fn run(bench: &Bench, id: &'static str, input: &Value) -> Value {
    let response = bench.runtime.block_on(async {
        let mut service = bench.service();
        let request = KernelRequest::new(id, Payload::json(input.to_string()));
        service.ready().await.unwrap().call(request).await.unwrap()
    });
    assert_eq!(response.execution.backend, "CUDA");
    let Payload::Json(output) = response.payload else { panic!("JSON in, JSON out") };
    serde_json::from_slice(&output).unwrap()
}

fn bench() -> Bench {
    let bench = Bench::new(1);
    tower_kernels::kernels::register_all(&bench.registry).unwrap();
    bench
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn betweenness_is_that_of_networkx() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/betweenness.json")).unwrap();
    assert!(goldens.len() >= 12);
    let bench = bench();
    for golden in &goldens {
        for (form, normalized) in [("normalized", true), ("raw", false)] {
            let mut input = json!({
                "num_nodes": golden["num_nodes"], "edges": golden["edges"], "directed": golden["directed"],
                "normalized": normalized,
            });
            if let Some(sources) = golden.get("sources") {
                input["sources"] = sources.clone();
            }
            let scores = numbers(&run(&bench, "graph/betweenness-centrality", &input)["scores"]);
            let expected = numbers(&golden[form]);
            assert_eq!(scores.len(), expected.len());
            let most = expected.iter().copied().fold(0.0, f64::max);
            for (node, (score, expected)) in scores.iter().zip(&expected).enumerate() {
                let bound = 1e-9 * expected.abs() + 1e-14 * most;
                assert!((score - expected).abs() <= bound, "{}, {form}, {node}: {score} {expected}", golden["name"]);
            }
        }
    }
}

/// What one unit of each output is on the scale of the contract: the size of the terms that cancel in it.
fn scales([spot, strike, rate, volatility, time, dividend_yield]: [f64; 6]) -> [f64; 6] {
    let (forward, owed) = (spot * (-dividend_yield * time).exp(), strike * (-rate * time).exp());
    let money = forward + owed;
    let root = time.sqrt();
    let decay = if root > 0.0 { volatility / root } else { 0.0 };
    let peak = if volatility * root > 0.0 { forward / (spot * spot * volatility * root) } else { 1.0 };
    let carry = rate.abs() + dividend_yield.abs();
    [money, forward / spot, peak, forward * root, money * (carry + decay), owed * time]
}

fn option_prices_are_within_1e12_of_40_digits() {
    let rows: Vec<Vec<Value>> = serde_json::from_str(include_str!("../goldens/option_pricing.json")).unwrap();
    assert!(rows.len() > 3_000);
    let column = |index: usize| -> Vec<Value> { rows.iter().map(|row| row[index].clone()).collect() };
    let input = json!({
        "spot": column(0), "strike": column(1), "rate": column(2), "volatility": column(3), "time": column(4),
        "dividend_yield": column(5), "kind": column(6),
    });
    let output = run(&bench(), "risk/option-pricing", &input);
    for (index, field) in ["price", "delta", "gamma", "vega", "theta", "rho"].into_iter().enumerate() {
        for (row, value) in rows.iter().zip(numbers(&output[field])) {
            let terms = [0, 1, 2, 3, 4, 5].map(|term: usize| row[term].as_f64().unwrap());
            let expected = row[7 + index].as_f64().unwrap();
            let bound = 1e-12 * expected.abs().max(scales(terms)[index]);
            assert!((value - expected).abs() <= bound, "{field} of {} {terms:?}: {value:e} {expected:e}", row[6]);
        }
    }
}

/// Their parameters, where the fit is the same maximum, and otherwise a higher one.
fn volatility_models_are_those_of_arch() {
    let goldens: Vec<Value> = serde_json::from_str(include_str!("../goldens/volatility.json")).unwrap();
    assert!(goldens.len() >= 30);
    let bench = bench();
    let mut same_maximum = 0;
    for golden in &goldens {
        let input = json!({ "returns": golden["returns"], "mean": golden["mean"], "forecast_horizon": 6 });
        let output = run(&bench, "temporal/volatility-analysis", &input);
        let name = format!("{}, {}", golden["name"], golden["mean"]);
        assert_eq!(output["status"], json!([0]), "{name}");
        let (found, expected) = (numbers(&output["log_likelihood"])[0], golden["log_likelihood"].as_f64().unwrap());
        let bound = 1e-6 * expected.abs();
        assert!(found >= expected - bound, "{name}: {found} is below {expected}");
        if found > expected + bound {
            continue;
        }
        same_maximum += 1;
        let relative = if golden["is_interior"] == true { 1e-4 } else { 1e-3 };
        for field in ["mu", "omega", "alpha", "beta", "volatility"] {
            let (value, expected) = (numbers(&output[field])[0], golden[field].as_f64().unwrap());
            let bound = relative * expected.abs() + 1e-9;
            assert!((value - expected).abs() <= bound, "{field} of {name}: {value:e}, not {expected:e}");
        }
    }
    assert!(same_maximum >= 28, "{same_maximum} of {}", goldens.len());
}
