//! Closeness, average path length and the metrics of whole graphs: against networkx, and the laws that they obey.

use proptest::prelude::*;
use serde::Deserialize;
use serde_json::{Value, json};
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::graph::average_path_length::{
    AveragePathLength, AveragePathLengthInput, AveragePathLengthOutput,
};
use tower_kernels::kernels::graph::closeness_centrality::{ClosenessCentrality, ClosenessInput};
use tower_kernels::kernels::graph::full_metrics::{FullMetrics, FullMetricsInput};
use tower_kernels::service::{Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Payload, RunContext};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    improved: Vec<f64>,
    plain: Vec<f64>,
    average_path_length: f64,
    diameter: u64,
    num_pairs: u64,
    connected: bool,
    metrics: Value,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../goldens/closeness.json")).unwrap()
}

fn scores(input: &ClosenessInput) -> Vec<f64> {
    ClosenessCentrality.validate(input).unwrap();
    ClosenessCentrality.run_cpu(input, &RunContext::detached()).unwrap().scores.into_vec()
}

fn path_length(input: &AveragePathLengthInput) -> AveragePathLengthOutput {
    AveragePathLength.validate(input).unwrap();
    AveragePathLength.run_cpu(input, &RunContext::detached()).unwrap()
}

#[test]
fn scores_and_path_lengths_are_those_of_networkx() {
    let goldens = goldens();
    assert!(goldens.len() >= 11);
    for golden in goldens {
        for (wf_improved, expected) in [(true, &golden.improved), (false, &golden.plain)] {
            let input = ClosenessInput {
                directed: golden.directed,
                wf_improved,
                ..ClosenessInput::from_edges(golden.num_nodes, golden.edges.clone())
            };
            let all = scores(&input);
            assert_eq!(all.len(), expected.len());
            for (node, (score, expected)) in all.iter().zip(expected).enumerate() {
                assert!((score - expected).abs() <= 1e-14, "{}, {node}: {score} {expected}", golden.name);
            }
            let last = golden.num_nodes as u32 - 1;
            let nodes = if last == 0 { vec![0] } else { vec![last, 0] };
            let expected: Vec<f64> = nodes.iter().map(|&node: &u32| all[node as usize]).collect();
            let some = scores(&ClosenessInput { nodes: Some(nodes.into()), ..input.clone() });
            assert_eq!(some, expected, "{}", golden.name);
            // From all nodes the estimate is exact.
            for sampled in [
                ClosenessInput { nodes: None, samples: Some(golden.num_nodes), seed: Some(9), ..input.clone() },
                ClosenessInput { nodes: None, sources: Some((0..=last).rev().collect::<Vec<_>>().into()), ..input },
            ] {
                assert_eq!(scores(&sampled), all, "{}", golden.name);
            }
        }
        let input = AveragePathLengthInput {
            directed: golden.directed,
            ..AveragePathLengthInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        let output = path_length(&input);
        assert!((output.average_path_length - golden.average_path_length).abs() < 1e-12, "{}", golden.name);
        assert_eq!((output.diameter, output.num_pairs), (golden.diameter, golden.num_pairs), "{}", golden.name);
        assert_eq!(output.connected, golden.connected, "{}", golden.name);
        // As many samples as nodes are all nodes, in another order.
        let sampled = AveragePathLengthInput { samples: Some(golden.num_nodes), seed: Some(9), ..input };
        assert_eq!(path_length(&sampled), output, "{}", golden.name);
    }
}

#[test]
fn metrics_are_those_of_networkx() {
    for golden in goldens() {
        let input = FullMetricsInput {
            directed: golden.directed,
            ..FullMetricsInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        FullMetrics.validate(&input).unwrap();
        let output = FullMetrics.run_cpu(&input, &RunContext::detached()).unwrap();
        let found = serde_json::to_value(&output).unwrap();
        assert_eq!(found.as_object().unwrap().len(), golden.metrics.as_object().unwrap().len());
        for (field, expected) in golden.metrics.as_object().unwrap() {
            match (expected.as_f64(), found[field].as_f64()) {
                (Some(expected), Some(value)) => {
                    assert!((value - expected).abs() <= 1e-13 * expected, "{field} of {}: {value}", golden.name);
                }
                _ => assert_eq!(&found[field], expected, "{field} of {}", golden.name),
            }
        }
        let sampled = FullMetricsInput { path_samples: Some(1), seed: Some(4), ..input };
        let sampled = FullMetrics.run_cpu(&sampled, &RunContext::detached()).unwrap();
        assert!(sampled.diameter <= output.diameter && sampled.num_pairs < golden.num_nodes, "{}", golden.name);
        assert_eq!(sampled.average_clustering_coefficient, output.average_clustering_coefficient);
    }
}

#[test]
fn samples_are_drawn_by_their_seed() {
    let edges: Vec<[u32; 2]> = (1..1_000).map(|node| [node / 3, node]).collect();
    let run = |seed| {
        let input = AveragePathLengthInput::from_edges(1_000, edges.clone());
        path_length(&AveragePathLengthInput { samples: Some(20), seed, ..input })
    };
    assert_eq!(run(None), run(Some(0)));
    assert_ne!(run(Some(1)).average_path_length, run(Some(2)).average_path_length);
    assert_eq!(run(Some(1)).num_pairs, 20 * 999);
}

#[tokio::test]
async fn invalid_input_is_rejected_by_its_field() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let (closeness, path_length) = ("graph/closeness-centrality", "graph/average-path-length");
    let metrics = "graph/full-metrics";
    for (id, options, field) in [
        (closeness, json!({"edges": [[0, 3]]}), "edges[0][1]"),
        (closeness, json!({"nodes": []}), "nodes"),
        (closeness, json!({"nodes": [0, 3]}), "nodes[1]"),
        (closeness, json!({"nodes": [2, 1, 2]}), "nodes[2]"),
        (closeness, json!({"nodes": [2], "samples": 2}), "nodes"),
        (closeness, json!({"sources": [2], "samples": 2}), "samples"),
        (closeness, json!({"samples": 4}), "samples"),
        (closeness, json!({"seed": 4}), "seed"),
        (path_length, json!({"sources": []}), "sources"),
        (path_length, json!({"sources": [3]}), "sources[0]"),
        (path_length, json!({"sources": [1, 1]}), "sources[1]"),
        (path_length, json!({"sources": [1], "samples": 1}), "samples"),
        (path_length, json!({"samples": 0}), "samples"),
        (path_length, json!({"samples": 4}), "samples"),
        (path_length, json!({"seed": 1}), "seed"),
        (metrics, json!({"path_samples": 0}), "path_samples"),
        (metrics, json!({"path_samples": 4}), "path_samples"),
        (metrics, json!({"seed": 0}), "seed"),
    ] {
        let mut input: Value = json!({"num_nodes": 3, "edges": [[0, 1]]});
        input.as_object_mut().unwrap().extend(options.as_object().unwrap().clone());
        let request = KernelRequest::new(id, Payload::json(input.to_string()));
        let error = service.ready().await.unwrap().call(request).await.unwrap_err();
        assert!(matches!(&error, KernelError::InvalidInput(invalid) if invalid.field == field), "{input}: {error:?}");
    }
}

#[test]
fn long_searches_end_at_the_deadline() {
    let nodes = 100_000_u32;
    let edges: Vec<[u32; 2]> = (1..nodes).map(|node| [node - 1, node]).collect();
    let input = AveragePathLengthInput::from_edges(nodes.into(), edges);
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let request = KernelRequest::new("graph/average-path-length", Payload::typed(input));
    let request = request.with_timeout(std::time::Duration::from_millis(100));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async { service.ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
}

/// More sources than a pass has, in a graph whose levels are pulled by several threads, some of them in small components.
#[test]
fn passes_of_many_sources_are_those_of_few() {
    let nodes = 2_500_u32;
    let mut edges: Vec<[u32; 2]> = (0..2_000).flat_map(|node| [[node, node * 7 % 1_999], [node, node / 3]]).collect();
    edges.extend((2_040..2_400).map(|node| [node, node - 40]));
    for directed in [false, true] {
        let input = ClosenessInput { directed, ..ClosenessInput::from_edges(nodes.into(), edges.clone()) };
        let all = scores(&input);
        for node in [0, 1, 700, 1_999, 2_000, 2_300, 2_450] {
            let alone = scores(&ClosenessInput { nodes: Some(vec![node].into()), ..input.clone() });
            assert_eq!(alone, [all[node as usize]], "{node}");
        }
        let from_all = (0..nodes).collect::<Vec<_>>().into();
        assert_eq!(scores(&ClosenessInput { sources: Some(from_all), ..input }), all);
    }
}

/// Adds the distances from a source to the count and the sum of the nodes that they are of.
fn add_distances(source: u32, neighbours: &[Vec<u32>], sums: &mut [(u64, u64)]) {
    let mut distances = vec![None; neighbours.len()];
    distances[source as usize] = Some(0);
    let mut found = std::collections::VecDeque::from([source]);
    while let Some(node) = found.pop_front() {
        let next = distances[node as usize].map(|distance: u64| distance + 1);
        for &other in &neighbours[node as usize] {
            if distances[other as usize].is_none() {
                distances[other as usize] = next;
                found.push_back(other);
            }
        }
    }
    for (sum, distance) in sums.iter_mut().zip(distances) {
        if let Some(distance @ 1..) = distance {
            *sum = (sum.0 + 1, sum.1 + distance);
        }
    }
}

/// In a grid each source is searched from by itself; in a graph of few levels with a long tail they stay together.
#[test]
fn searches_of_deep_graphs_and_of_long_tails_are_those_of_single_sources() {
    let (side, nodes) = (60_u32, 3_600_u32);
    let right = (0..nodes).filter(|node| node % side + 1 < side).map(|node| [node, node + 1]);
    let grid: Vec<[u32; 2]> = right.chain((side..nodes).map(|node| [node - side, node])).collect();
    let mut tail: Vec<[u32; 2]> = (0..3_000).flat_map(|node| [[node, node * 7 % 2_999], [node, node / 3]]).collect();
    tail.extend((3_000..nodes).map(|node| [node - 1, node]));
    for edges in [grid, tail] {
        let mut neighbours = vec![Vec::new(); nodes as usize];
        for &[from, to] in &edges {
            neighbours[from as usize].push(to);
            neighbours[to as usize].push(from);
        }
        for count in [1, 40, 700] {
            let sources: Vec<u32> = (0..count).map(|index| index * 1_009 % nodes).collect();
            let mut sums = vec![(0, 0); nodes as usize];
            sources.iter().for_each(|&source| add_distances(source, &neighbours, &mut sums));
            let input =
                ClosenessInput { wf_improved: false, ..ClosenessInput::from_edges(nodes.into(), edges.clone()) };
            let estimate = scores(&ClosenessInput { sources: Some(sources.clone().into()), ..input.clone() });
            let expected =
                sums.iter().map(|&(count, total)| if count == 0 { 0.0 } else { count as f64 / total as f64 });
            assert_eq!(estimate, expected.collect::<Vec<_>>());
            let mean = |source: &u32| {
                let mut sums = vec![(0, 0); nodes as usize];
                add_distances(*source, &neighbours, &mut sums);
                let [count, total] = [sums.iter().map(|sum| sum.0).sum::<u64>(), sums.iter().map(|sum| sum.1).sum()];
                count as f64 / total as f64
            };
            let expected: Vec<f64> = sources.iter().map(mean).collect();
            assert_eq!(scores(&ClosenessInput { nodes: Some(sources.into()), ..input }), expected);
        }
    }
}

#[test]
fn requests_on_one_graph_share_a_run() {
    let edges: Vec<[u32; 2]> = (1..500).flat_map(|node| [[node / 2, node], [node / 3, node]]).collect();
    let input = || ClosenessInput { directed: true, ..ClosenessInput::from_edges(500, edges.clone()) };
    let some = |nodes: &[u32]| ClosenessInput { nodes: Some(nodes.to_vec().into()), ..input() };
    let estimate = ClosenessInput { samples: Some(40), wf_improved: false, ..input() };
    let context = RunContext::detached();
    for inputs in
        [vec![some(&[7, 9]), estimate.clone(), some(&[499, 0, 3])], vec![some(&[7, 9]), input(), estimate, some(&[9])]]
    {
        let inputs: Vec<&ClosenessInput> = inputs.iter().collect();
        let shared = ClosenessCentrality.run_cpu_batch(&inputs, &context).unwrap();
        let alone = inputs.iter().map(|input| ClosenessCentrality.run_cpu(input, &context).unwrap());
        assert_eq!(shared, alone.collect::<Vec<_>>());
    }
    let of = |sources: Option<Vec<u32>>| {
        let sources = sources.map(Into::into);
        AveragePathLengthInput { sources, ..AveragePathLengthInput::from_edges(500, edges.clone()) }
    };
    let inputs = [of(Some(vec![3, 8])), of(None), of(Some(vec![0]))];
    let shared = AveragePathLength.run_cpu_batch(&inputs.each_ref(), &context).unwrap();
    assert_eq!(shared, inputs.map(|input| path_length(&input)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Scores are from 0 to 1 and follow their nodes to other numbers; in a connected graph,
    /// the mean of the reciprocal scores is the average path length.
    #[test]
    fn scores_obey_their_laws(
        (nodes, edges, order) in (2_usize..90).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node.clone()], 0..4 * nodes);
            (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
        }),
        directed in any::<bool>(),
    ) {
        let input = |edges| ClosenessInput { directed, ..ClosenessInput::from_edges(nodes as u64, edges) };
        let all = scores(&input(edges.clone()));
        prop_assert!(all.iter().all(|score| (0.0..=1.0).contains(score)));
        let renamed = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let renamed = scores(&input(renamed));
        for (node, score) in all.iter().enumerate() {
            prop_assert_eq!(renamed[order[node] as usize], *score);
        }
        let mean = AveragePathLengthInput { directed, ..AveragePathLengthInput::from_edges(nodes as u64, edges) };
        let mean = path_length(&mean);
        prop_assert!(mean.diameter as f64 >= mean.average_path_length);
        if mean.connected {
            let of_scores = all.iter().map(|score| 1.0 / score).sum::<f64>() / nodes as f64;
            prop_assert!((of_scores - mean.average_path_length).abs() < 1e-9);
        }
    }
}
