//! Betweenness: the scores, against networkx and against the definition.

use std::time::Duration;

use proptest::prelude::*;
use serde::Deserialize;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::kernels::graph::betweenness_centrality::brandes::pair_dependencies;
use tower_kernels::kernels::graph::betweenness_centrality::pivots::Pivots;
use tower_kernels::kernels::graph::betweenness_centrality::{BetweennessCentrality, BetweennessInput};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::service::{Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Payload, RunContext};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    sources: Option<Vec<u32>>,
    normalized: Vec<f64>,
    raw: Vec<f64>,
}

fn goldens() -> Vec<Golden> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/betweenness.json");
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn scores(input: &BetweennessInput) -> Vec<f64> {
    BetweennessCentrality.validate(input).unwrap();
    BetweennessCentrality.run_cpu(input, &RunContext::detached()).unwrap().scores.into_vec()
}

fn assert_close(scores: &[f64], expected: &[f64], name: &str) {
    assert_eq!(scores.len(), expected.len(), "{name}");
    for (node, (score, expected)) in scores.iter().zip(expected).enumerate() {
        let bound = 1e-9 * expected.abs() + 1e-12;
        assert!((score - expected).abs() <= bound, "{name}: node {node} has {score}, not {expected}");
    }
}

#[test]
fn scores_are_those_of_networkx() {
    let goldens = goldens();
    assert!(goldens.len() >= 18);
    for golden in goldens {
        for normalized in [true, false] {
            let input = BetweennessInput {
                directed: golden.directed,
                normalized,
                sources: golden.sources.clone().map(Into::into),
                ..BetweennessInput::from_edges(golden.num_nodes, golden.edges.clone())
            };
            let expected = if normalized { &golden.normalized } else { &golden.raw };
            assert_close(&scores(&input), expected, &golden.name);
        }
    }
}

#[test]
fn csr_arrays_give_what_edges_give() {
    for golden in goldens().into_iter().filter(|golden| golden.num_nodes < 1_000) {
        let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
        let graph = CsrGraph::from_edges(golden.num_nodes as usize, &golden.edges, direction).unwrap();
        let successors = graph.successors();
        let (offsets, columns) = (successors.row_offsets().to_vec(), successors.column_indices().to_vec());
        let input = BetweennessInput {
            directed: golden.directed,
            sources: golden.sources.clone().map(Into::into),
            ..BetweennessInput::from_csr(offsets, columns)
        };
        assert_close(&scores(&input), &golden.normalized, &golden.name);
    }
}

#[test]
fn the_same_pool_gives_the_same_bits() {
    let golden = goldens().into_iter().find(|golden| golden.name == "Barabasi-Albert").unwrap();
    let input = BetweennessInput { samples: Some(300), ..BetweennessInput::from_edges(golden.num_nodes, golden.edges) };
    let first = scores(&input);
    assert!((0..3).all(|_| scores(&input) == first));
}

/// By the definition: all distances and path counts, then every triple of nodes.
fn by_definition(graph: &CsrGraph, sources: &[u32]) -> Vec<f64> {
    let nodes = graph.num_nodes();
    let (mut distance, mut paths) = (vec![vec![usize::MAX; nodes]; nodes], vec![vec![0.0; nodes]; nodes]);
    for source in 0..nodes {
        (distance[source][source], paths[source][source]) = (0, 1.0);
        for length in 0..nodes {
            for node in (0..nodes).filter(|&node| distance[source][node] == length).collect::<Vec<_>>() {
                for &next in graph.successors().row(node as u32) {
                    let next = next as usize;
                    if distance[source][next] > length {
                        distance[source][next] = length + 1;
                        paths[source][next] += paths[source][node];
                    }
                }
            }
        }
    }
    let mut sums = vec![0.0; nodes];
    for &source in sources {
        let source = source as usize;
        for (through, sum) in sums.iter_mut().enumerate() {
            for target in 0..nodes {
                let reached = [(source, target), (source, through), (through, target)]
                    .iter()
                    .all(|&(from, to)| distance[from][to] != usize::MAX);
                if reached
                    && source != target
                    && source != through
                    && through != target
                    && distance[source][through] + distance[through][target] == distance[source][target]
                {
                    *sum += paths[source][through] * paths[through][target] / paths[source][target];
                }
            }
        }
    }
    sums
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn sums_are_those_of_the_definition(
        (nodes, edges, first) in (1_usize..28).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node], 0..3 * nodes);
            (Just(nodes), edges, 0..nodes)
        }),
        directed in any::<bool>(),
    ) {
        let direction = if directed { Direction::Directed } else { Direction::Undirected };
        let graph = CsrGraph::from_edges(nodes, &edges, direction).unwrap();
        // From `first` on, so that batches are full and partial, and odd in number.
        let sources: Vec<u32> = (first as u32..nodes as u32).collect();
        if let Ok(pivots) = Pivots::chosen(sources.clone(), nodes) {
            let sums = pair_dependencies(&graph, &pivots, &RunContext::detached()).unwrap();
            for (sum, expected) in sums.iter().zip(by_definition(&graph, &sources)) {
                prop_assert!((sum - expected).abs() <= 1e-9 * expected + 1e-12, "{sum} {expected}");
            }
        }
    }
}

/// A chain of diamonds: each doubles the number of shortest paths.
fn diamonds(count: u32) -> (usize, Vec<[u32; 2]>) {
    let edges = (0..count).flat_map(|diamond| {
        let start = 3 * diamond;
        [[start, start + 1], [start, start + 2], [start + 1, start + 3], [start + 2, start + 3]]
    });
    (3 * count as usize + 1, edges.collect())
}

#[test]
fn path_counts_reach_the_end_of_f64_and_no_further() {
    for (count, fits) in [(1_000, true), (1_030, false)] {
        let (nodes, edges) = diamonds(count);
        let input = BetweennessInput {
            sources: Some(vec![0, nodes as u32 - 1].into()),
            ..BetweennessInput::from_edges(nodes as u64, edges)
        };
        match BetweennessCentrality.run_cpu(&input, &RunContext::detached()) {
            Ok(output) => assert!(fits && output.scores.iter().all(|score| score.is_finite())),
            Err(KernelError::InvalidInput(invalid)) => assert!(!fits && invalid.field == "edges", "{invalid}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_waits_for_stops() {
    const ID: &str = "graph/betweenness-centrality";
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let config = CpuConfig { workers: 1, ..Default::default() };
    let mut service = KernelService::with_backend(registry, CpuBackend::with_config(config).unwrap());
    // Minutes of work where nothing stops it, and too much to run inside the call.
    let side = 200_u32;
    let edges: Vec<[u32; 2]> =
        (0..side * side - side).flat_map(|node| [[node, node + 1], [node, node + side]]).collect();
    let endless = || Payload::typed(BetweennessInput::from_edges(u64::from(side * side), edges.clone()));

    let call = service.ready().await.unwrap().call(KernelRequest::new(ID, endless()));
    assert!(tokio::time::timeout(Duration::from_millis(500), call).await.is_err());
    // The one worker takes the next request as soon as it is free.
    let path = Payload::typed(BetweennessInput::from_edges(3, vec![[0, 1], [1, 2]]));
    let call = service.ready().await.unwrap().call(KernelRequest::new(ID, path));
    tokio::time::timeout(Duration::from_secs(60), call).await.expect("the worker is still busy").unwrap();
    // So does a deadline.
    let request = KernelRequest::new(ID, endless()).with_timeout(Duration::from_secs(1));
    let call = service.ready().await.unwrap().call(request);
    let answer = tokio::time::timeout(Duration::from_secs(60), call).await.expect("it goes on past its deadline");
    assert!(matches!(answer, Err(KernelError::DeadlineExceeded { started: true })), "{answer:?}");
}
