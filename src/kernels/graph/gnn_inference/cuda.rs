//! The network on CUDA, layer by layer. `gnn_inference.cu` describes what its entries take.

use super::layers::{Layer, LayerShape};
use super::{Aggregation, GnnInferenceInput, GnnInferenceOutput};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::device::gemm::{self, Epilogue, Matrix};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::neural_network::activation::{Activation, LEAKY_SLOPE};
use crate::kernels::graph::neural_network::rows::EPSILON;
use crate::kernels::graph::neural_network::rows_cuda::{self, DeviceRows, LaneShape};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(super) static MODULE: Module = Module::embedded(device_code!("graph/gnn-inference"));

/// Blocks of a launch with a warp for each row that whole rows are changed by.
const ROW_BLOCKS: u32 = 4096;

/// The widths of the arrays that all layers share, with rows that begin at multiples of four numbers.
#[derive(Default)]
struct SharedWidths {
    /// Between the two steps of a layer.
    steps: u64,
    /// Of the rows of all layers but the last, and how many of them there are at a time.
    layers: u64,
    layer_arrays: u64,
    /// Of the partial sums of long rows.
    partials: u64,
}

impl SharedWidths {
    fn of(layers: impl Iterator<Item = LayerShape>) -> Self {
        let mut widths = Self::default();
        let mut layers = layers.peekable();
        while let Some(layer) = layers.next() {
            let aggregated = layer.aggregated_width().next_multiple_of(4) as u64;
            widths.steps = widths.steps.max(aggregated);
            widths.partials = widths.partials.max(aggregated);
            if layers.peek().is_some() {
                widths.layers = widths.layers.max(layer.outputs.next_multiple_of(4) as u64);
                widths.layer_arrays = (widths.layer_arrays + 1).min(2);
            }
        }
        widths
    }
}

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &GnnInferenceInput) -> u64 {
    let (nodes, arcs) = input.graph_input().claimed_size();
    let widths = SharedWidths::of(input.claimed_layers());
    let outputs = input.layer_sizes.last().map_or(0, |&width| u64::from(width));
    let copies = if input.return_probabilities { 2 } else { 1 };
    // Of each node also the inverse root of its degree and the prediction.
    let width = widths.steps + widths.layers * widths.layer_arrays + outputs * copies + 2;
    let partials = rows_cuda::max_pieces(arcs).saturating_mul(widths.partials);
    let biases = input.layer_biases.as_ref().map_or(0, |biases| biases.len());
    let given = (input.node_features.len() + input.layer_weights.len() + biases) as u64;
    let numbers = nodes.saturating_mul(width).saturating_add(partials).saturating_add(given);
    numbers.saturating_mul(4).saturating_add(rows_cuda::device_memory(nodes, arcs))
}

/// Computes the output of a valid input. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn infer(
    input: &GnnInferenceInput,
    graph: &CsrGraph,
    cuda: &mut LaunchContext<'_>,
) -> Result<GnnInferenceOutput, KernelError> {
    let network = Network::new(input, graph, cuda)?;
    let layers = input.layers();
    cuda.context().set_steps(layers.len() as u64);
    let nodes = network.rows.rows;
    let features = cuda.input(&input.node_features)?;
    let mut rows = Matrix::new(features, nodes, layers[0].shape.inputs as u32);
    for (index, layer) in layers.iter().enumerate() {
        let outputs = layer.shape.outputs as u32;
        let out = if index + 1 < layers.len() {
            Matrix::padded(network.layer_arrays[index % network.layer_arrays.len()], nodes, outputs)
        } else {
            Matrix::new(cuda.alloc(nodes as usize * outputs as usize)?, nodes, outputs)
        };
        network.run_layer(layer, &rows, &out, cuda)?;
        rows = out;
        cuda.context().advance(1);
    }
    let (probabilities, predictions) = network.softmax(input, &rows, cuda)?;
    Ok(GnnInferenceOutput { embeddings: cuda.download(&rows.numbers)?, probabilities, predictions })
}

/// The network on the device, and arrays that all layers share.
struct Network {
    aggregation: Aggregation,
    has_self_loops: u32,
    rows: DeviceRows,
    weights: DeviceBuffer<f32>,
    biases: Option<DeviceBuffer<f32>>,
    /// 1 / sqrt(number of neighbours) of each node, where the aggregation is `gcn`.
    inverse_roots: Option<DeviceBuffer<f32>>,
    /// The rows between the two steps of a layer.
    steps: DeviceBuffer<f32>,
    /// The rows of layers, which alternate.
    layer_arrays: Vec<DeviceBuffer<f32>>,
    partials: DeviceBuffer<f32>,
    cancel: CancelSignal,
}

impl Network {
    fn new(input: &GnnInferenceInput, graph: &CsrGraph, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let rows = DeviceRows::new(graph.predecessors(), &MODULE, "gnn_list_long_rows", cuda)?;
        let has_self_loops = u32::from(input.add_self_loops);
        let nodes = graph.num_nodes();
        let inverse_roots = if input.aggregation == Aggregation::Gcn {
            let roots = cuda.alloc::<f32>(nodes)?;
            let args: [&dyn Arg; 4] = [&rows.rows, &rows.offsets, &has_self_loops, &roots];
            cuda.launch(&MODULE, "gnn_inverse_roots", Launch::elements(nodes, u32::MAX), &args)?;
            Some(roots)
        } else {
            None
        };
        let widths = SharedWidths::of(input.claimed_layers());
        let partials = rows_cuda::max_pieces(graph.num_arcs() as u64) * widths.partials;
        let array = |width: u64, cuda: &mut LaunchContext<'_>| cuda.alloc(nodes * width as usize);
        Ok(Self {
            aggregation: input.aggregation,
            has_self_loops,
            rows,
            weights: cuda.input(&input.layer_weights)?,
            biases: input.layer_biases.as_ref().map(|biases| cuda.input(biases)).transpose()?,
            inverse_roots,
            steps: array(widths.steps, cuda)?,
            layer_arrays: (0..widths.layer_arrays).map(|_| array(widths.layers, cuda)).collect::<Result<_, _>>()?,
            partials: cuda.alloc(partials as usize)?,
            cancel: CancelSignal::new(cuda)?,
        })
    }

    fn run_layer(
        &self,
        layer: &Layer<'_>,
        rows: &Matrix,
        out: &Matrix,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let LayerShape { inputs, outputs, transforms_first } = layer.shape;
        let weights = self.weights.slice(layer.first_weight..layer.first_weight + inputs * outputs);
        let weights = Matrix::new(weights, inputs as u32, outputs as u32);
        let bias = self.biases.map(|biases| biases.slice(layer.first_bias..layer.first_bias + outputs));
        // The activation comes after the normalization, which takes whole rows.
        let activation = if layer.epilogue.normalize { Activation::None } else { layer.epilogue.activation };
        let epilogue = Epilogue { bias, activation: activation.code(), negative_slope: LEAKY_SLOPE };
        let between = Matrix::padded(self.steps, rows.rows, layer.shape.aggregated_width() as u32);
        if transforms_first {
            gemm::multiply(rows, &weights, &between, &Epilogue::default(), &self.cancel, cuda)?;
            self.aggregate(&between, out, &epilogue, cuda)?;
        } else {
            self.aggregate(rows, &between, &Epilogue::default(), cuda)?;
            gemm::multiply(&between, &weights, out, &epilogue, &self.cancel, cuda)?;
        }
        if layer.epilogue.normalize {
            let code = layer.epilogue.activation.code();
            let args: [&dyn Arg; 7] =
                [&out.rows, &out.columns, &out.stride, &code, &LEAKY_SLOPE, &EPSILON, &out.numbers];
            cuda.launch(&MODULE, "gnn_normalize_rows", each_whole_row(out.rows), &args)?;
        }
        Ok(())
    }

    /// Writes the aggregation of the rows of each node's neighbours to `out`, with the epilogue.
    fn aggregate(
        &self,
        rows: &Matrix,
        out: &Matrix,
        epilogue: &Epilogue,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let shape = LaneShape::of(rows, true);
        let (entry, join) = match (self.aggregation, shape.numbers) {
            (Aggregation::Max, 4) => ("gnn_max_4", "gnn_max_join"),
            (Aggregation::Max, _) => ("gnn_max_1", "gnn_max_join"),
            (_, 4) => ("gnn_sum_4", "gnn_sum_join"),
            _ => ("gnn_sum_1", "gnn_sum_join"),
        };
        let is_mean = u32::from(self.aggregation == Aggregation::Mean);
        let weights: &dyn Arg = self.inverse_roots.as_ref().map_or(&0_u64, |roots| roots);
        let update: [&dyn Arg; 12] = [
            &rows.numbers,
            &rows.stride,
            &rows.columns,
            &self.has_self_loops,
            &is_mean,
            weights,
            epilogue.bias_argument(),
            &epilogue.activation,
            &epilogue.negative_slope,
            &out.numbers,
            &out.stride,
            &self.partials,
        ];
        let csr = self.rows.arguments();
        let lanes: [&dyn Arg; 2] = [&shape.lanes, &self.rows.piece_blocks];
        let cancel: [&dyn Arg; 2] = [&self.cancel.flag, &self.cancel.cancelled];
        let args = [&csr[..], &lanes, &update, &cancel].concat();
        cuda.launch(&MODULE, entry, self.rows.each_row(shape.column_ranges), &args)?;
        match self.rows.each_long_row(rows.columns.div_ceil(32)) {
            Some(launch) => cuda.launch(&MODULE, join, launch, &[&csr[..], &update].concat()),
            None => Ok(()),
        }
    }

    /// Returns the probabilities and the predictions, empty where they are not requested.
    fn softmax(
        &self,
        input: &GnnInferenceInput,
        rows: &Matrix,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(Buffer<f32>, Buffer<u32>), KernelError> {
        let (with_probabilities, with_predictions) = (input.return_probabilities, input.return_predictions);
        if !with_probabilities && !with_predictions {
            return Ok(Default::default());
        }
        let probabilities = with_probabilities.then(|| cuda.alloc::<f32>(rows.numbers.len())).transpose()?;
        let predictions = with_predictions.then(|| cuda.alloc::<u32>(rows.rows as usize)).transpose()?;
        let args: [&dyn Arg; 5] = [
            &rows.rows,
            &rows.columns,
            &rows.numbers,
            probabilities.as_ref().map_or(&0_u64, |buffer| buffer),
            predictions.as_ref().map_or(&0_u64, |buffer| buffer),
        ];
        cuda.launch(&MODULE, "gnn_softmax_rows", each_whole_row(rows.rows), &args)?;
        let probabilities = probabilities.map(|buffer| cuda.download(&buffer)).transpose()?.unwrap_or_default();
        let predictions = predictions.map(|buffer| cuda.download(&buffer)).transpose()?.unwrap_or_default();
        Ok((probabilities, predictions))
    }
}

/// The shape of a launch with a warp for each row.
fn each_whole_row(rows: u32) -> Launch {
    Launch::new(rows.div_ceil(8).min(ROW_BLOCKS), 256)
}
