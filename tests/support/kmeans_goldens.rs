//! The goldens of `ml/kmeans-cluster`, by scikit-learn: tests/goldens/make_kmeans.py.

use serde_json::Value;
use tower_kernels::kernels::ml::kmeans_cluster::{KMeansInput, KMeansOutput};

/// A run of scikit-learn with given initial centroids.
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) input: KMeansInput,
    labels: Vec<u32>,
    centroids: Vec<f64>,
    inertia: f64,
    iterations: u64,
}

/// The inertia of scikit-learn's runs with k-means++.
pub(crate) struct Seeding {
    pub(crate) name: String,
    pub(crate) input: KMeansInput,
    /// How many seeds are run.
    pub(crate) seeds: u64,
    pub(crate) mean: f64,
    deviation: f64,
}

impl Seeding {
    /// The mean inertia that is allowed: four standard errors of the difference of two means above scikit-learn's.
    pub(crate) fn limit(&self) -> f64 {
        self.mean + 4.0 * self.deviation * (2.0 / self.seeds as f64).sqrt()
    }
}

fn goldens(list: &str, least: usize) -> Vec<Value> {
    let mut goldens: Value = serde_json::from_str(include_str!("../goldens/kmeans.json")).unwrap();
    let Value::Array(goldens) = goldens[list].take() else { panic!("{list}") };
    assert!(goldens.len() >= least);
    goldens
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn input(golden: &Value, k: usize) -> KMeansInput {
    let data: Vec<f32> = numbers(&golden["data"]).into_iter().map(|x| x as f32).collect();
    KMeansInput::new(data, golden["n_features"].as_u64().unwrap() as u32, k as u32)
}

pub(crate) fn runs() -> Vec<Run> {
    let run = |golden: Value| {
        let init: Vec<f32> = numbers(&golden["init"]).into_iter().map(|x| x as f32).collect();
        let features = golden["n_features"].as_u64().unwrap() as usize;
        let input = KMeansInput {
            max_iterations: golden["max_iterations"].as_u64().unwrap() as u32,
            tolerance: golden["tolerance"].as_f64().unwrap(),
            ..input(&golden, init.len() / features)
        };
        Run {
            name: golden["name"].to_string(),
            input: KMeansInput { init: Some(init.into()), ..input },
            labels: numbers(&golden["labels"]).into_iter().map(|label| label as u32).collect(),
            centroids: numbers(&golden["centroids"]),
            inertia: golden["inertia"].as_f64().unwrap(),
            iterations: golden["iterations"].as_u64().unwrap(),
        }
    };
    goldens("runs", 13).into_iter().map(run).collect()
}

pub(crate) fn seedings() -> Vec<Seeding> {
    let seeding = |golden: Value| Seeding {
        name: golden["name"].to_string(),
        input: input(&golden, golden["k"].as_u64().unwrap() as usize),
        seeds: 50,
        mean: golden["mean"].as_f64().unwrap(),
        deviation: golden["standard_deviation"].as_f64().unwrap(),
    };
    goldens("seedings", 3).into_iter().map(seeding).collect()
}

/// Checks that an output is that of scikit-learn.
pub(crate) fn check_run(golden: &Run, output: &KMeansOutput) {
    let name = &golden.name;
    assert_eq!(output.labels.to_vec(), golden.labels, "{name}");
    assert_eq!(u64::from(output.iterations), golden.iterations, "{name}");
    assert!((output.inertia - golden.inertia).abs() <= 1e-4 * golden.inertia, "{name}: {}", output.inertia);
    assert_eq!(output.centroids.len(), golden.centroids.len(), "{name}");
    for (&centroid, &expected) in output.centroids.iter().zip(&golden.centroids) {
        assert!(
            (f64::from(centroid) - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
            "{name}: {centroid} {expected}"
        );
    }
}
