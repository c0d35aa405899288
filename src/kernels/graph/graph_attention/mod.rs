//! `graph/graph-attention`: a layer of a graph attention network, GAT or GATv2, with several heads.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput); n nodes |
//! | `node_features` | `f32`, `[n * d]` | the features of the nodes, node after node |
//! | `num_heads` | integer, default 1 | h |
//! | `head_dim` | integer | f, the width of a head; `h * f` is at most 16384 |
//! | `value_weights` | `f32`, `[d * h * f]` | the matrix W, `[d, h * f]`, row after row; it also says what d is |
//! | `attention_vectors` | `f32`, `[h * 2f]` or `[h * f]` | of each head the vector a; of GAT first the half for the target of an edge, then that for its source |
//! | `variant` | `gat` (default) or `gatv2` | |
//! | `query_weights` | `f32`, `[d * h * f]`, optional | only for `gatv2`: the matrix for targets; W if it is left out |
//! | `bias` | `f32`, `[h * f]` or `[f]`, optional | added to the rows of the output |
//! | `concat_heads` | bool, default true | whether the heads are put side by side, and not averaged |
//! | `negative_slope` | `f64`, default 0.2, from 0 to 1 | of the leaky rectifier of the scores |
//! | `add_self_loops` | bool, default true | whether a node attends to itself |
//! | `activation` | see [`Activation`], default `none` | of the output |
//! | `return_attention` | bool, default false | |
//! | out: `embeddings` | `f32`, `[n * h * f]` or `[n * f]` | the rows of the nodes |
//! | out: `attention_offsets` | `u32`, `[n + 1]` | where the arcs that lead to each node begin; this and the next two are empty unless requested |
//! | out: `attention_sources` | `u32`, `[arcs]` | the node that each arc comes from |
//! | out: `attention_weights` | `f32`, `[arcs * h]` | the weights of each arc, one for each head; those that lead to a node add up to 1 |
//!
//! A head computes for node v the sum of `alpha(u, v) W x(u)` over its neighbours u: the nodes that edges to v come from,
//! or all adjacent ones where the graph is undirected. Repeated edges count once, and self-loops of the graph do not
//! count; `add_self_loops` adds one to each node. `alpha` is the softmax over u of the scores `e(u, v)`. In GAT (Velickovic,
//! Cucurull, Casanova, Romero, Lio and Bengio, *Graph attention networks*, 2018) a score is
//! `leaky_relu(a . [W x(v) || W x(u)])`, and in GATv2 (Brody, Alon and Yahav, *How attentive are graph attention networks?*,
//! 2022) it is `a . leaky_relu(Q x(v) + W x(u))`. A node without neighbours has a row of zeros, before the bias. The arcs of
//! a node are in the order of their sources, with its self-loop last.
//!
//! All arithmetic is in `f32`, with products that are not rounded. Scores are relative to the largest one, so that no
//! exponential overflows. A run takes `n d h f` products, and `h f` operations and `h` exponentials for each arc. NaN and infinities are not rejected: they reach the rows that depend on them.
//! Outputs have the same bits on every run of a backend.
//!
//! Requests on one graph do not share runs, as they would gain little: products, scores and their softmax are of each request's
//! own rows, and of what is read for an arc, its index alone would be read once, 4 bytes of more than 260 where `h * f` is 64.
//!
//! # Errors
//! An invalid graph; an option that is out of range; an array whose length does not follow from the others; more than
//! 2^32 - 1 arcs with their self-loops, where their weights are requested. The error names the field.

mod arcs;
mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod model;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::graph_input;
use super::neural_network::activation::Activation;
use super::neural_network::{rows_memory, scratch};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct GraphAttention;

/// How the score of an arc is computed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// From a number of the source and one of the target.
    #[default]
    Gat,
    /// From the sum of a row of the source and one of the target.
    GatV2,
}

graph_input! {
    examples = [
        {
            "num_nodes": 3, "edges": [[0, 1], [1, 2]], "node_features": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0], "num_heads": 2,
            "head_dim": 1, "value_weights": [1.0, -1.0, 0.5, 2.0], "attention_vectors": [0.5, 1.0, -0.5, 0.25],
            "return_attention": true,
        },
        {
            "row_offsets": [0, 1, 2], "column_indices": [1, 0], "node_features": [1.0, 2.0], "head_dim": 2,
            "value_weights": [0.5, -0.5], "attention_vectors": [1.0, 1.0], "variant": "gatv2", "activation": "elu",
        },
    ];
    /// The input of `graph/graph-attention`.
    pub struct GraphAttentionInput {
        /// The features of the nodes, node after node.
        pub node_features: Buffer<f32> = Buffer::default(),
        /// The number of heads.
        pub num_heads: u32 = 1,
        /// The width of a head.
        pub head_dim: u32 = 0,
        /// The matrix that makes the values of features, row after row: num_heads * head_dim columns.
        pub value_weights: Buffer<f32> = Buffer::default(),
        /// The attention vector of each head: 2 * head_dim numbers for `gat`, head_dim for `gatv2`.
        pub attention_vectors: Buffer<f32> = Buffer::default(),
        /// How the score of an arc is computed.
        pub variant: Variant = Variant::Gat,
        /// The matrix for the targets of arcs, for `gatv2`.
        pub query_weights: Option<Buffer<f32>> = None,
        /// The bias of the rows of the output.
        pub bias: Option<Buffer<f32>> = None,
        /// Whether the heads are put side by side, and not averaged.
        pub concat_heads: bool = true,
        /// The slope of the scores' leaky rectifier for negative numbers, from 0 to 1.
        pub negative_slope: f64 = 0.2,
        /// Whether each node attends to itself.
        pub add_self_loops: bool = true,
        /// The activation function of the output.
        pub activation: Activation = Activation::None,
        /// Whether the attention weights are returned.
        pub return_attention: bool = false,
    }
}

/// The output of `graph/graph-attention`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GraphAttentionOutput {
    /// The rows of the nodes.
    pub embeddings: Buffer<f32>,
    /// Where the arcs that lead to each node begin; empty unless requested.
    pub attention_offsets: Buffer<u32>,
    /// The node that each arc comes from; empty unless requested.
    pub attention_sources: Buffer<u32>,
    /// The weights of each arc, one for each head; empty unless requested.
    pub attention_weights: Buffer<f32>,
}

impl Kernel for GraphAttention {
    type Input = GraphAttentionInput;
    type Output = GraphAttentionOutput;

    fn info(&self) -> KernelInfo {
        let description = "A layer of a graph attention network (GAT or GATv2) for all nodes of a graph.";
        KernelInfo::new("graph/graph-attention", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &GraphAttentionInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        input.check_model(num_nodes)
    }

    fn cost(&self, input: &GraphAttentionInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let (width, heads, arcs) = (input.width(), u64::from(input.num_heads), input.claimed_arcs());
        let passes = if input.variant == Variant::GatV2 { 2 } else { 1 };
        let gathered = arcs.saturating_mul(width).saturating_mul(passes);
        let features = input.node_features.len() as u64;
        let rows = nodes.saturating_mul(width).saturating_mul(3).saturating_add(features);
        let products = features.saturating_mul(width).saturating_mul(passes);
        // An exponential takes some 20 operations.
        let exponentials = arcs.saturating_mul(heads).saturating_mul(20);
        let operations = products.saturating_add(gathered).saturating_mul(2).saturating_add(exponentials);
        Cost {
            bytes: gathered.saturating_add(rows).saturating_mul(4).saturating_add(graph.load_bytes()),
            operations: operations.saturating_add(2_000),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &GraphAttentionInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let rows = |width| rows_memory(&graph, width);
        let (width, heads, arcs) = (input.width(), u64::from(input.num_heads), input.claimed_arcs());
        let outputs = if input.concat_heads { width } else { u64::from(input.head_dim) };
        let attention = if input.return_attention {
            let words = arcs.saturating_mul(heads.saturating_add(1)).saturating_add(nodes).saturating_add(1);
            words.saturating_mul(4)
        } else {
            0
        };
        // Values, the queries of GATv2, the scores of nodes, and the scores of the arcs of a node for each thread.
        let weights = Footprint::of_array::<f32>(input.value_weights.len() as u64).saturating_mul(3);
        let scores = rows(heads.saturating_mul(2)).saturating_add(rows(heads).saturating_mul(16));
        Some(Footprint {
            output: rows(outputs).saturating_add(attention),
            scratch: scratch(&graph, [rows(width).saturating_mul(2), scores, weights]),
        })
    }

    fn operands(&self, input: &GraphAttentionInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &GraphAttentionInput,
        context: &RunContext<'_>,
    ) -> Result<GraphAttentionOutput, KernelError> {
        let graph = input.graph_input().load_with_predecessors(context)?;
        cpu::attend(input, &graph, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &crate::kernels::device::gemm::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &GraphAttentionInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<GraphAttentionOutput, KernelError> {
        let graph = input.graph_input().load_with_predecessors(cuda.context())?;
        cuda::attend(input, &graph, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &GraphAttentionInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GraphAttentionInput) -> u64 {
    0
}
