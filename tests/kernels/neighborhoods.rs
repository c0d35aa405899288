//! Triangles, clustering coefficients and the similarity of nodes: against networkx, and against their laws.

use std::collections::HashSet;
use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;
use tower_kernels::kernels::graph::adamic_adar::{AdamicAdar, AdamicAdarInput};
use tower_kernels::kernels::graph::clustering_coefficient::{ClusteringCoefficient, ClusteringCoefficientInput};
use tower_kernels::kernels::graph::common_neighbors::{CommonNeighbors, CommonNeighborsInput};
use tower_kernels::kernels::graph::cosine_similarity::{CosineSimilarity, CosineSimilarityInput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::jaccard_similarity::{JaccardSimilarity, JaccardSimilarityInput};
use tower_kernels::kernels::graph::k_clique::{KClique, KCliqueInput};
use tower_kernels::kernels::graph::triangle_counting::{TriangleCounting, TriangleCountingInput};
use tower_kernels::service::{Kernel, KernelRegistry, RunContext};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    edges: Vec<[u32; 2]>,
    triangles: Vec<u64>,
    clustering: Vec<f64>,
    transitivity: f64,
    average: f64,
    average_without_zeros: f64,
    /// Of 3 nodes, 4 nodes, and so on.
    cliques: Vec<u64>,
    pairs: Option<Vec<[u32; 2]>>,
    #[serde(default)]
    common: Vec<f64>,
    #[serde(default)]
    jaccard: Vec<f64>,
    #[serde(default)]
    adamic_adar: Vec<f64>,
    #[serde(default)]
    cosine: Vec<f64>,
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/neighborhoods.json");
    let goldens: Vec<Golden> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(goldens.len() >= 13);
    goldens
}

fn run<K: Kernel>(kernel: &K, input: &K::Input) -> K::Output {
    kernel.validate(input).unwrap();
    kernel.run_cpu(input, &RunContext::detached()).unwrap()
}

fn assert_close(values: &[f64], expected: &[f64], name: &str) {
    assert_eq!(values.len(), expected.len(), "{name}");
    for (index, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() <= 1e-13 * expected.abs(), "{name}[{index}] is {value}, not {expected}");
    }
}

#[test]
fn triangles_are_those_of_networkx() {
    for golden in goldens() {
        let output = run(&TriangleCounting, &TriangleCountingInput::from_edges(golden.num_nodes, golden.edges));
        assert_eq!(output.per_node_triangles[..], golden.triangles, "{}", golden.name);
        assert_eq!(output.total_triangles, golden.triangles.iter().sum::<u64>() / 3, "{}", golden.name);
        assert_close(&output.clustering_coefficients, &golden.clustering, &golden.name);
        assert_close(&[output.global_clustering_coefficient], &[golden.transitivity], &golden.name);
    }
}

#[test]
fn clustering_coefficients_are_those_of_networkx() {
    for golden in goldens() {
        for (count_zeros, average) in [(true, golden.average), (false, golden.average_without_zeros)] {
            let input = ClusteringCoefficientInput::from_edges(golden.num_nodes, golden.edges.clone());
            let output = run(&ClusteringCoefficient, &ClusteringCoefficientInput { count_zeros, ..input });
            assert_close(&output.coefficients, &golden.clustering, &golden.name);
            assert_close(&[output.average], &[average], &golden.name);
        }
    }
}

#[test]
fn scores_of_pairs_are_those_of_networkx() {
    let mut compared = 0;
    for golden in goldens() {
        let Golden { name, num_nodes, edges, pairs, .. } = golden;
        compared += pairs.as_ref().map_or(0, Vec::len);
        macro_rules! compare {
            ($($kernel:ident, $Input:ident, $expected:expr;)*) => {$(
                let input = $Input { pairs: pairs.clone(), ..$Input::from_edges(num_nodes, edges.clone()) };
                if pairs.is_some() {
                    let output = run(&$kernel, &input);
                    assert_close(&output.scores, &$expected, &format!("{}, {name}", stringify!($kernel)));
                    assert!(output.similar_nodes.is_empty());
                }
            )*};
        }
        compare! {
            CommonNeighbors, CommonNeighborsInput, golden.common;
            JaccardSimilarity, JaccardSimilarityInput, golden.jaccard;
            AdamicAdar, AdamicAdarInput, golden.adamic_adar;
            CosineSimilarity, CosineSimilarityInput, golden.cosine;
        }
    }
    assert!(compared > 2_000, "{compared}");
}

#[test]
fn similar_nodes_are_the_best_of_all_pairs() {
    for golden in goldens().into_iter().filter(|golden| golden.num_nodes < 100) {
        let (nodes, edges) = (golden.num_nodes as u32, golden.edges);
        for node in 0..nodes {
            let others: Vec<u32> = (0..nodes).filter(|&other| other != node).collect();
            let pairs = others.iter().map(|&other| [node, other]).collect();
            let input = CosineSimilarityInput::from_edges(nodes.into(), edges.clone());
            let of_pairs = run(&CosineSimilarity, &CosineSimilarityInput { pairs: Some(pairs), ..input.clone() });
            let mut best: Vec<(f64, u32)> = of_pairs.scores.iter().copied().zip(others).collect();
            best.sort_by(|a, b| b.0.total_cmp(&a.0));
            best.truncate(5);
            let input = CosineSimilarityInput { nodes: Some(vec![node].into()), top_k: 5, ..input };
            let output = run(&CosineSimilarity, &input);
            assert!(
                output.similar_nodes.iter().copied().eq(best.iter().map(|best| best.1)),
                "{node} of {}",
                golden.name
            );
            assert!(output.scores.iter().copied().eq(best.iter().map(|best| best.0)), "{node} of {}", golden.name);
        }
    }
}

#[test]
fn sums_of_weights_do_not_depend_on_the_order() {
    for golden in goldens().into_iter().filter(|golden| golden.num_nodes < 100) {
        // The same graph with its nodes numbered from the end: common neighbours are added in the opposite order.
        let last = golden.num_nodes as u32 - 1;
        let turned: Vec<[u32; 2]> = golden.edges.iter().map(|edge| edge.map(|node| last - node)).collect();
        let pairs: Vec<[u32; 2]> = (0..=last).flat_map(|a| (0..a).map(move |b| [a, b])).collect();
        let turned_pairs = pairs.iter().map(|pair| pair.map(|node| last - node)).collect();
        let input = |edges, pairs| AdamicAdarInput {
            pairs: Some(pairs),
            ..AdamicAdarInput::from_edges(golden.num_nodes, edges)
        };
        let scores = run(&AdamicAdar, &input(golden.edges.clone(), pairs)).scores;
        let turned = run(&AdamicAdar, &input(turned, turned_pairs)).scores;
        assert_eq!(scores, turned, "{}", golden.name);
    }
}

#[test]
fn cliques_are_those_of_networkx_and_the_listed_ones_are_different_cliques() {
    for golden in goldens() {
        for (k, &count) in (3_u32..=8).zip(&golden.cliques) {
            let limit = if k.is_multiple_of(2) { 1 << 20 } else { 100 };
            let input = KCliqueInput { k, limit, ..KCliqueInput::from_edges(golden.num_nodes, golden.edges.clone()) };
            let output = run(&KClique, &input);
            assert_eq!(output.count, count, "{k} nodes, {}", golden.name);
            assert_eq!(
                output.cliques.len() as u64,
                count.min(limit.into()) * u64::from(k),
                "{k} nodes, {}",
                golden.name
            );
            let edges: HashSet<[u32; 2]> = golden.edges.iter().flat_map(|&[a, b]| [[a, b], [b, a]]).collect();
            let cliques: HashSet<&[u32]> = output.cliques.chunks(k as usize).collect();
            assert_eq!(cliques.len() as u64, count.min(limit.into()), "{k} nodes, {}", golden.name);
            for clique in cliques {
                let is_clique = (0..clique.len()).all(|last| {
                    clique[..last].iter().all(|&node| node < clique[last] && edges.contains(&[node, clique[last]]))
                });
                assert!(is_clique, "{clique:?} of {}", golden.name);
            }
        }
    }
}

#[test]
fn a_stored_graph_gives_what_its_edges_give() {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let golden = goldens().into_iter().find(|golden| golden.name == "Erdos-Renyi").unwrap();
    let graph = CsrGraph::from_edges(golden.num_nodes as usize, &golden.edges, Direction::Undirected).unwrap();
    let operand = registry.operands().put("random", graph).unwrap();
    let input = TriangleCountingInput::from_operand(operand.clone());
    // The second run has the oriented form.
    let [first, second] = [run(&TriangleCounting, &input), run(&TriangleCounting, &input)];
    assert!(first == second && first.per_node_triangles[..] == golden.triangles);
    let output = run(&ClusteringCoefficient, &ClusteringCoefficientInput::from_operand(operand.clone()));
    assert_close(&output.coefficients, &golden.clustering, "coefficients");
    let input = JaccardSimilarityInput { pairs: golden.pairs, ..JaccardSimilarityInput::from_operand(operand) };
    assert_close(&run(&JaccardSimilarity, &input).scores, &golden.jaccard, "scores");
}

#[test]
fn every_three_nodes_of_a_clique_are_a_triangle() {
    let nodes = 400_u32;
    let edges = (0..nodes).flat_map(|node| (0..node).map(move |other| [node, other])).collect();
    let output = run(&TriangleCounting, &TriangleCountingInput::from_edges(nodes.into(), edges));
    let of_each = u64::from(nodes - 1) * u64::from(nodes - 2) / 2;
    assert!(output.per_node_triangles.iter().all(|&triangles| triangles == of_each));
    assert_eq!(output.total_triangles, of_each * u64::from(nodes) / 3);
    assert!(
        output.global_clustering_coefficient == 1.0 && output.clustering_coefficients.iter().all(|&value| value == 1.0)
    );
}

#[test]
fn invalid_fields_are_named() {
    let square = || CommonNeighborsInput::from_edges(4, vec![[0, 1], [1, 2], [2, 3], [0, 3]]);
    let pairs = |pairs: &[[u32; 2]]| CommonNeighborsInput { pairs: Some(pairs.to_vec()), ..square() };
    let nodes = |nodes: &[u32], top_k| CommonNeighborsInput { nodes: Some(nodes.to_vec().into()), top_k, ..square() };
    for (input, field) in [
        (square(), "pairs"),
        (CommonNeighborsInput { nodes: Some(vec![0].into()), ..pairs(&[[0, 1]]) }, "nodes"),
        (pairs(&[[0, 1], [4, 1]]), "pairs[1][0]"),
        (pairs(&[[0, 1], [1, 4]]), "pairs[1][1]"),
        (pairs(&[[0, 1], [2, 2]]), "pairs[1]"),
        (nodes(&[0, 1, 4], 1), "nodes[2]"),
        (nodes(&[0], 0), "top_k"),
        (nodes(&[0], 1025), "top_k"),
        (CommonNeighborsInput { directed: true, ..pairs(&[]) }, "directed"),
    ] {
        assert_eq!(CommonNeighbors.validate(&input).unwrap_err().field, field);
    }
    CommonNeighbors.validate(&nodes(&[], 1024)).unwrap();
    let directed = ClusteringCoefficientInput { directed: true, ..ClusteringCoefficientInput::from_edges(2, vec![]) };
    assert_eq!(ClusteringCoefficient.validate(&directed).unwrap_err().field, "directed");
    for (k, limit, field) in [(2, 0, "k"), (9, 0, "k"), (3, (1 << 20) + 1, "limit")] {
        let input = KCliqueInput { k, limit, ..KCliqueInput::from_edges(2, vec![]) };
        assert_eq!(KClique.validate(&input).unwrap_err().field, field);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Other numbers for the nodes change the order of equal degrees, and so the orientation of edges.
    #[test]
    fn triangles_do_not_depend_on_the_numbers_of_nodes(
        (nodes, edges, order) in (3_usize..40).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node.clone()], 0..6 * nodes);
            (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
        }),
    ) {
        let relabelled = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let before = run(&TriangleCounting, &TriangleCountingInput::from_edges(nodes as u64, edges));
        let after = run(&TriangleCounting, &TriangleCountingInput::from_edges(nodes as u64, relabelled));
        prop_assert_eq!(before.total_triangles, after.total_triangles);
        prop_assert_eq!(before.per_node_triangles.iter().sum::<u64>(), 3 * before.total_triangles);
        for (node, &other) in order.iter().enumerate() {
            prop_assert_eq!(before.per_node_triangles[node], after.per_node_triangles[other as usize]);
            prop_assert!((0.0..=1.0).contains(&before.clustering_coefficients[node]));
        }
    }

    #[test]
    fn scores_are_symmetric_and_bounded(
        (nodes, edges, pairs) in (2_usize..40).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let pair = [node.clone(), node];
            let edges = prop::collection::vec(pair.clone(), 0..6 * nodes);
            (Just(nodes), edges, prop::collection::vec(pair.prop_filter("different", |[a, b]| a != b), 1..50))
        }),
    ) {
        let reversed: Vec<[u32; 2]> = pairs.iter().map(|&[a, b]| [b, a]).collect();
        macro_rules! check {
            ($($kernel:ident, $Input:ident, $most:expr;)*) => {$(
                let scores = |pairs: &Vec<[u32; 2]>| {
                    let input = $Input::from_edges(nodes as u64, edges.clone());
                    run(&$kernel, &$Input { pairs: Some(pairs.clone()), ..input }).scores
                };
                let forward = scores(&pairs);
                prop_assert_eq!(&forward, &scores(&reversed));
                prop_assert!(forward.iter().all(|score| (0.0..=$most).contains(score)));
            )*};
        }
        let others = nodes as f64 - 2.0;
        check! {
            CommonNeighbors, CommonNeighborsInput, others;
            JaccardSimilarity, JaccardSimilarityInput, 1.0;
            AdamicAdar, AdamicAdarInput, others / 2.0_f64.ln();
            CosineSimilarity, CosineSimilarityInput, 1.0 + 1e-15;
        }
    }
}
