//! The layer on CUDA. `graph_attention.cu` describes what its entries take.

use super::{GraphAttentionInput, GraphAttentionOutput, Variant, arcs};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::gemm::{self, Epilogue, Matrix};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::neural_network::activation::{Activation, LEAKY_SLOPE};
use crate::kernels::graph::neural_network::rows_cuda::{self, DeviceRows, LaneShape};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/graph-attention"));

/// A null pointer.
const NULL: u64 = 0;
/// The most blocks of a launch with a thread for each of some numbers.
const MAX_BLOCKS: u32 = 1 << 14;

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &GraphAttentionInput) -> u64 {
    let (nodes, graph_arcs) = input.graph_input().claimed_size();
    let (width, heads, arcs) = (input.width(), u64::from(input.num_heads), input.claimed_arcs());
    let padded = width.saturating_add(3);
    let is_v2 = input.variant == Variant::GatV2;
    // Values, queries, the output, and its average.
    let transformed = padded * if is_v2 { 2 } else { 1 };
    let rows = transformed + width + if input.concat_heads { 0 } else { u64::from(input.head_dim) };
    // Scores and norms of nodes, and scores and weights of arcs.
    let of_nodes = 2 * heads * (u64::from(!is_v2) + u64::from(input.return_attention));
    let has_arc_scores = is_v2 && (input.return_attention || !are_rows_enough(input.head_dim));
    let of_arcs = heads * (u64::from(has_arc_scores) + u64::from(input.return_attention));
    let partials = rows_cuda::max_pieces(graph_arcs).saturating_mul(padded + 2 * heads);
    let given = input.node_features.len() + 3 * input.value_weights.len();
    let numbers = nodes
        .saturating_mul(rows + of_nodes)
        .saturating_add(arcs.saturating_mul(of_arcs))
        .saturating_add(partials)
        .saturating_add(given as u64);
    numbers.saturating_mul(4).saturating_add(rows_cuda::device_memory(nodes, graph_arcs))
}

/// Whether the lanes that read a row of this width can add up its score: `RowScores` of `graph_attention.cu`.
fn are_rows_enough(head_width: u32) -> bool {
    head_width.is_power_of_two() && (4..=128).contains(&head_width)
}

/// Computes the output of a valid input. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn attend(
    input: &GraphAttentionInput,
    graph: &CsrGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<GraphAttentionOutput, KernelError> {
    let layer = Layer::new(input, graph, cuda)?;
    let scores = layer.scores(input, cuda)?;
    let norms = input.return_attention.then(|| cuda.alloc::<u64>(graph.num_nodes() * layer.heads as usize));
    let norms = norms.transpose()?;
    let embeddings = layer.add_values(input, &scores, norms.as_ref(), cuda)?;
    let weights = norms.map(|norms| layer.weights(&scores, &norms, cuda)).transpose()?;
    let embeddings = cuda.download(&embeddings)?;
    let weights = weights.map(|weights| cuda.download(&weights)).transpose()?.unwrap_or_default();
    arcs::output(input, graph.predecessors(), embeddings, weights, cuda.context())
}

/// The layer on the device.
struct Layer {
    heads: u32,
    head_width: u32,
    slope: f32,
    has_self_loops: u32,
    num_arcs: usize,
    rows: DeviceRows,
    features: Matrix,
    values: Matrix,
    cancel: CancelSignal,
}

/// How the scores of arcs are computed.
enum Scores {
    /// GAT: from numbers of each node and head as the source of arcs, and as their target.
    Nodes { source: DeviceBuffer<f32>, target: DeviceBuffer<f32> },
    /// GATv2: they are known.
    Arcs(DeviceBuffer<f32>),
    /// GATv2: from rows of the targets and a vector of each head, and stored if the attention weights are wanted.
    Rows { targets: Matrix, vectors: DeviceBuffer<f32>, stored: Option<DeviceBuffer<f32>> },
}

impl Scores {
    /// The arguments of an entry that takes the scores of sources, targets and arcs, of which some are null.
    fn arguments(&self) -> [&dyn Arg; 3] {
        match self {
            Self::Nodes { source, target } => [source, target, &NULL],
            Self::Arcs(scores) | Self::Rows { stored: Some(scores), .. } => [&NULL, &NULL, scores],
            Self::Rows { stored: None, .. } => [&NULL; 3],
        }
    }

    /// The arguments of an entry that computes scores from rows.
    fn row_arguments(&self) -> [&dyn Arg; 3] {
        match self {
            Self::Rows { targets, vectors, stored } => [&targets.numbers, vectors, pointer(stored.as_ref())],
            Self::Nodes { .. } | Self::Arcs(_) => [&NULL; 3],
        }
    }
}

impl Layer {
    fn new(input: &GraphAttentionInput, graph: &CsrGraph, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let rows = DeviceRows::new(graph.predecessors(), &MODULE, "attention_list_long_rows", cuda)?;
        let cancel = CancelSignal::new(cuda)?;
        let features = Matrix::new(cuda.input(&input.node_features)?, rows.rows, input.feature_width() as u32);
        let values = transform(&features, &input.value_weights, &cancel, cuda)?;
        let self_loops = if input.add_self_loops { graph.num_nodes() } else { 0 };
        Ok(Self {
            heads: input.num_heads,
            head_width: input.head_dim,
            slope: input.negative_slope as f32,
            has_self_loops: u32::from(input.add_self_loops),
            num_arcs: graph.num_arcs() + self_loops,
            rows,
            features,
            values,
            cancel,
        })
    }

    fn scores(&self, input: &GraphAttentionInput, cuda: &mut LaunchContext<'_>) -> Result<Scores, KernelError> {
        let vectors = cuda.input(&input.attention_vectors)?;
        if input.variant == Variant::Gat {
            return self.score_nodes(&vectors, cuda);
        }
        let targets = match &input.query_weights {
            Some(weights) => transform(&self.features, weights, &self.cancel, cuda)?,
            None => self.values,
        };
        if !are_rows_enough(input.head_dim) || !vectors.is_aligned_to(16) {
            return self.score_arcs(&vectors, &targets, cuda);
        }
        let stored = input.return_attention.then(|| cuda.alloc(self.num_scores())).transpose()?;
        Ok(Scores::Rows { targets, vectors, stored })
    }

    /// The number of arcs times the number of heads.
    fn num_scores(&self) -> usize {
        self.num_arcs * self.heads as usize
    }

    fn score_nodes(&self, vectors: &DeviceBuffer<f32>, cuda: &mut LaunchContext<'_>) -> Result<Scores, KernelError> {
        let len = self.values.rows as usize * self.heads as usize;
        let [source, target] = [cuda.alloc(len)?, cuda.alloc(len)?];
        let Matrix { numbers, rows, stride, .. } = &self.values;
        let args: [&dyn Arg; 8] = [rows, &self.heads, &self.head_width, numbers, stride, vectors, &source, &target];
        cuda.launch(&MODULE, "attention_node_scores", Launch::elements(len, MAX_BLOCKS), &args)?;
        Ok(Scores::Nodes { source, target })
    }

    fn score_arcs(
        &self,
        vectors: &DeviceBuffer<f32>,
        queries: &Matrix,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Scores, KernelError> {
        let scores = cuda.alloc(self.num_scores())?;
        let lanes = self.head_width.next_power_of_two().min(32);
        let args: [&dyn Arg; 13] = [
            &lanes,
            &self.rows.piece_blocks,
            &self.heads,
            &self.head_width,
            &self.slope,
            &self.values.numbers,
            &queries.numbers,
            &self.values.stride,
            vectors,
            &self.has_self_loops,
            &scores,
            &self.cancel.flag,
            &self.cancel.cancelled,
        ];
        let args = [&self.rows.arguments()[..], &args].concat();
        cuda.launch(&MODULE, "attention_arc_scores", self.rows.each_row(1), &args)?;
        Ok(Scores::Arcs(scores))
    }

    /// Returns the rows of the output, and writes the norms of the softmax of each node and head if they are wanted.
    fn add_values(
        &self,
        input: &GraphAttentionInput,
        scores: &Scores,
        norms: Option<&DeviceBuffer<u64>>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<DeviceBuffer<f32>, KernelError> {
        let (nodes, width) = (self.values.rows as usize, self.values.columns);
        let bias = input.bias.as_ref().map(|bias| cuda.input(bias)).transpose()?;
        let epilogue = Epilogue { bias, activation: input.activation.code(), negative_slope: LEAKY_SLOPE };
        // Those of an average follow from the average.
        let none = Epilogue { activation: Activation::None.code(), ..Epilogue::default() };
        let of_sum = if input.concat_heads { &epilogue } else { &none };
        let out = cuda.alloc::<f32>(nodes * width as usize)?;
        let max_pieces = rows_cuda::max_pieces(self.rows.arcs()) as usize;
        let partials = cuda.alloc::<f32>(max_pieces * width.next_multiple_of(4) as usize)?;
        let partial_norms = cuda.alloc::<u64>(max_pieces * self.heads as usize)?;
        let shape = LaneShape::of(&self.values, self.head_width.is_multiple_of(4));
        let [source, target, arcs] = scores.arguments();
        let [targets, vectors, stored] = scores.row_arguments();
        let update: [&dyn Arg; 19] = [
            &self.heads,
            &self.head_width,
            &self.slope,
            source,
            target,
            arcs,
            &self.values.numbers,
            &self.values.stride,
            &self.has_self_loops,
            targets,
            vectors,
            stored,
            of_sum.bias_argument(),
            &of_sum.activation,
            &of_sum.negative_slope,
            &out,
            pointer(norms),
            &partials,
            &partial_norms,
        ];
        let csr = self.rows.arguments();
        let lanes: [&dyn Arg; 2] = [&shape.lanes, &self.rows.piece_blocks];
        let cancel: [&dyn Arg; 2] = [&self.cancel.flag, &self.cancel.cancelled];
        let (entry, join, join_columns) = match (scores, shape.numbers) {
            (Scores::Rows { .. }, _) => ("attention_sum_rows_4", "attention_join_rows", 128),
            (_, 4) => ("attention_sum_4", "attention_join", 32),
            _ => ("attention_sum_1", "attention_join", 32),
        };
        let args = [&csr[..], &lanes, &update, &cancel].concat();
        cuda.launch(&MODULE, entry, self.rows.each_row(shape.column_ranges), &args)?;
        if let Some(launch) = self.rows.each_long_row(width.div_ceil(join_columns)) {
            cuda.launch(&MODULE, join, launch, &[&csr[..], &update].concat())?;
        }
        if input.concat_heads {
            return Ok(out);
        }
        let mean = cuda.alloc::<f32>(nodes * self.head_width as usize)?;
        let args: [&dyn Arg; 8] = [
            &self.values.rows,
            &self.heads,
            &self.head_width,
            &out,
            epilogue.bias_argument(),
            &epilogue.activation,
            &epilogue.negative_slope,
            &mean,
        ];
        cuda.launch(&MODULE, "attention_mean_heads", Launch::elements(mean.len(), MAX_BLOCKS), &args)?;
        Ok(mean)
    }

    /// Returns the weights of all arcs.
    fn weights(
        &self,
        scores: &Scores,
        norms: &DeviceBuffer<u64>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<DeviceBuffer<f32>, KernelError> {
        let weights = cuda.alloc(self.num_scores())?;
        let [source, target, arcs] = scores.arguments();
        let args: [&dyn Arg; 11] = [
            &self.rows.piece_blocks,
            &self.heads,
            &self.slope,
            source,
            target,
            arcs,
            &self.has_self_loops,
            norms,
            &weights,
            &self.cancel.flag,
            &self.cancel.cancelled,
        ];
        let args = [&self.rows.arguments()[..], &args].concat();
        cuda.launch(&MODULE, "attention_weights", self.rows.each_row(1), &args)?;
        Ok(weights)
    }
}

/// A pointer to an array, or a null pointer.
fn pointer<T: crate::service::Element>(buffer: Option<&DeviceBuffer<T>>) -> &dyn Arg {
    buffer.map_or(&NULL, |buffer| buffer)
}

/// Multiplies the features of all nodes by weights.
fn transform(
    features: &Matrix,
    weights: &Buffer<f32>,
    cancel: &CancelSignal,
    cuda: &mut LaunchContext<'_>,
) -> Result<Matrix, KernelError> {
    let columns = (weights.len() / features.columns as usize) as u32;
    let weights = Matrix::new(cuda.input(weights)?, features.columns, columns);
    let numbers = cuda.alloc(features.rows as usize * columns.next_multiple_of(4) as usize)?;
    let product = Matrix::padded(numbers, features.rows, columns);
    gemm::multiply(features, &weights, &product, &Epilogue::default(), cancel, cuda)?;
    Ok(product)
}
