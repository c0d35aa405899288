//! Cycles and small subgraphs: against networkx and igraph, and against their laws.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::Deserialize;
use tower_kernels::kernels::graph::cycle_participation::{
    CycleParticipation, CycleParticipationInput, CycleParticipationOutput,
};
use tower_kernels::kernels::graph::motif_detection::{MotifDetection, MotifDetectionInput, MotifDetectionOutput};
use tower_kernels::kernels::graph::triangle_counting::{TriangleCounting, TriangleCountingInput};
use tower_kernels::service::{Kernel, RunContext};

use crate::service::{ask, rejection};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    /// Of two, three and four nodes through each node.
    cycles: [Vec<u64>; 3],
    motifs: BTreeMap<String, u64>,
    triads: Option<Vec<u64>>,
}

fn goldens() -> Vec<Golden> {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/motifs.json")).unwrap();
    assert!(goldens.len() >= 17);
    goldens
}

fn run<K: Kernel>(kernel: &K, input: &K::Input) -> K::Output {
    kernel.validate(input).unwrap();
    kernel.run_cpu(input, &RunContext::detached()).unwrap()
}

fn cycles(num_nodes: u64, edges: Vec<[u32; 2]>, directed: bool) -> CycleParticipationOutput {
    let input = CycleParticipationInput::from_edges(num_nodes, edges);
    run(&CycleParticipation, &CycleParticipationInput { directed, ..input })
}

fn motifs(num_nodes: u64, edges: Vec<[u32; 2]>, directed: bool) -> MotifDetectionOutput {
    let input = MotifDetectionInput::from_edges(num_nodes, edges);
    run(&MotifDetection, &MotifDetectionInput { directed, ..input })
}

#[test]
fn cycles_are_those_that_networkx_lists() {
    for golden in goldens() {
        let output = cycles(golden.num_nodes, golden.edges, golden.directed);
        for (counts, total, expected, nodes) in [
            (&output.two_cycles, output.total_two_cycles, &golden.cycles[0], 2),
            (&output.three_cycles, output.total_three_cycles, &golden.cycles[1], 3),
            (&output.four_cycles, output.total_four_cycles, &golden.cycles[2], 4),
        ] {
            assert_eq!(counts[..], expected[..], "{nodes} nodes, {}", golden.name);
            assert_eq!(total * nodes, expected.iter().sum::<u64>(), "{nodes} nodes, {}", golden.name);
        }
    }
}

#[test]
fn subgraphs_are_those_of_igraph_and_triads_those_of_networkx() {
    for golden in goldens() {
        let output = motifs(golden.num_nodes, golden.edges, golden.directed);
        assert_eq!(output.triads.as_deref(), golden.triads.as_deref(), "{}", golden.name);
        let output = serde_json::to_value(&output).unwrap();
        assert_eq!(golden.motifs.len(), 8);
        for (name, count) in &golden.motifs {
            assert_eq!(output[name], *count, "{name} of {}", golden.name);
        }
    }
}

#[tokio::test]
async fn cycles_and_motifs_are_asked_for_by_a_document() {
    let graph = r#"{"num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 0], [2, 1], [2, 3], [3, 0]], "directed": true}"#;
    let output = ask("graph/cycle-participation", graph).await.unwrap();
    let expected = serde_json::json!({
        "two_cycles": [0, 1, 1, 0], "three_cycles": [1, 1, 1, 0], "four_cycles": [1, 1, 1, 1],
        "total_two_cycles": 1, "total_three_cycles": 1, "total_four_cycles": 1,
    });
    assert_eq!(output, expected);
    let output = ask("graph/motif-detection", graph).await.unwrap();
    assert_eq!((&output["diamond"], &output["triangle"], &output["path_3"]), (&1.into(), &2.into(), &2.into()));
    assert_eq!(output["triads"].as_array().unwrap().len(), 13);
    let output = ask("graph/motif-detection", r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2]]}"#).await.unwrap();
    assert_eq!((&output["path_3"], output.get("triads")), (&1.into(), None));
    for id in ["graph/cycle-participation", "graph/motif-detection"] {
        let invalid = rejection(ask(id, r#"{"num_nodes": 2, "edges": [[0, 5]]}"#).await);
        assert_eq!(invalid.field, "edges[0][1]");
    }
}

fn graph() -> impl Strategy<Value = (u64, Vec<[u32; 2]>, Vec<u32>)> {
    (2_u32..60).prop_flat_map(|nodes| {
        let edges = prop::collection::vec([0..nodes, 0..nodes], 0..400);
        let labels = Just((0..nodes).collect::<Vec<_>>()).prop_shuffle();
        (Just(u64::from(nodes)), edges, labels)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn counts_do_not_depend_on_the_labels_of_nodes((nodes, edges, labels) in graph(), directed in any::<bool>()) {
        let relabelled: Vec<[u32; 2]> = edges.iter().map(|edge| edge.map(|node| labels[node as usize])).collect();
        let (before, after) = (cycles(nodes, edges.clone(), directed), cycles(nodes, relabelled.clone(), directed));
        for (counts, others) in [
            (&before.two_cycles, &after.two_cycles),
            (&before.three_cycles, &after.three_cycles),
            (&before.four_cycles, &after.four_cycles),
        ] {
            let moved: Vec<u64> = labels.iter().map(|&label| others[label as usize]).collect();
            prop_assert_eq!(&counts[..], &moved[..]);
        }
        prop_assert_eq!(motifs(nodes, edges, directed), motifs(nodes, relabelled, directed));
    }

    /// A cycle in both directions is two cycles of a directed graph, and the triangles are counted by another kernel.
    #[test]
    fn an_undirected_graph_is_one_with_arcs_in_both_directions((nodes, edges, _) in graph()) {
        let both: Vec<[u32; 2]> = edges.iter().flat_map(|&[from, to]| [[from, to], [to, from]]).collect();
        let (undirected, directed) = (cycles(nodes, edges.clone(), false), cycles(nodes, both.clone(), true));
        let doubled = |counts: &[u64]| counts.iter().map(|count| 2 * count).collect::<Vec<_>>();
        prop_assert_eq!(doubled(&undirected.three_cycles), directed.three_cycles.to_vec());
        prop_assert_eq!(doubled(&undirected.four_cycles), directed.four_cycles.to_vec());
        prop_assert!(undirected.two_cycles.iter().all(|&count| count == 0));
        let triangles = run(&TriangleCounting, &TriangleCountingInput::from_edges(nodes, edges.clone()));
        prop_assert_eq!(&undirected.three_cycles[..], &triangles.per_node_triangles[..]);

        let (counts, mutual) = (motifs(nodes, edges, false), motifs(nodes, both, true));
        prop_assert_eq!((counts.triangle, counts.clique_4), (triangles.total_triangles, mutual.clique_4));
        // Cycles of four nodes, with chords or without.
        let squares = counts.cycle_4 + counts.diamond + 3 * counts.clique_4;
        prop_assert_eq!(undirected.total_four_cycles, squares);
        let triads = mutual.triads.unwrap();
        prop_assert_eq!((triads[7], triads[12]), (counts.path_3, counts.triangle));
        prop_assert_eq!(triads.iter().sum::<u64>(), counts.path_3 + counts.triangle);
    }
}
