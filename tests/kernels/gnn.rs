//! Neural networks on graphs: against scipy, and against their laws.

use std::sync::Arc;

use proptest::prelude::*;
use tower_kernels::kernels::graph::csr::{CsrGraph, Direction};
use tower_kernels::kernels::graph::gnn_inference::{Aggregation, GnnInference, GnnInferenceInput};
use tower_kernels::kernels::graph::graph_attention::{GraphAttention, GraphAttentionInput, Variant};
use tower_kernels::service::{DType, Kernel, KernelRegistry, RunContext};

use crate::gnn_goldens::{check_attention, check_inference, goldens};
use crate::service::{ask, read, run as ask_payload, tensor, tensors};

fn run<K: Kernel>(kernel: &K, input: &K::Input) -> K::Output {
    kernel.validate(input).unwrap();
    kernel.run_cpu(input, &RunContext::detached()).unwrap()
}

#[tokio::test]
async fn convolutions_are_those_of_scipy() {
    for golden in goldens("gnn_inference") {
        check_inference(&ask("graph/gnn-inference", &golden["input"].to_string()).await.unwrap(), &golden);
    }
}

#[tokio::test]
async fn attention_is_that_of_its_formulas() {
    for golden in goldens("graph_attention") {
        check_attention(&ask("graph/graph-attention", &golden["input"].to_string()).await.unwrap(), &golden);
    }
}

/// A network of two layers, with numbers that are all different.
fn network(num_nodes: u64, edges: Vec<[u32; 2]>) -> GnnInferenceInput {
    let wave = |len: usize, pace: f32| (0..len).map(|index| (index as f32 * pace).sin()).collect::<Vec<_>>();
    GnnInferenceInput {
        node_features: wave(3 * num_nodes as usize, 0.7).into(),
        layer_sizes: vec![3, 5, 2].into(),
        layer_weights: wave(15 + 10, 1.3).into(),
        layer_biases: Some(wave(5 + 2, 2.1).into()),
        ..GnnInferenceInput::from_edges(num_nodes, edges)
    }
}

/// A layer of two heads, with numbers that are all different.
fn attention(num_nodes: u64, edges: Vec<[u32; 2]>, variant: Variant) -> GraphAttentionInput {
    let wave = |len: usize, pace: f32| (0..len).map(|index| (index as f32 * pace).sin()).collect::<Vec<_>>();
    GraphAttentionInput {
        node_features: wave(3 * num_nodes as usize, 0.7).into(),
        num_heads: 2,
        head_dim: 4,
        value_weights: wave(3 * 8, 1.3).into(),
        attention_vectors: wave(if variant == Variant::Gat { 16 } else { 8 }, 2.1).into(),
        variant,
        return_attention: true,
        ..GraphAttentionInput::from_edges(num_nodes, edges)
    }
}

#[tokio::test]
async fn a_stored_graph_and_tensors_give_what_fields_give() {
    let registry = Arc::new(KernelRegistry::new());
    tower_kernels::kernels::register_all(&registry).unwrap();
    let edges = vec![[0, 1], [1, 2], [3, 1], [4, 0]];
    let graph = CsrGraph::from_edges(5, &edges, Direction::Undirected).unwrap();
    let operand = registry.operands().put("graph", graph).unwrap();
    let input = network(5, edges);
    let expected = run(&GnnInference, &input).embeddings;
    let stored = GnnInferenceInput { graph: Some(operand), num_nodes: None, edges: None, ..input.clone() };
    assert_eq!(run(&GnnInference, &stored).embeddings, expected);
    let floats = |numbers: &[f32]| tensor(DType::F32, &[numbers.len()], numbers);
    let payload = tensors([
        ("num_nodes", tensor(DType::U64, &[], &[5_u64])),
        ("edges", tensor(DType::U32, &[4, 2], &[0_u32, 1, 1, 2, 3, 1, 4, 0])),
        ("node_features", floats(&input.node_features)),
        ("layer_sizes", tensor(DType::U32, &[3], &[3_u32, 5, 2])),
        ("layer_weights", floats(&input.layer_weights)),
        ("layer_biases", floats(&input.layer_biases.unwrap())),
        ("aggregation", tensor(DType::U8, &[3], b"gcn")),
    ]);
    let output = ask_payload("graph/gnn-inference", payload).await.unwrap();
    assert_eq!(read::<f32>(&output, "embeddings", DType::F32), expected.to_vec());
}

#[test]
fn messages_follow_the_edges() {
    let input = GnnInferenceInput {
        node_features: vec![1.0, 2.0, 4.0].into(),
        layer_sizes: vec![1, 1].into(),
        layer_weights: vec![1.0].into(),
        aggregation: Aggregation::Sum,
        add_self_loops: false,
        directed: true,
        // A repeated edge and a self-loop, which do not count.
        ..GnnInferenceInput::from_edges(3, vec![[0, 1], [2, 1], [2, 1], [1, 1]])
    };
    assert_eq!(run(&GnnInference, &input).embeddings[..], [0.0, 5.0, 0.0]);
    let input = GnnInferenceInput { add_self_loops: true, ..input };
    assert_eq!(run(&GnnInference, &input).embeddings[..], [1.0, 7.0, 4.0]);
    let input = GnnInferenceInput { directed: false, aggregation: Aggregation::Max, ..input };
    assert_eq!(run(&GnnInference, &input).embeddings[..], [2.0, 4.0, 4.0]);
}

#[test]
fn invalid_fields_are_named() {
    let valid = || network(2, vec![[0, 1]]);
    GnnInference.validate(&valid()).unwrap();
    for (input, field) in [
        (GnnInferenceInput { layer_sizes: vec![3].into(), ..valid() }, "layer_sizes"),
        (GnnInferenceInput { layer_sizes: vec![1; 66].into(), ..valid() }, "layer_sizes"),
        (GnnInferenceInput { layer_sizes: vec![3, 0, 2].into(), ..valid() }, "layer_sizes[1]"),
        (GnnInferenceInput { layer_sizes: vec![3, 5, 16_385].into(), ..valid() }, "layer_sizes[2]"),
        (GnnInferenceInput { node_features: vec![0.0; 5].into(), ..valid() }, "node_features"),
        (GnnInferenceInput { layer_weights: vec![0.0; 24].into(), ..valid() }, "layer_weights"),
        (GnnInferenceInput { layer_biases: Some(vec![0.0; 8].into()), ..valid() }, "layer_biases"),
        (GnnInferenceInput { edges: Some(vec![[0, 2]]), ..valid() }, "edges[0][1]"),
    ] {
        assert_eq!(GnnInference.validate(&input).unwrap_err().field, field);
    }
    let valid = || attention(2, vec![[0, 1]], Variant::GatV2);
    GraphAttention.validate(&valid()).unwrap();
    for (input, field) in [
        (GraphAttentionInput { num_heads: 0, ..valid() }, "num_heads"),
        (GraphAttentionInput { head_dim: 0, ..valid() }, "head_dim"),
        (GraphAttentionInput { num_heads: 1 << 10, head_dim: 1 << 10, ..valid() }, "head_dim"),
        (GraphAttentionInput { num_heads: u32::MAX, ..valid() }, "num_heads"),
        (GraphAttentionInput { value_weights: vec![0.0; 23].into(), ..valid() }, "value_weights"),
        (GraphAttentionInput { value_weights: vec![].into(), ..valid() }, "value_weights"),
        (GraphAttentionInput { node_features: vec![0.0; 7].into(), ..valid() }, "node_features"),
        (GraphAttentionInput { attention_vectors: vec![0.0; 16].into(), ..valid() }, "attention_vectors"),
        (GraphAttentionInput { query_weights: Some(vec![0.0; 8].into()), ..valid() }, "query_weights"),
        (GraphAttentionInput { bias: Some(vec![0.0; 4].into()), ..valid() }, "bias"),
        (GraphAttentionInput { concat_heads: false, bias: Some(vec![0.0; 8].into()), ..valid() }, "bias"),
        (GraphAttentionInput { negative_slope: 1.5, ..valid() }, "negative_slope"),
        (GraphAttentionInput { negative_slope: f64::NAN, ..valid() }, "negative_slope"),
    ] {
        assert_eq!(GraphAttention.validate(&input).unwrap_err().field, field);
    }
    let input = attention(2, vec![[0, 1]], Variant::Gat);
    let input = GraphAttentionInput { query_weights: Some(vec![0.0; 24].into()), ..input };
    assert_eq!(GraphAttention.validate(&input).unwrap_err().field, "query_weights");
}

/// Rows of `width` numbers, with row v moved to `order[v]`.
fn moved(rows: &[f32], width: usize, order: &[u32]) -> Vec<f32> {
    let mut out = vec![0.0; rows.len()];
    for (row, &to) in rows.chunks(width).zip(order) {
        out[to as usize * width..][..width].copy_from_slice(row);
    }
    out
}

fn are_close(found: &[f32], expected: &[f32]) -> bool {
    let is_close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 * (1.0 + b.abs());
    found.len() == expected.len() && found.iter().zip(expected).all(is_close)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Other numbers for the nodes move the rows of the output, and nothing else.
    #[test]
    fn outputs_move_with_the_nodes(
        (nodes, edges, order) in (1_usize..40).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            let edges = prop::collection::vec([node.clone(), node.clone()], 0..4 * nodes);
            (Just(nodes), edges, Just(node.collect::<Vec<u32>>()).prop_shuffle())
        }),
        directed: bool,
        add_self_loops: bool,
    ) {
        let relabelled: Vec<[u32; 2]> = edges.iter().map(|edge| edge.map(|node| order[node as usize])).collect();
        let count = nodes as u64;
        for aggregation in [Aggregation::Sum, Aggregation::Mean, Aggregation::Max, Aggregation::Gcn] {
            let of = |edges: &Vec<[u32; 2]>| GnnInferenceInput {
                directed, add_self_loops, aggregation, ..network(count, edges.clone())
            };
            let before = of(&edges);
            let node_features = moved(&before.node_features, 3, &order).into();
            let after = run(&GnnInference, &GnnInferenceInput { node_features, ..of(&relabelled) }).embeddings;
            let before = run(&GnnInference, &before).embeddings;
            prop_assert!(are_close(&after, &moved(&before, 2, &order)), "{:?}", aggregation);
        }
        for variant in [Variant::Gat, Variant::GatV2] {
            let of = |edges: &Vec<[u32; 2]>| GraphAttentionInput {
                directed, add_self_loops, ..attention(count, edges.clone(), variant)
            };
            let before = of(&edges);
            let node_features = moved(&before.node_features, 3, &order).into();
            let after = run(&GraphAttention, &GraphAttentionInput { node_features, ..of(&relabelled) }).embeddings;
            let before = run(&GraphAttention, &before).embeddings;
            prop_assert!(are_close(&after, &moved(&before, 8, &order)), "{:?}", variant);
        }
    }

    #[test]
    fn weights_and_probabilities_add_up_to_1(
        (nodes, edges) in (1_usize..40).prop_flat_map(|nodes| {
            let node = 0..nodes as u32;
            (Just(nodes as u64), prop::collection::vec([node.clone(), node], 0..4 * nodes))
        }),
        add_self_loops: bool,
    ) {
        for variant in [Variant::Gat, Variant::GatV2] {
            let input = GraphAttentionInput { add_self_loops, ..attention(nodes, edges.clone(), variant) };
            let output = run(&GraphAttention, &input);
            for arcs in output.attention_offsets.windows(2).filter(|arcs| arcs[0] < arcs[1]) {
                for head in 0..2 {
                    let weights = (arcs[0]..arcs[1]).map(|arc| output.attention_weights[2 * arc as usize + head]);
                    prop_assert!(weights.clone().all(|weight| (0.0..=1.0).contains(&weight)));
                    prop_assert!((weights.sum::<f32>() - 1.0).abs() < 1e-5);
                }
            }
        }
        let input = GnnInferenceInput { return_probabilities: true, ..network(nodes, edges) };
        for row in run(&GnnInference, &input).probabilities.chunks(2) {
            prop_assert!((row.iter().sum::<f32>() - 1.0).abs() < 1e-5);
        }
    }
}
