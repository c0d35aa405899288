//! `graph/gnn-inference`: the output of a graph neural network, whose layers aggregate over neighbours.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput); n nodes |
//! | `node_features` | `f32`, `[n * d0]` | the features of the nodes, node after node |
//! | `layer_sizes` | `u32`, `[k + 1]` | d0, then the width d1, d2, ... of each of the k layers; 1 to 16384 each, at most 64 layers |
//! | `layer_weights` | `f32`, `[d0 * d1 + d1 * d2 + ...]` | the matrices `[d0, d1]`, `[d1, d2]`, ..., row after row |
//! | `layer_biases` | `f32`, `[d1 + d2 + ...]`, optional | the biases of the layers |
//! | `aggregation` | `sum`, `mean`, `max` or `gcn` (default) | over a node's neighbours |
//! | `activation` | see [`Activation`], default `relu` | of all layers but the last |
//! | `output_activation` | see [`Activation`], default `none` | of the last layer |
//! | `add_self_loops` | bool, default true | whether a node is one of its own neighbours |
//! | `layer_norm` | bool, default false | normalizes the rows of all layers but the last |
//! | `return_probabilities`, `return_predictions` | bool, default false | |
//! | out: `embeddings` | `f32`, `[n * dk]` | the rows of the last layer |
//! | out: `probabilities` | `f32`, `[n * dk]` | the softmax of each row; empty unless requested |
//! | out: `predictions` | `u32`, `[n]` | the index of the largest number of each row; empty unless requested |
//!
//! A layer computes `activation(norm(aggregate(X) W + b))`. Messages follow the edges: the neighbours of a node are those
//! that edges come from, and where the graph is undirected all adjacent ones. Repeated edges count once, and self-loops of
//! the graph do not count; `add_self_loops` adds one to each node. `sum`, `mean` and `max` are those of the
//! neighbours' rows, 0 without neighbours. `gcn` is the symmetric normalization `D^-1/2 (A + I) D^-1/2` of Kipf and
//! Welling, *Semi-supervised classification with graph convolutional networks* (2017): a sum in which the row of node u
//! counts `1 / sqrt(d(u) d(v))` for node v, where d is the number of neighbours, the node itself included where there are
//! self-loops. `norm` subtracts the mean of a row and divides by its standard deviation, with 1e-5 added to the variance
//! and without gain and bias (Ba, Kiros and Hinton, *Layer normalization*, 2016). The largest number of a row is the first
//! of equal ones.
//!
//! All arithmetic is in `f32`, with products that are not rounded. What is linear is done in the order that moves less:
//! the rows are multiplied by the weights first where these make them narrower. A layer takes `arcs * min(d_in, d_out)`
//! additions (`arcs * d_in` for `max`) and `n d_in d_out` products. NaN and infinities are not rejected: they reach the
//! rows that depend on them. Outputs have the same bits on every run of a backend.
//!
//! Requests on one graph do not share runs, as they would gain little: the products are of each request's own rows, and of
//! what is read for an arc, its index alone would be read once, 4 bytes of 260 where rows have 64 numbers.
//!
//! # Errors
//! An invalid graph; a size that is out of range; an array whose length does not follow from the sizes. The error names
//! the field.

mod aggregate;
mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod layers;
mod outputs;

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

/// The most layers.
pub const MAX_LAYERS: usize = 64;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct GnnInference;

/// How the rows of a node's neighbours are combined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Aggregation {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest of each of their numbers.
    Max,
    /// Their sum, each divided by the roots of the numbers of neighbours of both nodes.
    #[default]
    Gcn,
}

graph_input! {
    examples = [
        {
            "num_nodes": 3, "edges": [[0, 1], [1, 2]], "node_features": [1.0, 0.0, 0.0, 1.0, 1.0, 1.0],
            "layer_sizes": [2, 2], "layer_weights": [1.0, -1.0, 0.5, 2.0], "layer_biases": [0.0, 0.5],
            "return_probabilities": true, "return_predictions": true,
        },
        {
            "row_offsets": [0, 1, 2], "column_indices": [1, 0], "node_features": [1.0, 2.0], "layer_sizes": [1, 2, 1],
            "layer_weights": [0.5, -0.5, 1.0, 1.0], "aggregation": "mean", "activation": "tanh",
        },
    ];
    /// The input of `graph/gnn-inference`.
    pub struct GnnInferenceInput {
        /// The features of the nodes: `layer_sizes[0]` numbers of each node, node after node.
        pub node_features: Buffer<f32> = Buffer::default(),
        /// The number of features of a node, and then the width of each layer.
        pub layer_sizes: Buffer<u32> = Buffer::default(),
        /// The weights of all layers: of each a matrix, row after row, of as many rows as its input is wide.
        pub layer_weights: Buffer<f32> = Buffer::default(),
        /// The biases of all layers, one layer after the other.
        pub layer_biases: Option<Buffer<f32>> = None,
        /// How the rows of a node's neighbours are combined.
        pub aggregation: Aggregation = Aggregation::Gcn,
        /// The activation function of all layers but the last.
        pub activation: Activation = Activation::Relu,
        /// The activation function of the last layer.
        pub output_activation: Activation = Activation::None,
        /// Whether each node is one of its own neighbours.
        pub add_self_loops: bool = true,
        /// Whether the rows of all layers but the last are normalized before the activation.
        pub layer_norm: bool = false,
        /// Whether the softmax of each row is returned.
        pub return_probabilities: bool = false,
        /// Whether the index of the largest number of each row is returned.
        pub return_predictions: bool = false,
    }
}

/// The output of `graph/gnn-inference`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct GnnInferenceOutput {
    /// The rows of the last layer, node after node.
    pub embeddings: Buffer<f32>,
    /// The softmax of each row; empty unless requested.
    pub probabilities: Buffer<f32>,
    /// The index of the largest number of each row; empty unless requested.
    pub predictions: Buffer<u32>,
}

impl Kernel for GnnInference {
    type Input = GnnInferenceInput;
    type Output = GnnInferenceOutput;

    fn info(&self) -> KernelInfo {
        let description = "The output of a graph neural network, such as a GCN, for all nodes of a graph.";
        KernelInfo::new("graph/gnn-inference", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &GnnInferenceInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        input.check_layers(num_nodes)
    }

    fn cost(&self, input: &GnnInferenceInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let (mut bytes, mut operations) = (graph.load_bytes(), 2_000_u64);
        for layer in input.claimed_layers() {
            let [inputs, outputs] = [layer.inputs, layer.outputs].map(|width| width as u64);
            let aggregated = arcs.saturating_mul(layer.aggregated_width() as u64);
            let rows = nodes.saturating_mul(inputs.saturating_add(outputs));
            let products = nodes.saturating_mul(inputs).saturating_mul(outputs);
            bytes = bytes.saturating_add(aggregated.saturating_add(rows).saturating_mul(4));
            operations = operations.saturating_add(aggregated.saturating_add(products).saturating_mul(2));
        }
        Cost { bytes, operations, device_memory: device_memory(input) }
    }

    fn footprint(&self, input: &GnnInferenceInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let rows = |width| rows_memory(&graph, width);
        let outputs = input.layer_sizes.last().map_or(0, |&width| u64::from(width));
        let copies = if input.return_probabilities { 2 } else { 1 };
        let predictions = if input.return_predictions { Footprint::of_array::<u32>(nodes) } else { 0 };
        // The rows before and after a layer, those between its two steps, and the weights in panels.
        let widest = input.layer_sizes.iter().skip(1).max().map_or(0, |&width| u64::from(width));
        let weights = Footprint::of_array::<f32>(input.layer_weights.len() as u64).saturating_mul(2);
        Some(Footprint {
            output: rows(outputs).saturating_mul(copies).saturating_add(predictions),
            scratch: scratch(&graph, [rows(widest).saturating_mul(3), rows(1), weights]),
        })
    }

    fn operands(&self, input: &GnnInferenceInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &GnnInferenceInput, context: &RunContext<'_>) -> Result<GnnInferenceOutput, KernelError> {
        let graph = input.graph_input().load_with_predecessors(context)?;
        cpu::infer(input, &graph, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &crate::kernels::device::gemm::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &GnnInferenceInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<GnnInferenceOutput, KernelError> {
        let graph = input.graph_input().load_with_predecessors(cuda.context())?;
        cuda::infer(input, &graph, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &GnnInferenceInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GnnInferenceInput) -> u64 {
    0
}
