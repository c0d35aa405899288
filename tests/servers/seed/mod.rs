//! The code blocks of the deployment page that this crate follows: each compiles as it stands there and does what the
//! page says of it.
//!
//! What differs from the page's letter, and nothing else does:
//! * the crates: `rustkernel_ecosystem::{axum, grpc, actix}` are modules of ours, `rustkernel_ecosystem::tower` is
//!   `layers` and `service`, `rustkernel_core::registry` is `service`, and `rustkernels` is `kernels`;
//! * addresses, so that tests run side by side;
//! * what the page leaves out and Rust asks for: `mut`, imports, the variables that it does not define;
//! * its scores of betweenness, which are wrong: networkx says otherwise.

mod actix;
mod axum;
mod grpc;
mod tower;

use std::sync::Arc;
use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tower_kernels::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, RunContext};

/// `networkx.betweenness_centrality(networkx.cycle_graph(4))`, the graph of the page's request.
const CYCLE: [f64; 4] = [1.0 / 6.0; 4];
/// `networkx.betweenness_centrality(networkx.path_graph(4))`, that of its actor's message.
const PATH: [f64; 4] = [0.0, 2.0 / 3.0, 2.0 / 3.0, 0.0];

/// The catalogue, and a kernel that takes its time.
fn registry() -> Arc<KernelRegistry> {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.register(Nap).unwrap();
    registry
}

/// The input of the page's request.
fn input() -> Value {
    serde_json::json!({"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "normalized": true})
}

#[track_caller]
fn assert_scores(output: &Value, expected: [f64; 4]) {
    let scores: Vec<f64> = serde_json::from_value(output["scores"].clone()).unwrap();
    assert_eq!(scores.len(), expected.len(), "{scores:?}");
    for (score, expected) in scores.iter().zip(expected) {
        assert!((score - expected).abs() < 1e-9, "{scores:?}");
    }
}

/// Checks that an answer has whatever the page's has, of the same types; it may have more.
#[track_caller]
fn assert_shape(response: &Value, page: &Value) {
    match (response, page) {
        (Value::Object(response), Value::Object(page)) => {
            for (key, page) in page {
                assert_shape(response.get(key).unwrap_or_else(|| panic!("no {key} in {response:?}")), page);
            }
        }
        _ => assert_eq!(std::mem::discriminant(response), std::mem::discriminant(page), "{response} is not as {page}"),
    }
}

/// Sleeps for as many milliseconds as it is told to, or until its caller has left.
struct Nap;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Millis {
    millis: u64,
}

impl Kernel for Nap {
    type Input = Millis;
    type Output = u64;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/nap", "1.0.0", "Sleeps.")
    }

    fn validate(&self, _: &Millis) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &Millis) -> Cost {
        Cost { operations: input.millis.saturating_mul(2_000_000), ..Cost::default() }
    }

    fn run_cpu(&self, input: &Millis, context: &RunContext<'_>) -> Result<u64, KernelError> {
        let end = Instant::now() + Duration::from_millis(input.millis);
        while Instant::now() < end {
            context.check()?;
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(input.millis)
    }
}

/// "Feature Flags": all that the page names can be asked for.
#[test]
fn feature_flags() {
    let manifest = include_str!("../../../Cargo.toml");
    let (_, features) = manifest.split_once("\n[features]\n").unwrap();
    let (features, _) = features.split_once("\n[").unwrap();
    let list = |name: &str| features.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(" = "));
    let full = list("full").unwrap();
    for name in ["axum", "tower", "grpc", "actix"] {
        assert!(list(name).is_some() && full.contains(&format!("\"{name}\"")), "{name}");
    }
}
