//! Shortest paths: against networkx, and the laws that they obey.

use proptest::prelude::*;
use serde::Deserialize;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::shortest_path::{ShortestPath, ShortestPathInput, ShortestPathOutput, UNREACHABLE};
use tower_kernels::service::{
    Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Operand, Payload, RunContext,
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
        let renamed = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let renamed = run(&input(renamed, order.clone()));
        for (from, row) in expected.iter().enumerate() {
            for (to, &distance) in row.iter().enumerate() {
                prop_assert_eq!(renamed.distances[from * nodes + order[to] as usize], distance);
            }
        }
    }
}
