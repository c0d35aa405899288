//! Connected components: against networkx, and the laws that they obey.

use proptest::prelude::*;
use serde::Deserialize;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::graph::connected_components::{
    ConnectedComponents, ConnectedComponentsInput, ConnectedComponentsOutput,
};
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::service::{
    Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Operand, Payload, RunContext,
};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    weak: Vec<u32>,
    strong: Option<Vec<u32>>,
}

fn goldens() -> Vec<Golden> {
    serde_json::from_str(include_str!("../goldens/connected_components.json")).unwrap()
}

fn run(input: &ConnectedComponentsInput) -> ConnectedComponentsOutput {
    ConnectedComponents.validate(input).unwrap();
    ConnectedComponents.run_cpu(input, &RunContext::detached()).unwrap()
}

/// Checks the components and all that follows from them.
fn assert_components(output: &ConnectedComponentsOutput, expected: &[u32], name: &str) {
    assert_eq!(&output.components[..], expected, "{name}");
    let count = expected.iter().max().map_or(0, |&last| last + 1);
    assert_eq!(output.num_components, count, "{name}");
    let size = |component: u32| expected.iter().filter(|&&other| other == component).count() as u32;
    assert_eq!(&output.sizes[..], (0..count).map(size).collect::<Vec<_>>(), "{name}");
}

#[test]
fn components_are_those_of_networkx() {
    let goldens = goldens();
    assert!(goldens.len() >= 14 && goldens.iter().filter(|golden| golden.strong.is_some()).count() >= 5);
    for golden in goldens {
        let input = ConnectedComponentsInput {
            directed: golden.directed,
            ..ConnectedComponentsInput::from_edges(golden.num_nodes, golden.edges.clone())
        };
        assert_components(&run(&input), &golden.weak, &golden.name);
        let strong = golden.strong.as_ref().unwrap_or(&golden.weak);
        assert_components(&run(&ConnectedComponentsInput { strong: true, ..input }), strong, &golden.name);
    }
}

#[test]
fn a_stored_graph_and_csr_arrays_give_what_edges_give() {
    for golden in goldens() {
        let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
        let graph = CsrGraph::from_edges(golden.num_nodes as usize, &golden.edges, direction).unwrap();
        let successors = graph.successors();
        let (offsets, columns) = (successors.row_offsets().to_vec(), successors.column_indices().to_vec());
        let csr = ConnectedComponentsInput {
            directed: golden.directed,
            ..ConnectedComponentsInput::from_csr(offsets, columns)
        };
        assert_components(&run(&csr), &golden.weak, &golden.name);
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let stored: Operand<CsrGraph> = registry.operands().put("graph", graph).unwrap();
        let stored = ConnectedComponentsInput::from_operand(stored);
        assert_components(&run(&stored), &golden.weak, &golden.name);
        let strong = golden.strong.as_ref().unwrap_or(&golden.weak);
        assert_components(&run(&ConnectedComponentsInput { strong: true, ..stored }), strong, &golden.name);
    }
}

/// A path or cycle of this many nodes, as deep as a graph can be.
fn ring(nodes: u32, closed: bool) -> Vec<[u32; 2]> {
    let last = if closed { Some([nodes - 1, 0]) } else { None };
    (1..nodes).map(|node| [node - 1, node]).chain(last).collect()
}

#[test]
fn deep_graphs_need_no_stack() {
    let nodes = 1_000_000;
    for (closed, components) in [(true, 1), (false, nodes)] {
        let edges = ring(nodes, closed);
        let input = ConnectedComponentsInput::from_edges(nodes.into(), edges);
        let input = ConnectedComponentsInput { directed: true, strong: true, ..input };
        assert_eq!(run(&input).num_components, components);
        let weak = run(&ConnectedComponentsInput { strong: false, ..input });
        assert_eq!((weak.num_components, &weak.sizes[..]), (1, &[nodes][..]));
    }
}

#[tokio::test]
async fn an_invalid_graph_is_rejected_by_its_field() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    for (input, field) in [
        (r#"{"num_nodes": 3, "edges": [[0, 1], [1, 3]]}"#, "edges[1][1]"),
        (r#"{"num_nodes": 0, "edges": []}"#, "num_nodes"),
        (r#"{"num_nodes": 3, "edges": [], "strong": 1}"#, "strong"),
        (r#"{"num_nodes": 200000000, "edges": []}"#, "num_nodes"),
    ] {
        let request = KernelRequest::new("graph/connected-components", Payload::json(input));
        let error = service.ready().await.unwrap().call(request).await.unwrap_err();
        assert!(matches!(&error, KernelError::InvalidInput(invalid) if invalid.field == field), "{input}: {error:?}");
    }
}

#[test]
fn it_ends_at_the_deadline() {
    let nodes = 300_000;
    for strong in [false, true] {
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let input = ConnectedComponentsInput::from_edges(nodes, ring(nodes as u32, false));
        let input = ConnectedComponentsInput { directed: true, strong, ..input };
        let request = KernelRequest::new("graph/connected-components", Payload::typed(input));
        let request = request.with_timeout(std::time::Duration::from_micros(1));
        let mut service = KernelService::with_backend(registry, CpuBackend::new());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let result = runtime.block_on(async { service.ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
    }
}

/// Whether a path leads from each node to each other, by the definition.
fn paths(nodes: usize, edges: &[[u32; 2]], both_ways: bool) -> Vec<Vec<bool>> {
    let mut leads: Vec<Vec<bool>> = (0..nodes).map(|from| (0..nodes).map(|to| from == to).collect()).collect();
    for &[from, to] in edges {
        leads[from as usize][to as usize] = true;
        leads[to as usize][from as usize] |= both_ways;
    }
    for through in 0..nodes {
        for from in 0..nodes {
            for to in 0..nodes {
                leads[from][to] |= leads[from][through] && leads[through][to];
            }
        }
    }
    leads
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nodes_share_a_component_if_paths_lead_both_ways(
        (nodes, edges, order) in (1_usize..24).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node.clone()], 0..2 * nodes);
            (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
        }),
        strong in any::<bool>(),
    ) {
        let input = |edges: Vec<[u32; 2]>| ConnectedComponentsInput {
            directed: true,
            strong,
            ..ConnectedComponentsInput::from_edges(nodes as u64, edges)
        };
        let output = run(&input(edges.clone()));
        let leads = paths(nodes, &edges, !strong);
        let pairs = || (0..nodes).flat_map(|a| (0..nodes).map(move |b| (a, b)));
        for (a, b) in pairs() {
            prop_assert_eq!(output.components[a] == output.components[b], leads[a][b] && leads[b][a]);
        }
        // Numbers ascend with the lowest nodes, and sizes add up to all nodes.
        let mut highest = None;
        for &component in output.components.iter() {
            prop_assert!(component <= highest.map_or(0, |highest: u32| highest + 1));
            highest = highest.max(Some(component));
        }
        prop_assert_eq!(output.sizes.iter().sum::<u32>() as usize, nodes);
        // Other numbers of the nodes change the numbers of the components, and nothing else.
        let renamed = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let renamed = run(&input(renamed));
        for (a, b) in pairs() {
            let same = renamed.components[order[a] as usize] == renamed.components[order[b] as usize];
            prop_assert_eq!(output.components[a] == output.components[b], same);
        }
    }
}
