//! `graph/value-similarity`: against scipy, and the laws of metrics.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tower_kernels::kernels::graph::value_similarity::{
    Metric, ValueSimilarity, ValueSimilarityInput, ValueSimilarityOutput,
};
use tower_kernels::service::{DType, Kernel, RunContext};

use crate::service::{ask, read, rejection, run, tensor, tensors};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_distributions: u32,
    distributions: Vec<f64>,
    bin_edges: Vec<f64>,
    pairs: Vec<[u32; 2]>,
    jsd: Vec<f64>,
    wasserstein: Vec<f64>,
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/value_similarity.json");
    let goldens: Vec<Golden> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(goldens.len() >= 9);
    goldens
}

fn output(input: &ValueSimilarityInput) -> ValueSimilarityOutput {
    ValueSimilarity.validate(input).unwrap();
    ValueSimilarity.run_cpu(input, &RunContext::detached()).unwrap()
}

fn input(golden: &Golden, metric: Metric) -> ValueSimilarityInput {
    let bin_edges = (metric == Metric::Wasserstein).then(|| golden.bin_edges.clone().into());
    let input = ValueSimilarityInput::new(golden.distributions.clone(), golden.num_distributions);
    ValueSimilarityInput { metric, bin_edges, ..input }
}

fn pairs(output: &ValueSimilarityOutput) -> Vec<[u32; 2]> {
    output.node_a.iter().zip(output.node_b.iter()).map(|(&a, &b)| [a, b]).collect()
}

#[test]
fn distances_are_those_of_scipy() {
    for golden in goldens() {
        for (metric, expected) in [(Metric::Jsd, &golden.jsd), (Metric::Wasserstein, &golden.wasserstein)] {
            let input = ValueSimilarityInput { pairs: Some(golden.pairs.clone()), ..input(&golden, metric) };
            let output = output(&input);
            assert_eq!(pairs(&output), golden.pairs, "{}", golden.name);
            assert_eq!(output.matching_pairs, golden.pairs.len() as u64);
            for (index, (distance, expected)) in output.distances.iter().zip(expected).enumerate() {
                // scipy's divergence has an error of some 1e-16, of which this takes the root.
                let bound = if metric == Metric::Jsd { 1e-15 / expected.max(1e-8) } else { 1e-13 * expected + 1e-15 };
                let pair = golden.pairs[index];
                assert!((distance - expected).abs() <= bound, "{}, {pair:?}: {distance} {expected}", golden.name);
            }
        }
    }
}

#[test]
fn the_most_similar_pairs_come_first() {
    for golden in goldens() {
        for (metric, expected) in [(Metric::Jsd, &golden.jsd), (Metric::Wasserstein, &golden.wasserstein)] {
            let mut order: Vec<usize> = (0..expected.len()).collect();
            // A distance of 0 is exact on both sides for equal histograms, and nearly so where scipy rounds.
            let rounded = |index: usize| if expected[index] < 1e-12 { 0.0 } else { expected[index] };
            order.sort_by(|&a, &b| rounded(a).total_cmp(&rounded(b)).then(golden.pairs[a].cmp(&golden.pairs[b])));
            let input = input(&golden, metric);
            let all = output(&input);
            assert_eq!(all.matching_pairs, expected.len() as u64, "{}", golden.name);
            assert!(all.distances.is_sorted());
            for (distance, &index) in all.distances.iter().zip(&order) {
                assert!((distance - expected[index]).abs() <= 1e-7, "{}", golden.name);
            }
            // A part of the output is that of fewer pairs, or of a higher similarity.
            for max_pairs in [1, 2, expected.len() as u32 / 2].into_iter().filter(|&count| count > 0) {
                let first = output(&ValueSimilarityInput { max_pairs, ..input.clone() });
                assert_eq!(pairs(&first), pairs(&all)[..max_pairs as usize], "{}", golden.name);
                assert_eq!(first.matching_pairs, all.matching_pairs);
            }
            let min_similarity = all.similarities[all.similarities.len() / 2];
            let similar = output(&ValueSimilarityInput { min_similarity, ..input.clone() });
            let count = all.similarities.iter().filter(|&&similarity| similarity >= min_similarity).count();
            assert_eq!(pairs(&similar), pairs(&all)[..count], "{}", golden.name);
            assert_eq!(similar.matching_pairs, count as u64);
        }
    }
}

#[test]
fn equal_distances_come_in_the_order_of_nodes() {
    let disjoint = goldens().into_iter().find(|golden| golden.name == "disjoint").unwrap();
    let output = output(&input(&disjoint, Metric::Jsd));
    assert!(output.distances.iter().all(|&distance| distance == 1.0));
    assert_eq!(pairs(&output), disjoint.pairs);
    let equal = goldens().into_iter().find(|golden| golden.name == "equal").unwrap();
    let three = ValueSimilarityInput { max_pairs: 9, ..input(&equal, Metric::Jsd) };
    let within: Vec<[u32; 2]> = [0, 3, 6].iter().flat_map(|&a| [[a, a + 1], [a, a + 2], [a + 1, a + 2]]).collect();
    assert_eq!(pairs(&self::output(&three)), within);
}

#[test]
fn the_same_pairs_come_from_any_number_of_threads() {
    let value = |index: u64| (index * 7_919 % 1_009) as f64 / 3.0;
    let values: Vec<f64> = (0..700 * 8).map(|index| value(index) + 0.1).collect();
    let input = ValueSimilarityInput { max_pairs: 500, ..ValueSimilarityInput::new(values, 700) };
    let on = |threads| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| output(&input))
    };
    let one = on(1);
    assert_eq!((one.node_a.len(), one.matching_pairs), (500, 700 * 699 / 2));
    assert!(on(2) == one && on(5) == one);
}

#[tokio::test]
async fn it_takes_json_and_tensors() {
    let document = json!({
        "distributions": [1.0, 3.0, 3.0, 1.0, 1.0, 1.0], "num_distributions": 3, "metric": "wasserstein",
        "bin_edges": [0.0, 2.0, 6.0], "max_pairs": 2, "min_similarity": 0.1,
    });
    let output = ask("graph/value-similarity", &document.to_string()).await.unwrap();
    // The middles are 3 apart; a quarter of the mass moves from the third to either, and half between those.
    assert_eq!((&output["node_a"], &output["node_b"]), (&json!([0, 1]), &json!([2, 2])));
    assert_eq!((&output["distances"], &output["matching_pairs"]), (&json!([0.75, 0.75]), &json!(3)));

    let payload = tensors([
        ("distributions", tensor(DType::F32, &[6], &[1.0_f32, 3.0, 3.0, 1.0, 1.0, 1.0])),
        ("num_distributions", tensor(DType::U32, &[], &[3_u32])),
        ("pairs", tensor(DType::U32, &[2, 2], &[1_u32, 0, 2, 2])),
    ]);
    let response = run("graph/value-similarity", payload).await.unwrap();
    let distances = read::<f64>(&response, "distances", DType::F64);
    let entropy = |share: f64| -share * share.log2();
    assert!((distances[0] - (1.0 - entropy(0.25) - entropy(0.75)).sqrt()).abs() < 1e-15, "{distances:?}");
    assert_eq!((distances[1], read::<u32>(&response, "node_a", DType::U32)), (0.0, vec![1, 2]));
}

#[tokio::test]
async fn invalid_fields_are_rejected_by_name() {
    for (fields, field) in [
        (json!({"distributions": []}), "num_distributions"),
        (json!({"distributions": 3.0}), "distributions"),
        (json!({"distributions": [1.0, 2.0, 3.0]}), "num_distributions"),
        (json!({"num_distributions": 0}), "num_distributions"),
        (json!({"distributions": [1.0, -1.0, 1.0, 1.0]}), "distributions[1]"),
        (json!({"distributions": [1.0, 1.0, null, 1.0]}), "distributions[2]"),
        (json!({"distributions": [1.0, 1.0, 0.0, 0.0]}), "distributions"),
        (json!({"bin_edges": [0.0, 1.0, 2.0]}), "bin_edges"),
        (json!({"metric": "wasserstein", "bin_edges": [0.0, 1.0]}), "bin_edges"),
        (json!({"metric": "wasserstein", "bin_edges": [0.0, 1.0, 1.0]}), "bin_edges[2]"),
        (json!({"metric": "wasserstein", "bin_edges": [0.0, null, 1.0]}), "bin_edges[1]"),
        (json!({"metric": "wasserstein", "bin_edges": [-1.7e308, 0.0, 1.7e308]}), "bin_edges"),
        (json!({"metric": "euclidean"}), "metric"),
        (json!({"pairs": [[0, 1], [0, 2]]}), "pairs[1][1]"),
        (json!({"pairs": [[0, 1, 1]]}), "pairs[0]"),
        (json!({"min_similarity": 1.5}), "min_similarity"),
        (json!({"max_pairs": 0}), "max_pairs"),
        (json!({"max_pairs": 2_000_000}), "max_pairs"),
        (json!({"bins": 2}), "bins"),
    ] {
        let mut document = json!({"distributions": [1.0, 1.0, 1.0, 3.0], "num_distributions": 2});
        document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let error = rejection(ask("graph/value-similarity", &document.to_string()).await);
        assert_eq!(error.field, field, "{document}: {error}");
    }
}

fn histograms() -> impl Strategy<Value = Vec<f64>> {
    prop::collection::vec(prop_oneof![Just(0.0), 0.0..10.0_f64], 3 * 6).prop_map(|mut values| {
        values.iter_mut().step_by(6).for_each(|value| *value += 0.1);
        values
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn distances_are_metrics_and_do_not_depend_on_scale(values in histograms(), wasserstein in any::<bool>()) {
        let metric = if wasserstein { Metric::Wasserstein } else { Metric::Jsd };
        let distances = |values: Vec<f64>| {
            let pairs = Some(vec![[0, 1], [1, 0], [1, 2], [0, 2], [0, 0]]);
            output(&ValueSimilarityInput { metric, pairs, ..ValueSimilarityInput::new(values, 3) }).distances
        };
        let own = distances(values.clone());
        prop_assert_eq!(own[0].to_bits(), own[1].to_bits());
        prop_assert_eq!(own[4], 0.0);
        prop_assert!(own[3] <= own[0] + own[2] + 1e-9, "the triangle inequality");
        let most = if wasserstein { 5.0 } else { 1.0 };
        prop_assert!(own.iter().all(|distance| (0.0..=most).contains(distance)));
        // By a power of two, which changes no bit of the shares.
        prop_assert_eq!(distances(values.iter().map(|value| value * 1024.0).collect()), own);
    }
}
