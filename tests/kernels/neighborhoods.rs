//! Triangles and clustering coefficients: against networkx, and against their laws.

use std::sync::Arc;

use proptest::prelude::*;
use serde::Deserialize;
use tower_kernels::kernels::graph::clustering_coefficient::{ClusteringCoefficient, ClusteringCoefficientInput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
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
    let output = run(&ClusteringCoefficient, &ClusteringCoefficientInput::from_operand(operand));
    assert_close(&output.coefficients, &golden.clustering, "coefficients");
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
}
