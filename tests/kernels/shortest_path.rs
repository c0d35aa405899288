//! Shortest paths: against networkx, and the laws that they obey.

use proptest::prelude::*;
use serde::Deserialize;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::graph::csr::{Adjacency, CsrGraph, Direction};
use tower_kernels::kernels::graph::shortest_path::{ShortestPath, ShortestPathInput, ShortestPathOutput, UNREACHABLE};
use tower_kernels::service::{
    Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Operand, OperandValue, Payload, RunContext,
};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    sources: Vec<u32>,
    distances: Vec<Vec<Option<u32>>>,
    predecessors: Vec<Vec<Option<u32>>>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../goldens/shortest_path.json")).unwrap()
}

/// The rows one after the other, as outputs have them.
fn joined(rows: &[Vec<Option<u32>>]) -> Vec<u32> {
    rows.iter().flatten().map(|value| value.unwrap_or(UNREACHABLE)).collect()
}

fn run(input: &ShortestPathInput) -> ShortestPathOutput {
    ShortestPath.validate(input).unwrap();
    ShortestPath.run_cpu(input, &RunContext::detached()).unwrap()
}

#[test]
fn distances_and_predecessors_are_those_of_networkx() {
    let goldens = goldens();
    assert!(goldens.len() >= 14);
    for golden in goldens {
        let input = ShortestPathInput {
            directed: golden.directed,
            sources: golden.sources.clone().into(),
            predecessors: true,
            ..ShortestPathInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
        let graph = CsrGraph::from_edges(golden.num_nodes as usize, &golden.edges, direction).unwrap();
        let successors = graph.successors();
        let (offsets, columns) = (successors.row_offsets().to_vec(), successors.column_indices().to_vec());
        // The predecessors of a directed graph that came in this form are not at hand.
        let csr = ShortestPathInput {
            directed: golden.directed,
            sources: golden.sources.clone().into(),
            predecessors: true,
            ..ShortestPathInput::from_csr(offsets, columns)
        };
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let operand: Operand<CsrGraph> = registry.operands().put("graph", graph).unwrap();
        let stored = ShortestPathInput {
            sources: golden.sources.clone().into(),
            predecessors: true,
            ..ShortestPathInput::from_operand(operand)
        };
        for input in [&input, &csr, &stored] {
            let output = run(input);
            assert_eq!(&output.distances[..], joined(&golden.distances), "{}", golden.name);
            assert_eq!(&output.predecessors[..], joined(&golden.predecessors), "{}", golden.name);
        }
        let output = run(&ShortestPathInput { predecessors: false, ..input });
        assert_eq!(&output.distances[..], joined(&golden.distances), "{}", golden.name);
        assert!(output.predecessors.is_empty());
    }
}

#[derive(Deserialize)]
struct WeightedGolden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    weights: Vec<f32>,
    sources: Vec<u32>,
    distances: Vec<Vec<Option<f64>>>,
}

#[test]
fn weighted_distances_are_those_of_networkx() {
    let goldens: Vec<WeightedGolden> = serde_json::from_str(include_str!("../goldens/weighted_paths.json")).unwrap();
    assert!(goldens.len() >= 8);
    for golden in goldens {
        let expected: Vec<f64> =
            golden.distances.iter().flatten().map(|value| value.unwrap_or(f64::INFINITY)).collect();
        let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
        let inline = ShortestPathInput {
            directed: golden.directed,
            sources: golden.sources.clone().into(),
            predecessors: true,
            weights: Some(golden.weights.clone().into()),
            ..ShortestPathInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        let nodes = golden.num_nodes as usize;
        let graph = CsrGraph::from_weighted_edges(nodes, &golden.edges, &golden.weights, direction).unwrap();
        let successors = graph.successors().clone();
        let csr = ShortestPathInput {
            edges: None,
            row_offsets: Some(successors.row_offsets().to_vec().into()),
            column_indices: Some(successors.column_indices().to_vec().into()),
            weights: Some(successors.weights().unwrap().to_vec().into()),
            ..inline.clone()
        };
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let operand: Operand<CsrGraph> = registry.operands().put("graph", graph).unwrap();
        let stored = ShortestPathInput {
            sources: golden.sources.clone().into(),
            predecessors: true,
            ..ShortestPathInput::from_operand(operand)
        };
        for input in [&inline, &csr, &stored] {
            let output = run(input);
            assert_eq!(output.weighted_distances.as_deref(), Some(&expected[..]), "{}", golden.name);
            assert!(output.distances.is_empty());
            check_predecessors(&output, &successors, &golden.sources, &golden.name);
            let by_edges = run(&ShortestPathInput { use_weights: false, ..input.clone() });
            let plain = ShortestPathInput { weights: None, ..inline.clone() };
            assert_eq!(by_edges, run(&plain), "{}", golden.name);
        }
    }
}

#[derive(Deserialize)]
struct TargetsGolden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    weights: Vec<f32>,
    sources: Vec<u32>,
    targets: Vec<u32>,
    distances: Vec<Vec<Option<u32>>>,
    paths: Vec<Vec<Vec<u32>>>,
    weighted_distances: Vec<Vec<Option<f64>>>,
    weighted_paths: Vec<Vec<Vec<u32>>>,
}

/// The paths of an output, one by one.
fn paths(output: &ShortestPathOutput) -> Vec<Vec<u32>> {
    let (offsets, nodes) = (output.path_offsets.as_deref().unwrap(), output.path_nodes.as_deref().unwrap());
    offsets.windows(2).map(|ends| nodes[ends[0] as usize..ends[1] as usize].to_vec()).collect()
}

#[test]
fn distances_and_paths_to_targets_are_those_of_networkx() {
    let goldens: Vec<TargetsGolden> = serde_json::from_str(include_str!("../goldens/paths_to_targets.json")).unwrap();
    assert!(goldens.len() >= 6);
    for golden in goldens {
        let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
        let nodes = golden.num_nodes as usize;
        let graph = CsrGraph::from_weighted_edges(nodes, &golden.edges, &golden.weights, direction).unwrap();
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let stored = ShortestPathInput::from_operand(registry.operands().put("graph", graph).unwrap());
        let inline = ShortestPathInput {
            directed: golden.directed,
            weights: Some(golden.weights.clone().into()),
            ..ShortestPathInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        for input in [inline, stored] {
            let (sources, targets) = (golden.sources.clone().into(), Some(golden.targets.clone().into()));
            let input = ShortestPathInput { sources, targets, paths: true, ..input };
            let output = run(&input);
            let expected: Vec<f64> =
                golden.weighted_distances.iter().flatten().map(|value| value.unwrap_or(f64::INFINITY)).collect();
            assert_eq!(output.weighted_distances.as_deref(), Some(&expected[..]), "{}", golden.name);
            assert_eq!(paths(&output), golden.weighted_paths.concat(), "{}", golden.name);
            assert!(output.distances.is_empty() && output.predecessors.is_empty());

            let by_edges = run(&ShortestPathInput { use_weights: false, ..input.clone() });
            assert_eq!(&by_edges.distances[..], joined(&golden.distances), "{}", golden.name);
            assert_eq!(paths(&by_edges), golden.paths.concat(), "{}", golden.name);

            let alone = run(&ShortestPathInput { paths: false, ..input });
            assert_eq!(alone.weighted_distances, output.weighted_distances);
            assert_eq!((alone.path_offsets, alone.path_nodes), (None, None));
        }
    }
}

#[test]
fn paths_have_at_most_as_many_nodes_as_allowed() {
    let path = ShortestPathInput {
        targets: Some(vec![9, 0, 4].into()),
        paths: true,
        max_path_nodes: 16,
        ..ShortestPathInput::from_edges(10, (1..10).map(|node| [node - 1, node]).collect())
    };
    for weights in [None, Some(vec![1.5_f32; 9].into())] {
        let input = ShortestPathInput { weights, ..path.clone() };
        assert_eq!(paths(&run(&input)), [(0..10).collect(), vec![0], (0..5).collect::<Vec<u32>>()]);
        let error = ShortestPath
            .run_cpu(&ShortestPathInput { max_path_nodes: 15, ..input }, &RunContext::detached())
            .unwrap_err();
        assert!(matches!(&error, KernelError::InvalidInput(invalid) if invalid.field == "max_path_nodes"), "{error:?}");
    }
}

#[test]
fn weights_that_are_not_finite_and_negative_ones_of_a_stored_graph_are_rejected() {
    let with = |weight: f32| ShortestPathInput {
        weights: Some(vec![1.0, weight].into()),
        ..ShortestPathInput::from_edges(3, vec![[0, 1], [1, 2]])
    };
    for weight in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        assert_eq!(ShortestPath.validate(&with(weight)).unwrap_err().field, "weights[1]", "{weight}");
    }
    assert_eq!(ShortestPath.validate(&with(-0.5)).unwrap_err().field, "weights[1]");
    ShortestPath.validate(&with(-0.0)).unwrap();
    ShortestPath.validate(&ShortestPathInput { use_weights: false, ..with(-0.5) }).unwrap();

    let graph = CsrGraph::from_weighted_edges(3, &[[0, 1], [1, 2]], &[1.0, -0.5], Direction::Undirected).unwrap();
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let stored = ShortestPathInput::from_operand(registry.operands().put("debts", graph).unwrap());
    assert_eq!(ShortestPath.validate(&stored).unwrap_err().field, "graph");
    let by_edges = run(&ShortestPathInput { use_weights: false, ..stored });
    assert_eq!(by_edges.distances[..], [0, 1, 2]);
}

/// Every node that is reached has a predecessor whose arc leads to it at its distance, and following them leads to the source.
fn check_predecessors(output: &ShortestPathOutput, successors: &Adjacency, sources: &[u32], name: &str) {
    let nodes = successors.row_offsets().len() - 1;
    let distances = output.weighted_distances.as_deref().unwrap();
    for (index, &source) in sources.iter().enumerate() {
        let own = index * nodes..(index + 1) * nodes;
        let (distances, predecessors) = (&distances[own.clone()], &output.predecessors[own]);
        for node in 0..nodes as u32 {
            let (mut at, mut steps) = (node, 0);
            while predecessors[at as usize] != UNREACHABLE {
                let before = predecessors[at as usize];
                let (arc, _) = successors.indexed_row(before).find(|&(_, to)| to == at).unwrap();
                let weight = f64::from(successors.weights().unwrap()[arc]);
                assert_eq!(distances[before as usize] + weight, distances[at as usize], "{name}: {before} to {at}");
                (at, steps) = (before, steps + 1);
                assert!(steps <= nodes, "{name}: the predecessors of {node} form a circle");
            }
            assert_eq!(at == source, distances[node as usize].is_finite(), "{name}: {node}");
        }
    }
}

/// A graph whose buckets are large enough that several threads work on them.
#[test]
fn wide_buckets_give_distances_that_no_arc_makes_shorter() {
    let random = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32;
    let edges: Vec<[u32; 2]> =
        (0..400_000).map(|edge| [random(2 * edge), random(2 * edge + 1)].map(|node| node % 50_000)).collect();
    let weights: Vec<f32> = (0..400_000).map(|edge| (random(edge + 7_000_000) % 1_000) as f32).collect();
    for direction in [Direction::Undirected, Direction::Directed] {
        let graph = CsrGraph::from_weighted_edges(50_000, &edges, &weights, direction).unwrap();
        let input = ShortestPathInput {
            directed: direction == Direction::Directed,
            sources: vec![7].into(),
            predecessors: true,
            weights: Some(weights.clone().into()),
            ..ShortestPathInput::from_edges(50_000, edges.clone())
        };
        let output = run(&input);
        let distances = output.weighted_distances.as_deref().unwrap();
        assert!(distances.iter().filter(|distance| distance.is_finite()).count() > 40_000);
        for node in 0..50_000 {
            for (arc, next) in graph.successors().indexed_row(node) {
                let through = distances[node as usize] + f64::from(graph.successors().weights().unwrap()[arc]);
                assert!(distances[next as usize] <= through, "{node} to {next}");
            }
        }
        check_predecessors(&output, graph.successors(), &[7], "random");
    }
}

#[tokio::test]
async fn a_stored_graph_keeps_its_weights_and_kernels_that_take_none_ignore_them() {
    let document = r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2], [0, 2]], "weights": [0.5, 0.25, 2]}"#;
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let document = serde_json::from_str(document).unwrap();
    let graph = CsrGraph::from_document(&document, &RunContext::detached()).unwrap();
    assert_eq!(graph.summary(), serde_json::json!({"nodes": 3, "edges": 3, "directed": false, "weighted": true}));
    let tensors = graph.to_tensors();
    let names: Vec<_> = tensors.iter().map(|(name, _)| name.to_owned()).collect();
    assert!(names.contains(&"weights".to_owned()), "{names:?}");
    registry.operands().put("roads", graph).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let mut ask = async |kernel: &'static str, input: &str| {
        let request = KernelRequest::new(kernel, Payload::json(input.to_owned()));
        let response = service.ready().await.unwrap().call(request).await?;
        let Payload::Json(output) = response.payload else { panic!("an output that is not JSON") };
        Ok::<serde_json::Value, KernelError>(serde_json::from_slice(&output).unwrap())
    };
    let paths = ask("graph/shortest-path", r#"{"graph": {"operand": "roads"}}"#).await.unwrap();
    assert_eq!(paths, serde_json::json!({"distances": [], "weighted_distances": [0.0, 0.5, 0.75], "predecessors": []}));
    let triangles = ask("graph/triangle-counting", r#"{"graph": {"operand": "roads"}}"#).await.unwrap();
    assert_eq!(triangles["total_triangles"], 1);
    let inline = r#"{"graph": {"num_nodes": 2, "edges": [[0, 1]], "weights": [1.0]}}"#;
    let rejected = ask("graph/triangle-counting", inline).await.unwrap_err();
    assert!(
        matches!(&rejected, KernelError::InvalidInput(invalid) if invalid.field == "graph.weights"),
        "{rejected:?}"
    );
    // The infinite distance of a node that no path leads to.
    let alone = r#"{"num_nodes": 3, "edges": [[0, 1]], "weights": [1.5]}"#;
    assert_eq!(
        ask("graph/shortest-path", alone).await.unwrap()["weighted_distances"],
        serde_json::json!([0.0, 1.5, null])
    );
}

/// A graph whose levels are large enough that they are pulled, and pushed by several threads.
#[test]
fn wide_levels_give_what_narrow_ones_give() {
    let random = |index: u64| (index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as u32 % 50_000;
    let edges: Vec<[u32; 2]> = (0..400_000).map(|edge| [random(2 * edge), random(2 * edge + 1)]).collect();
    for directed in [false, true] {
        let input = ShortestPathInput::from_edges(50_000, edges.clone());
        let input = ShortestPathInput { directed, predecessors: true, sources: vec![7].into(), ..input };
        let output = run(&input);
        // Every node but the source has a predecessor one level before it, and no edge skips a level.
        let distances = &output.distances;
        for (node, (&distance, &predecessor)) in distances.iter().zip(output.predecessors.iter()).enumerate() {
            match distance {
                0 | UNREACHABLE => assert_eq!(predecessor, UNREACHABLE),
                distance => assert_eq!(distances[predecessor as usize], distance - 1, "{node}"),
            }
        }
        assert_eq!(distances.iter().filter(|&&distance| distance == 0).count(), 1);
        for &[from, to] in &edges {
            let (from, to) = (distances[from as usize], distances[to as usize]);
            assert!(from == UNREACHABLE || to <= from + 1);
            assert!(directed || to == UNREACHABLE || from <= to + 1);
        }
    }
}

#[tokio::test]
async fn invalid_input_is_rejected_by_its_field() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let many = vec![0; 70_000];
    let many = format!(r#"{{"num_nodes": 65536, "edges": [], "sources": {many:?}}}"#);
    for (input, field) in [
        (r#"{"num_nodes": 3, "edges": [[0, 1], [1, 3]]}"#, "edges[1][1]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "sources": [0, 3]}"#, "sources[1]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "sources": []}"#, "sources"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "sources": [-1]}"#, "sources[0]"),
        (&many, "sources"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "targets": []}"#, "targets"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "targets": [1, 3]}"#, "targets[1]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "targets": [1], "predecessors": true}"#, "predecessors"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "paths": true}"#, "paths"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "weights": [1, 2]}"#, "weights"),
        (r#"{"num_nodes": 3, "edges": [[0, 1], [1, 2]], "weights": [0, -0.5]}"#, "weights[1]"),
        (r#"{"num_nodes": 3, "edges": [[0, 1]], "weights": ["1"]}"#, "weights[0]"),
        (r#"{"graph": {"num_nodes": 3, "edges": [[0, 1]], "weights": [-1]}}"#, "graph.weights[0]"),
        (r#"{"graph": {"num_nodes": 3, "edges": [[0, 1]], "weights": []}}"#, "graph.weights"),
    ] {
        let request = KernelRequest::new("graph/shortest-path", Payload::json(input.to_owned()));
        let error = service.ready().await.unwrap().call(request).await.unwrap_err();
        assert!(matches!(&error, KernelError::InvalidInput(invalid) if invalid.field == field), "{error:?}");
    }
}

#[test]
fn a_deep_search_ends_at_the_deadline() {
    let nodes = 300_000_u32;
    let edges = (1..nodes).map(|node| [node - 1, node]).collect();
    let input = ShortestPathInput::from_edges(nodes.into(), edges);
    let input = ShortestPathInput { sources: vec![0; 1_000].into(), ..input };
    let weights = Some((1..nodes).map(|node| node as f32).collect::<Vec<_>>().into());
    ends_at_the_deadline(ShortestPathInput { weights, ..input.clone() });
    ends_at_the_deadline(input);
}

fn ends_at_the_deadline(input: ShortestPathInput) {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let request = KernelRequest::new("graph/shortest-path", Payload::typed(input));
    let request = request.with_timeout(std::time::Duration::from_millis(100));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let result = runtime.block_on(async { service.ready().await?.call(request).await });
    assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Distances and paths to some nodes are those among the distances to all nodes and along the predecessors.
    #[test]
    fn what_leads_to_targets_is_what_leads_to_all(
        (nodes, edges, sources, targets) in (1_usize..60).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec(([node.clone(), node.clone()], 0_u8..9), 0..3 * nodes);
            (Just(nodes), edges, prop::collection::vec(node.clone(), 1..4), prop::collection::vec(node, 1..6))
        }),
        directed in any::<bool>(),
        weighted in any::<bool>(),
    ) {
        let (edges, quarters): (Vec<[u32; 2]>, Vec<u8>) = edges.into_iter().unzip();
        let weights: Vec<f32> = quarters.into_iter().map(|quarters| f32::from(quarters) / 4.0).collect();
        let input = ShortestPathInput {
            directed,
            sources: sources.clone().into(),
            predecessors: true,
            weights: weighted.then(|| weights.into()),
            ..ShortestPathInput::from_edges(nodes as u64, edges)
        };
        let all = run(&input);
        let to_targets = ShortestPathInput { targets: Some(targets.clone().into()), predecessors: false, ..input };
        let some = run(&ShortestPathInput { paths: true, ..to_targets });
        let items = (0..sources.len()).flat_map(|source| targets.iter().map(move |&target| source * nodes + target as usize));
        for ((pair, item), path) in items.enumerate().zip(paths(&some)) {
            let source = item / nodes * nodes;
            match (&some.weighted_distances, &all.weighted_distances) {
                (Some(some), Some(all)) => prop_assert_eq!(some[pair], all[item]),
                _ => prop_assert_eq!(some.distances[pair], all.distances[item]),
            }
            let mut expected: Vec<u32> = std::iter::successors(Some((item % nodes) as u32), |&node| {
                Some(all.predecessors[source + node as usize]).filter(|&before| before != UNREACHABLE)
            }).collect();
            expected.reverse();
            if expected[0] != sources[item / nodes] {
                expected.clear();
            }
            prop_assert_eq!(path, expected);
        }
    }

    /// Distances are those of Floyd and Warshall's algorithm, and renaming the nodes renames them.
    #[test]
    fn distances_are_those_of_the_definition(
        (nodes, edges, order) in (1_usize..24).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node.clone()], 0..3 * nodes);
            (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
        }),
        directed in any::<bool>(),
    ) {
        let input = |edges: Vec<[u32; 2]>, sources: Vec<u32>| ShortestPathInput {
            directed,
            sources: sources.into(),
            ..ShortestPathInput::from_edges(nodes as u64, edges)
        };
        let output = run(&input(edges.clone(), (0..nodes as u32).collect()));
        let mut expected = vec![vec![UNREACHABLE; nodes]; nodes];
        for &[from, to] in &edges {
            expected[from as usize][to as usize] = 1;
            if !directed {
                expected[to as usize][from as usize] = 1;
            }
        }
        (0..nodes).for_each(|node| expected[node][node] = 0);
        for through in 0..nodes {
            for from in 0..nodes {
                for to in 0..nodes {
                    let around = expected[from][through].saturating_add(expected[through][to]);
                    expected[from][to] = expected[from][to].min(around);
                }
            }
        }
        prop_assert_eq!(&output.distances[..], expected.concat());
        // With weights that are all 1, so are the distances by weights.
        let ones = ShortestPathInput {
            weights: Some(vec![1.0; edges.len()].into()),
            ..input(edges.clone(), (0..nodes as u32).collect())
        };
        let by_weights = run(&ones).weighted_distances.unwrap();
        let as_edges = |&distance: &f64| if distance.is_finite() { distance as u32 } else { UNREACHABLE };
        prop_assert_eq!(by_weights.iter().map(as_edges).collect::<Vec<_>>(), expected.concat());
        let renamed = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let renamed = run(&input(renamed, order.clone()));
        for (from, row) in expected.iter().enumerate() {
            for (to, &distance) in row.iter().enumerate() {
                prop_assert_eq!(renamed.distances[from * nodes + order[to] as usize], distance);
            }
        }
    }
}
