//! Degrees, density, stars, and PageRank, eigenvector and Katz centrality: against networkx, and the laws that hold for
//! any graph.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::json;
use tower_kernels::kernels::authoring::Cases;
use tower_kernels::kernels::graph::degree_centrality::{Degree, DegreeCentrality, DegreeCentralityInput};
use tower_kernels::kernels::graph::degree_ratio::{DegreeRatio, DegreeRatioInput};
use tower_kernels::kernels::graph::density::{Density, DensityInput};
use tower_kernels::kernels::graph::eigenvector_centrality::{EigenvectorCentrality, EigenvectorCentralityInput};
use tower_kernels::kernels::graph::katz_centrality::{KatzCentrality, KatzCentralityInput};
use tower_kernels::kernels::graph::pagerank::{PageRank, PageRankInput, PageRankOutput};
use tower_kernels::kernels::graph::star_topology::{StarTopology, StarTopologyInput};
use tower_kernels::service::{DType, FloatArray, InvalidInput, Kernel, RunContext};

use crate::service::{ask, read, rejection, run, tensor, tensors};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    density: f64,
    degree_centrality: Vec<f64>,
    degrees: Vec<f64>,
    in_degree_centrality: Option<Vec<f64>>,
    out_degree_centrality: Option<Vec<f64>>,
    in_degrees: Option<Vec<u32>>,
    out_degrees: Option<Vec<u32>>,
    clustering: Vec<f64>,
    triangles: Vec<u64>,
    neighbours: Vec<u32>,
    pagerank: Vec<PageRankRun>,
    eigenvector: Vec<EigenvectorRun>,
    katz: Vec<KatzRun>,
}

#[derive(Deserialize)]
struct EigenvectorRun {
    max_iterations: u32,
    tolerance: f64,
    /// None where networkx does not converge.
    scores: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct KatzRun {
    alpha: f64,
    #[serde(default = "one")]
    beta: FloatArray,
    normalized: bool,
    max_iterations: u32,
    tolerance: f64,
    /// None where networkx does not converge.
    scores: Option<Vec<f64>>,
}

fn one() -> FloatArray {
    1.0.into()
}

#[derive(Deserialize)]
struct PageRankRun {
    options: PageRankOptions,
    /// None where networkx does not converge.
    scores: Option<Vec<f64>>,
}

#[derive(Deserialize)]
struct PageRankOptions {
    damping: f64,
    max_iterations: u32,
    tolerance: f64,
    weights: Option<Vec<f64>>,
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/graphs.json");
    let goldens: Vec<Golden> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(goldens.len() >= 15);
    goldens
}

fn output<K: Kernel>(kernel: &K, input: &K::Input) -> K::Output {
    kernel.validate(input).unwrap();
    kernel.run_cpu(input, &RunContext::detached()).unwrap()
}

fn assert_close(values: &[f64], expected: &[f64], bound: f64, name: &str) {
    assert_eq!(values.len(), expected.len(), "{name}");
    for (node, (value, expected)) in values.iter().zip(expected).enumerate() {
        assert!((value - expected).abs() <= bound, "{name}: node {node} has {value}, not {expected}");
    }
}

#[test]
fn degree_centrality_is_that_of_networkx() {
    for golden in goldens() {
        let Golden { num_nodes, directed, .. } = golden;
        let input = DegreeCentralityInput::from_edges(num_nodes, golden.edges);
        let scores = |degree, normalized| {
            output(&DegreeCentrality, &DegreeCentralityInput { directed, degree, normalized, ..input.clone() }).scores
        };
        assert_close(&scores(Degree::Total, true), &golden.degree_centrality, 1e-15, &golden.name);
        assert_close(&scores(Degree::Total, false), &golden.degrees, 0.0, &golden.name);
        let inward = golden.in_degree_centrality.as_ref().unwrap_or(&golden.degree_centrality);
        assert_close(&scores(Degree::In, true), inward, 1e-15, &golden.name);
        let outward = golden.out_degree_centrality.as_ref().unwrap_or(&golden.degree_centrality);
        assert_close(&scores(Degree::Out, true), outward, 1e-15, &golden.name);
    }
}

#[test]
fn density_and_degree_ratios_are_those_of_networkx() {
    for golden in goldens() {
        let edges = golden.edges.len() as u64;
        let density = DensityInput {
            directed: golden.directed,
            ..DensityInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        let density = output(&Density, &density);
        assert_eq!((density.num_nodes, density.num_edges), (golden.num_nodes, edges), "{}", golden.name);
        assert_close(&[density.density], &[golden.density], 1e-15, &golden.name);

        let ratios = DegreeRatioInput {
            directed: golden.directed,
            ..DegreeRatioInput::from_edges(golden.num_nodes, golden.edges)
        };
        let ratios = output(&DegreeRatio, &ratios);
        let inward = golden.in_degrees.as_ref().unwrap_or(&golden.neighbours);
        let outward = golden.out_degrees.as_ref().unwrap_or(&golden.neighbours);
        assert_eq!((&ratios.in_degrees[..], &ratios.out_degrees[..]), (&inward[..], &outward[..]), "{}", golden.name);
        for (node, ratio) in ratios.ratios.iter().enumerate() {
            match (inward[node], outward[node]) {
                (0, 0) => assert!(ratio.is_nan()),
                (_, 0) => assert_eq!(*ratio, f64::INFINITY),
                (inward, outward) => assert_eq!(*ratio, f64::from(inward) / f64::from(outward)),
            }
        }
    }
}

#[test]
fn star_scores_are_one_less_the_clustering_of_networkx() {
    for golden in goldens() {
        for min_degree in [2, 4] {
            let input = StarTopologyInput::from_edges(golden.num_nodes, golden.edges.clone());
            let stars = output(&StarTopology, &StarTopologyInput { directed: golden.directed, min_degree, ..input });
            assert_eq!(stars.spoke_counts[..], golden.neighbours, "{}", golden.name);
            assert_eq!(stars.inter_spoke_edges[..], golden.triangles, "{}", golden.name);
            let is_hub = |node: usize| golden.neighbours[node] >= min_degree;
            let score = |(node, clustering): (usize, &f64)| if is_hub(node) { 1.0 - clustering } else { 0.0 };
            let expected: Vec<f64> = golden.clustering.iter().enumerate().map(score).collect();
            assert_close(&stars.scores, &expected, 1e-15, &golden.name);
        }
    }
}

#[test]
fn pagerank_is_that_of_networkx() {
    let mut diverged = 0;
    for golden in goldens() {
        for run in &golden.pagerank {
            let PageRankOptions { damping, max_iterations, tolerance, ref weights } = run.options;
            let input = PageRankInput {
                directed: golden.directed,
                damping,
                max_iterations,
                tolerance,
                personalization: weights.clone().map(|weights| vec![weights.into()]),
                ..PageRankInput::from_edges(golden.num_nodes, golden.edges.clone())
            };
            let output = output(&PageRank, &input);
            assert_eq!(output.converged, run.scores.is_some(), "{}", golden.name);
            match &run.scores {
                Some(scores) => assert_close(&output.scores, scores, 1e-12, &golden.name),
                None => {
                    diverged += 1;
                    assert_eq!(output.iterations[..], [max_iterations]);
                    assert!(output.differences[0] >= golden.num_nodes as f64 * tolerance);
                }
            }
        }
    }
    assert!(diverged > 3, "the goldens have runs that do not converge: {diverged}");
}

#[test]
fn eigenvector_centrality_is_that_of_networkx() {
    let mut diverged = 0;
    for golden in goldens() {
        for run in &golden.eigenvector {
            let input = EigenvectorCentralityInput {
                directed: golden.directed,
                max_iterations: run.max_iterations,
                tolerance: run.tolerance,
                ..EigenvectorCentralityInput::from_edges(golden.num_nodes, golden.edges.clone())
            };
            let output = output(&EigenvectorCentrality, &input);
            assert_eq!(output.converged, run.scores.is_some(), "{}", golden.name);
            match &run.scores {
                Some(scores) => assert_close(&output.scores, scores, 1e-10, &golden.name),
                None => {
                    diverged += 1;
                    assert_eq!(output.iterations, run.max_iterations);
                    assert!(output.difference >= golden.num_nodes as f64 * run.tolerance);
                }
            }
        }
    }
    assert!(diverged > 3, "the goldens have runs that do not converge: {diverged}");
}

#[test]
fn katz_centrality_is_that_of_networkx() {
    let mut diverged = 0;
    for golden in goldens() {
        for run in &golden.katz {
            let input = KatzCentralityInput {
                directed: golden.directed,
                alpha: run.alpha,
                beta: run.beta.clone(),
                normalized: run.normalized,
                max_iterations: run.max_iterations,
                tolerance: run.tolerance,
                ..KatzCentralityInput::from_edges(golden.num_nodes, golden.edges.clone())
            };
            let output = output(&KatzCentrality, &input);
            assert_eq!(output.converged, run.scores.is_some(), "{}", golden.name);
            match &run.scores {
                Some(scores) => {
                    let largest = scores.iter().fold(0.0_f64, |largest, score| largest.max(score.abs()));
                    assert_close(&output.scores, scores, 1e-10 * largest, &golden.name);
                }
                None => {
                    diverged += 1;
                    assert_eq!(output.iterations, run.max_iterations);
                }
            }
        }
    }
    assert!(diverged > 3, "the goldens have runs that do not converge: {diverged}");
}

#[test]
fn an_alpha_that_diverges_for_certain_is_rejected() {
    let star: Vec<[u32; 2]> = (1..=16).map(|leaf| [0, leaf]).collect();
    let cycle: Vec<[u32; 2]> = (0..17).map(|node| [node, (node + 1) % 17]).collect();
    for (edges, eigenvalue) in [(star, 4.0), (cycle, 2.0)] {
        let input = KatzCentralityInput::from_edges(17, edges);
        let run = |input: &KatzCentralityInput| KatzCentrality.run_cpu(input, &RunContext::detached());
        let at = |alpha| KatzCentralityInput { alpha, ..input.clone() };
        assert!(run(&at(0.9 / eigenvalue)).unwrap().converged);
        assert_eq!(rejection(run(&at(1.0 / eigenvalue))).field, "alpha");
        // Without a positive beta in every node, or in a directed graph, the bounds say nothing.
        let no_beta = KatzCentralityInput { beta: 0.0.into(), ..at(2.0) };
        let output = run(&no_beta).unwrap();
        assert!(output.converged && output.iterations == 1 && output.scores.iter().all(|&score| score == 0.0));
        let directed = KatzCentralityInput { directed: true, max_iterations: 20, ..at(2.0) };
        assert_eq!(run(&directed).unwrap().converged, eigenvalue == 4.0, "a cycle has an eigenvalue of 1, a star of 0");
    }
}

#[test]
fn katz_scores_that_overflow_end_the_iteration() {
    let complete: Vec<[u32; 2]> =
        (0..20).flat_map(|from| (0..20).filter(move |&to| to != from).map(move |to| [from, to])).collect();
    let input = KatzCentralityInput { directed: true, alpha: 10.0, ..KatzCentralityInput::from_edges(20, complete) };
    let output = output(&KatzCentrality, &input);
    assert!(!output.converged && output.difference.is_nan() && output.iterations < 200, "{output:?}");
}

#[test]
fn several_personalizations_have_the_bits_of_single_ones() {
    let golden = goldens().into_iter().find(|golden| golden.name == "scale-free").unwrap();
    let nodes = golden.num_nodes as usize;
    let base = PageRankInput { directed: true, ..PageRankInput::from_edges(golden.num_nodes, golden.edges) };
    let seeds: Vec<u32> = (0..13).map(|index| index * 17 % nodes as u32).collect();
    let rows: Vec<Vec<f64>> =
        seeds.iter().map(|&seed| (0..nodes).map(|node| f64::from(u8::from(node == seed as usize))).collect()).collect();
    let together = output(&PageRank, &PageRankInput { seed_nodes: Some(seeds.clone().into()), ..base.clone() });
    assert_eq!(together.scores.len(), nodes * seeds.len());
    for (index, (seed, row)) in seeds.into_iter().zip(rows).enumerate() {
        let by_seed = output(&PageRank, &PageRankInput { seed_nodes: Some(vec![seed].into()), ..base.clone() });
        let by_row = output(&PageRank, &PageRankInput { personalization: Some(vec![row.into()]), ..base.clone() });
        assert_eq!(by_seed, by_row);
        assert_eq!(by_seed.scores[..], together.scores[index * nodes..(index + 1) * nodes]);
        assert_eq!(
            (by_seed.iterations[0], by_seed.differences[0]),
            (together.iterations[index], together.differences[index])
        );
    }
}

#[test]
fn the_same_scores_come_from_any_number_of_threads() {
    let input = large_graph();
    let on = |threads| -> PageRankOutput {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| output(&PageRank, &input))
    };
    let one = on(1);
    assert!(one.converged && on(2) == one && on(5) == one);
    // By the definition, which knows no parts.
    for (expected, values) in PageRank.reference(&input).into_iter().zip(PageRank.values(&one)) {
        assert_eq!(values.len(), expected.values.len());
        for (value, (expected, bound)) in values.into_iter().zip(expected.values) {
            assert!((value - expected).abs() <= bound, "{value} {expected}");
        }
    }
}

/// Rows of many lengths, one of which is longer than a part of the work.
fn large_graph() -> PageRankInput {
    let scattered = (0..200_000_u64).map(|index| [(index * 7_919 % 30_000) as u32, (index * 104_729 % 29_989) as u32]);
    let edges = scattered.chain((1..30_000).map(|node| [node, 0])).collect();
    PageRankInput { directed: true, ..PageRankInput::from_edges(30_000, edges) }
}

#[tokio::test]
async fn pagerank_takes_json_and_tensors() {
    let document = json!({
        "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 0], [3, 0]], "directed": true, "damping": 0.8,
        "personalization": [[1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 3.0]], "tolerance": 0.0, "max_iterations": 30,
    });
    let output = ask("graph/pagerank", &document.to_string()).await.unwrap();
    let scores: Vec<f64> = serde_json::from_value(output["scores"].clone()).unwrap();
    assert_eq!((&output["iterations"], &output["converged"]), (&json!([30, 30]), &json!(false)));
    assert!(
        (scores[..4].iter().sum::<f64>() - 1.0).abs() < 1e-12 && (scores[4..].iter().sum::<f64>() - 1.0).abs() < 1e-12
    );
    assert!((scores[7] - 0.2).abs() < 1e-12, "nothing leads to the only node that the walk returns to: {scores:?}");

    let payload = tensors([
        ("num_nodes", tensor(DType::U64, &[], &[4_u64])),
        ("edges", tensor(DType::U32, &[4, 2], &[0_u32, 1, 1, 2, 2, 0, 3, 0])),
        ("directed", tensor(DType::Bool, &[], &[1_u8])),
        ("damping", tensor(DType::F64, &[], &[0.8])),
        ("personalization", tensor(DType::F64, &[2, 4], &[1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 3.0])),
        ("tolerance", tensor(DType::F64, &[], &[0.0])),
        ("max_iterations", tensor(DType::U32, &[], &[30_u32])),
    ]);
    let response = run("graph/pagerank", payload).await.unwrap();
    assert_eq!(read::<f64>(&response, "scores", DType::F64), scores);
    assert_eq!(read::<u32>(&response, "iterations", DType::U32), [30, 30]);
}

#[tokio::test]
async fn invalid_options_are_rejected_by_name() {
    for (fields, field) in [
        (json!({"damping": 1.5}), "damping"),
        (json!({"damping": -0.1}), "damping"),
        (json!({"tolerance": -1e-6}), "tolerance"),
        (json!({"max_iterations": 0}), "max_iterations"),
        (json!({"personalization": []}), "personalization"),
        (json!({"personalization": [[1.0, 1.0, 1.0], [1.0, 1.0]]}), "personalization[1]"),
        (json!({"personalization": [[1.0, -1.0, 1.0]]}), "personalization[0][1]"),
        (json!({"personalization": [[0.0, 0.0, 0.0]]}), "personalization[0]"),
        (json!({"seed_nodes": []}), "seed_nodes"),
        (json!({"seed_nodes": [0, 3]}), "seed_nodes[1]"),
        (json!({"seed_nodes": [0], "personalization": [[1.0, 1.0, 1.0]]}), "seed_nodes"),
        (json!({"edges": [[0, 3]]}), "edges[0][1]"),
    ] {
        assert_eq!(rejected("graph/pagerank", fields).await.field, field);
    }
    assert_eq!(rejected("graph/star-topology", json!({"min_degree": 1})).await.field, "min_degree");
    for id in ["graph/eigenvector-centrality", "graph/katz-centrality"] {
        for (fields, field) in [
            (json!({"tolerance": -1e-6}), "tolerance"),
            (json!({"max_iterations": 0}), "max_iterations"),
            (json!({"edges": [[0, 3]]}), "edges[0][1]"),
            (json!({"damping": 0.5}), "damping"),
        ] {
            assert_eq!(rejected(id, fields).await.field, field, "{id}");
        }
    }
    for (fields, field) in [
        (json!({"alpha": -0.1}), "alpha"),
        (json!({"alpha": 0.9}), "alpha"),
        (json!({"beta": [1.0, 2.0]}), "beta"),
        (json!({"beta": [1.0, 2.0, null]}), "beta[2]"),
    ] {
        assert_eq!(rejected("graph/katz-centrality", fields).await.field, field);
    }
    for id in [
        "graph/degree-centrality",
        "graph/degree-ratio",
        "graph/density",
        "graph/eigenvector-centrality",
        "graph/graph-density",
        "graph/katz-centrality",
        "graph/pagerank",
    ] {
        assert_eq!(rejected(id, json!({"num_nodes": 0, "edges": []})).await.field, "num_nodes", "{id}");
    }
}

/// The error for a path of three nodes with these fields.
async fn rejected(id: &'static str, fields: serde_json::Value) -> InvalidInput {
    let mut document = json!({"num_nodes": 3, "edges": [[0, 1], [1, 2]]});
    document.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    rejection(ask(id, &document.to_string()).await)
}

fn graph() -> impl Strategy<Value = (usize, Vec<[u32; 2]>, bool)> {
    (1_usize..40).prop_flat_map(|nodes| {
        let node = 0..nodes as u32;
        (Just(nodes), prop::collection::vec([node.clone(), node], 0..4 * nodes), any::<bool>())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn pagerank_adds_up_to_one_and_follows_relabelling((nodes, edges, directed) in graph(), shift in 0_u32..40) {
        let ranks = |edges: Vec<[u32; 2]>| {
            let input = PageRankInput { directed, tolerance: 1e-13, max_iterations: 1000, ..PageRankInput::from_edges(nodes as u64, edges) };
            output(&PageRank, &input).scores
        };
        let moved = |node: u32| (node + shift) % nodes as u32;
        let scores = ranks(edges.clone());
        prop_assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(scores.iter().all(|&score| score >= (1.0 - 0.85) / nodes as f64 * (1.0 - 1e-12)));
        let relabelled = ranks(edges.iter().map(|edge| edge.map(moved)).collect());
        for node in 0..nodes as u32 {
            prop_assert!((scores[node as usize] - relabelled[moved(node) as usize]).abs() < 1e-12);
        }
    }

    #[test]
    fn eigenvector_and_katz_scores_obey_their_equations((nodes, edges, directed) in graph()) {
        let input = EigenvectorCentralityInput::from_edges(nodes as u64, edges.clone());
        let centrality = output(&EigenvectorCentrality, &EigenvectorCentralityInput { directed, ..input });
        prop_assert!((centrality.scores.iter().map(|score| score * score).sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(centrality.scores.iter().all(|&score| score >= 0.0));

        // No row of the matrix has a sum of more than nodes - 1.
        let alpha = 0.5 / nodes as f64;
        let input = KatzCentralityInput { directed, alpha, normalized: false, tolerance: 1e-13, ..KatzCentralityInput::from_edges(nodes as u64, edges.clone()) };
        let katz = output(&KatzCentrality, &input);
        prop_assert!(katz.converged);
        let mut arcs: Vec<[u32; 2]> = edges.iter().flat_map(|&[a, b]| if directed { vec![[a, b]] } else { vec![[a, b], [b, a]] }).collect();
        arcs.retain(|[from, to]| from != to);
        arcs.sort_unstable();
        arcs.dedup();
        let mut expected = vec![1.0; nodes];
        for [from, to] in arcs {
            expected[to as usize] += alpha * katz.scores[from as usize];
        }
        for (score, expected) in katz.scores.iter().zip(expected) {
            prop_assert!((score - expected).abs() < 1e-10, "{} {}", score, expected);
        }
    }

    #[test]
    fn counts_obey_their_laws((nodes, edges, directed) in graph()) {
        let count = nodes as u64;
        let density = output(&Density, &DensityInput { directed, ..DensityInput::from_edges(count, edges.clone()) });
        prop_assert!((0.0..=1.0).contains(&density.density));
        let ratio = output(&DegreeRatio, &DegreeRatioInput { directed, ..DegreeRatioInput::from_edges(count, edges.clone()) });
        let total = |degrees: &[u32]| degrees.iter().map(|&degree| u64::from(degree)).sum::<u64>();
        let arcs = if directed { density.num_edges } else { 2 * density.num_edges };
        prop_assert_eq!((total(&ratio.in_degrees), total(&ratio.out_degrees)), (arcs, arcs));
        let stars = output(&StarTopology, &StarTopologyInput { directed, ..StarTopologyInput::from_edges(count, edges) });
        prop_assert!(stars.scores.iter().all(|score| (0.0..=1.0).contains(score)));
        prop_assert_eq!(stars.inter_spoke_edges.iter().sum::<u64>() % 3, 0, "a triangle has three corners");
    }
}
