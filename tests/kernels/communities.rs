//! Communities and their modularity: against networkx, and the laws that they obey.

use proptest::prelude::*;
use serde::Deserialize;
use tower::{Service, ServiceExt};
use tower_kernels::backends::cpu::CpuBackend;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::label_propagation::{
    LabelPropagation, LabelPropagationInput, LabelPropagationOutput,
};
use tower_kernels::kernels::graph::louvain_community::{
    LouvainCommunity, LouvainCommunityInput, LouvainCommunityOutput,
};
use tower_kernels::kernels::graph::modularity_score::{ModularityScore, ModularityScoreInput, ModularityScoreOutput};
use tower_kernels::service::{
    Buffer, Kernel, KernelError, KernelRegistry, KernelRequest, KernelService, Operand, Payload, RunContext,
};

#[derive(Deserialize)]
struct Golden {
    name: String,
    num_nodes: u64,
    directed: bool,
    edges: Vec<[u32; 2]>,
    weights: Option<Vec<f32>>,
    #[serde(default)]
    partitions: Vec<Partition>,
    #[serde(default)]
    runs: Vec<NetworkxRun>,
}

#[derive(Deserialize)]
struct Partition {
    communities: Vec<u32>,
    resolution: f64,
    modularity: f64,
    coverage: f64,
}

/// Communities that networkx finds.
#[derive(Deserialize)]
struct NetworkxRun {
    #[serde(default)]
    seed: u64,
    #[serde(default)]
    communities: Vec<u32>,
    #[serde(default)]
    resolution: f64,
    modularity: f64,
}

fn stored(golden: &Golden) -> Operand<CsrGraph> {
    let direction = if golden.directed { Direction::Directed } else { Direction::Undirected };
    let nodes = golden.num_nodes as usize;
    let graph = match &golden.weights {
        Some(weights) => CsrGraph::from_weighted_edges(nodes, &golden.edges, weights, direction),
        None => CsrGraph::from_edges(nodes, &golden.edges, direction),
    };
    let graph = graph.unwrap();
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    registry.operands().put("graph", graph).unwrap()
}

fn propagate(input: &LabelPropagationInput) -> LabelPropagationOutput {
    LabelPropagation.validate(input).unwrap();
    LabelPropagation.run_cpu(input, &RunContext::detached()).unwrap()
}

fn louvain(input: &LouvainCommunityInput) -> LouvainCommunityOutput {
    LouvainCommunity.validate(input).unwrap();
    LouvainCommunity.run_cpu(input, &RunContext::detached()).unwrap()
}

/// Checks that communities are numbered by their lowest nodes, and their sizes.
fn check_numbering(communities: &[u32], sizes: &[u32], num_communities: u32) {
    let mut next = 0;
    for &community in communities {
        assert!(community <= next, "{communities:?}");
        next = next.max(community + 1);
    }
    assert_eq!(num_communities, next);
    let size = |community: u32| communities.iter().filter(|&&other| other == community).count() as u32;
    assert_eq!(sizes, (0..next).map(size).collect::<Vec<_>>());
}

fn score(input: &ModularityScoreInput) -> ModularityScoreOutput {
    ModularityScore.validate(input).unwrap();
    ModularityScore.run_cpu(input, &RunContext::detached()).unwrap()
}

#[test]
fn modularity_is_that_of_networkx() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/modularity_score.json")).unwrap();
    let count = |is: fn(&Golden) -> bool| goldens.iter().filter(|golden| is(golden)).count();
    assert!(count(|golden| golden.directed && golden.weights.is_some()) >= 3);
    assert!(count(|golden| golden.weights.is_none()) >= 16);
    for golden in goldens {
        let stored = stored(&golden);
        let Golden { name, num_nodes, directed, edges, weights, partitions, .. } = golden;
        let weights = weights.map(Buffer::from);
        for Partition { communities, resolution, modularity, coverage } in partitions {
            let weights = weights.clone();
            let by_edges = ModularityScoreInput::from_edges(num_nodes, edges.clone());
            let by_edges = ModularityScoreInput { directed, weights, ..by_edges };
            for input in [by_edges, ModularityScoreInput::from_operand(stored.clone())] {
                let output =
                    score(&ModularityScoreInput { communities: communities.clone().into(), resolution, ..input });
                assert!((output.modularity - modularity).abs() < 1e-13, "{name}: {output:?}, not {modularity}");
                assert!((output.coverage - coverage).abs() < 1e-15, "{name}: {output:?}, not {coverage}");
            }
        }
    }
}

#[test]
fn labels_propagate_as_in_networkx() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/label_propagation.json")).unwrap();
    assert!(goldens.len() >= 13);
    for golden in goldens {
        let stored = stored(&golden);
        let Golden { name, num_nodes, edges, runs, .. } = golden;
        assert!(runs.len() >= 3);
        for NetworkxRun { seed, communities, modularity, .. } in runs {
            let by_edges = LabelPropagationInput::from_edges(num_nodes, edges.clone());
            for input in [by_edges, LabelPropagationInput::from_operand(stored.clone())] {
                let output = propagate(&LabelPropagationInput { seed, ..input });
                assert_eq!(&output.communities[..], communities, "{name}, seed {seed}");
                check_numbering(&output.communities, &output.sizes, output.num_communities);
                assert!((output.modularity - modularity).abs() < 1e-13, "{name}: {output:?}, not {modularity}");
                assert!(output.converged);
            }
        }
    }
}

#[test]
fn louvain_communities_are_as_good_as_those_of_networkx() {
    let goldens: Vec<Golden> = serde_json::from_str(include_str!("../goldens/louvain_community.json")).unwrap();
    assert!(goldens.iter().filter(|golden| golden.weights.is_none()).count() >= 13);
    assert!(goldens.iter().filter(|golden| golden.weights.is_some()).count() >= 13);
    for golden in goldens {
        let stored = stored(&golden);
        for NetworkxRun { resolution, modularity, .. } in golden.runs {
            // The best of five orders, as the golden is.
            let of_seed = |seed| {
                let input = LouvainCommunityInput::from_operand(stored.clone());
                let output = louvain(&LouvainCommunityInput { resolution, seed, ..input });
                check_numbering(&output.communities, &output.sizes, output.num_communities);
                output.modularity
            };
            let best = (0..5).map(of_seed).fold(f64::NEG_INFINITY, f64::max);
            assert!(best > modularity - 0.01, "{}, {resolution}: {best}, not {modularity}", golden.name);
        }
    }
}

#[tokio::test]
async fn invalid_fields_of_communities_are_rejected_by_name() {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    let mut service = KernelService::with_backend(registry, CpuBackend::new());
    let id = "graph/modularity-score";
    let [labels, louvain] = ["graph/label-propagation", "graph/louvain-community"];
    let stored = CsrGraph::from_edges(2, &[[0, 1]], Direction::Directed).unwrap();
    service.registry().operands().put("one-way", stored).unwrap();
    for (id, fields, field) in [
        (id, r#""num_nodes": 3, "edges": [[0, 1], [1, 3]], "communities": [0, 0, 0]"#, "edges[1][1]"),
        (id, r#""num_nodes": 0, "edges": [], "communities": []"#, "num_nodes"),
        (id, r#""num_nodes": 3, "edges": [[0, 1]]"#, "communities"),
        (id, r#""num_nodes": 3, "edges": [[0, 1]], "communities": [0, 0]"#, "communities"),
        (id, r#""num_nodes": 3, "edges": [[0, 1]], "communities": [0, 0, 3]"#, "communities[2]"),
        (id, r#""num_nodes": 1, "edges": [], "communities": [0], "resolution": -1"#, "resolution"),
        (id, r#""num_nodes": 1, "edges": [], "communities": [0], "resolution": "x""#, "resolution"),
        (id, r#""num_nodes": 2, "edges": [[0, 1]], "communities": [0, 0], "weights": [-1.5]"#, "weights[0]"),
        (id, r#""num_nodes": 2, "edges": [[0, 1]], "communities": [0, 0], "weights": [1.5, 1.5]"#, "weights"),
        (labels, r#""num_nodes": 2, "edges": [[0, 2]]"#, "edges[0][1]"),
        (labels, r#""num_nodes": 2, "edges": [[0, 1]], "directed": true"#, "directed"),
        (labels, r#""graph": {"operand": "one-way"}"#, "graph"),
        (labels, r#""num_nodes": 2, "edges": [[0, 1]], "max_iterations": 0"#, "max_iterations"),
        (labels, r#""num_nodes": 2, "edges": [[0, 1]], "seed": -1"#, "seed"),
        (louvain, r#""num_nodes": 200000000, "edges": []"#, "num_nodes"),
        (louvain, r#""num_nodes": 2, "edges": [[0, 1]], "directed": true"#, "directed"),
        (louvain, r#""num_nodes": 3, "edges": [[0, 1], [1, 2]], "weights": [0.5, -0.5]"#, "weights[1]"),
        (louvain, r#""graph": {"num_nodes": 2, "edges": [[0, 1]], "weights": [-1]}"#, "graph.weights[0]"),
        (louvain, r#""num_nodes": 2, "edges": [[0, 1]], "max_iterations": 0"#, "max_iterations"),
        (louvain, r#""num_nodes": 2, "edges": [[0, 1]], "resolution": -0.5"#, "resolution"),
        (louvain, r#""num_nodes": 2, "edges": [[0, 1]], "min_modularity_gain": -1e-9"#, "min_modularity_gain"),
    ] {
        let request = KernelRequest::new(id, Payload::json(format!("{{{fields}}}")));
        let error = service.ready().await.unwrap().call(request).await.unwrap_err();
        assert!(matches!(&error, KernelError::InvalidInput(invalid) if invalid.field == field), "{fields}: {error:?}");
    }
}

#[test]
fn communities_are_found_until_the_deadline() {
    let edges: Vec<[u32; 2]> = (1..300_000).flat_map(|node| [[node - 1, node], [node / 2, node]]).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    for (id, input) in [
        ("graph/label-propagation", Payload::typed(LabelPropagationInput::from_edges(300_000, edges.clone()))),
        ("graph/louvain-community", Payload::typed(LouvainCommunityInput::from_edges(300_000, edges.clone()))),
    ] {
        let registry = KernelRegistry::new();
        tower_kernels::kernels::register_all(&registry).unwrap();
        let mut service = KernelService::with_backend(registry, CpuBackend::new());
        let request = KernelRequest::new(id, input).with_timeout(std::time::Duration::from_micros(1));
        let result = runtime.block_on(async { service.ready().await?.call(request).await });
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
    }
}

#[test]
fn sweeps_end_at_the_most_that_are_allowed() {
    let word = |index: u32| index.wrapping_mul(0x9e37_79b9) ^ index.wrapping_mul(0x85eb_ca6b) >> 15;
    let edges = (0..6_000).map(|edge| [word(edge) % 2_000, word(edge + 70_000) % 2_000]).collect();
    let input = LabelPropagationInput::from_edges(2_000, edges);
    let whole = propagate(&input);
    assert!(whole.converged && whole.iterations > 2, "{whole:?}");
    let one = propagate(&LabelPropagationInput { max_iterations: 1, ..input.clone() });
    assert_eq!((one.converged, one.iterations), (false, 1));
    assert_ne!(one.communities, whole.communities);
    let all = propagate(&LabelPropagationInput { max_iterations: whole.iterations, ..input });
    assert_eq!(all, whole);
}

#[test]
fn a_graph_without_edges_or_without_any_weight_has_no_modularity() {
    let input = ModularityScoreInput { communities: vec![0, 1].into(), ..ModularityScoreInput::from_edges(2, vec![]) };
    assert_eq!(score(&input), ModularityScoreOutput { modularity: 0.0, coverage: 0.0 });
    let weights = Some(vec![0.0].into());
    let input = ModularityScoreInput { edges: Some(vec![[0, 1]]), weights: weights.clone(), ..input };
    assert_eq!(score(&input), ModularityScoreOutput { modularity: 0.0, coverage: 0.0 });
    let found = louvain(&LouvainCommunityInput { weights, ..LouvainCommunityInput::from_edges(2, vec![[0, 1]]) });
    assert_eq!((&found.communities[..], found.modularity), (&[0, 1][..], 0.0));
}

#[test]
fn communities_follow_the_weights_unless_they_are_not_used() {
    // A cycle of six, whose edges are alternately heavy and light.
    let edges: Vec<[u32; 2]> = (0..6).map(|node| [node, (node + 1) % 6]).collect();
    let weights =
        |heavy: u32| Some((0..6).map(|edge| if edge % 2 == heavy { 8.0 } else { 1.0 }).collect::<Vec<f32>>().into());
    let input = LouvainCommunityInput::from_edges(6, edges);
    let found = |weights| louvain(&LouvainCommunityInput { weights, ..input.clone() }).communities.to_vec();
    assert_eq!(found(weights(0)), [0, 0, 1, 1, 2, 2]);
    assert_eq!(found(weights(1)), [0, 1, 1, 2, 2, 0]);
    let unused = LouvainCommunityInput { weights: weights(0), use_weights: false, ..input.clone() };
    assert_eq!(louvain(&unused), louvain(&input));
}

/// A graph, and an order of its nodes.
fn graphs() -> impl Strategy<Value = (u32, Vec<[u32; 2]>, Vec<u32>)> {
    (1_u32..40).prop_flat_map(|nodes| {
        let node = 0..nodes;
        let edges = prop::collection::vec([node.clone(), node.clone()], 0..4 * nodes as usize);
        (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn modularity_depends_on_neither_numbering(
        ((nodes, edges, order), seed) in (graphs(), any::<u32>()),
        directed in any::<bool>(),
        resolution in 0.0..2.0,
    ) {
        let community = |node: u32| (node.wrapping_mul(seed | 1) >> 20) % nodes.min(5);
        let communities: Vec<u32> = (0..nodes).map(community).collect();
        let input = ModularityScoreInput {
            directed,
            resolution,
            communities: communities.clone().into(),
            ..ModularityScoreInput::from_edges(nodes.into(), edges.clone())
        };
        let output = score(&input);
        prop_assert!(output.modularity <= 1.0 && (0.0..=1.0).contains(&output.coverage));
        if !directed {
            prop_assert!(output.modularity >= -0.5 * resolution.max(1.0), "{:?}", output);
        }
        // Other numbers of the communities, and of the nodes.
        let renumbered: Vec<u32> = communities.iter().map(|&community| nodes - 1 - community).collect();
        prop_assert_eq!(&score(&ModularityScoreInput { communities: renumbered.into(), ..input.clone() }), &output);
        let mut reordered = vec![0; nodes as usize];
        (0..nodes).for_each(|node| reordered[order[node as usize] as usize] = community(node));
        let edges = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let reordered = ModularityScoreInput { communities: reordered.into(), edges: Some(edges), ..input.clone() };
        prop_assert_eq!(&score(&reordered), &output);
        // One community has all edges.
        let whole = score(&ModularityScoreInput { communities: vec![0; nodes as usize].into(), ..input });
        let has_edges = output.coverage > 0.0 || whole.coverage > 0.0;
        prop_assert_eq!(whole.modularity, if has_edges { 1.0 - resolution } else { 0.0 });
    }

    #[test]
    fn no_label_is_more_frequent_among_neighbours_than_the_own(
        (nodes, edges, _) in graphs(),
        seed in any::<u64>(),
    ) {
        let input = LabelPropagationInput { seed, ..LabelPropagationInput::from_edges(nodes.into(), edges.clone()) };
        let output = propagate(&input);
        prop_assert!(output.converged);
        check_numbering(&output.communities, &output.sizes, output.num_communities);
        let graph = CsrGraph::from_edges(nodes as usize, &edges, Direction::Undirected).unwrap();
        for node in 0..nodes {
            let mut counts = vec![0; nodes as usize];
            for &other in graph.successors().row(node) {
                counts[output.communities[other as usize] as usize] += 1;
            }
            let own = output.communities[node as usize] as usize;
            prop_assert_eq!(Some(&counts[own]), counts.iter().max());
        }
        let communities = output.communities.clone();
        let modularity = score(&ModularityScoreInput { communities, ..ModularityScoreInput::from_edges(nodes.into(), edges) });
        prop_assert_eq!(output.modularity, modularity.modularity);
    }

    #[test]
    fn louvain_communities_are_no_worse_than_single_nodes(
        (nodes, edges, _) in graphs(),
        seed in any::<u64>(),
        resolution in 0.0..3.0,
    ) {
        let weight = |edge: u32| (edge.wrapping_mul(seed as u32 | 1) >> 27) as f32 / 3.0;
        let weights: Option<Buffer<f32>> =
            (seed % 2 == 0).then(|| (0..edges.len() as u32).map(weight).collect::<Vec<_>>().into());
        let input = LouvainCommunityInput::from_edges(nodes.into(), edges.clone());
        let output = louvain(&LouvainCommunityInput { seed, resolution, weights: weights.clone(), ..input });
        check_numbering(&output.communities, &output.sizes, output.num_communities);
        let of = |communities: Vec<u32>| {
            let (communities, weights) = (communities.into(), weights.clone());
            let input = ModularityScoreInput::from_edges(nodes.into(), edges.clone());
            score(&ModularityScoreInput { communities, resolution, weights, ..input }).modularity
        };
        prop_assert_eq!(output.modularity, of(output.communities.to_vec()));
        prop_assert!(output.modularity >= of((0..nodes).collect()));
        prop_assert!(output.levels >= 1 && output.iterations >= output.levels);
        // Communities have edges within, or a single node.
        for (node, &community) in (0..).zip(output.communities.iter()) {
            let joins = |&&[a, b]: &&[u32; 2]| a != b && (a == node || b == node);
            let is_own = |other: u32| output.communities[other as usize] == community;
            let inner = edges.iter().filter(joins).filter(|[a, b]| is_own(*a) && is_own(*b)).count();
            prop_assert!(inner > 0 || output.sizes[community as usize] == 1);
        }
    }
}
