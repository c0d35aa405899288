//! The network on the CPU, layer by layer, in parallel over nodes.

use std::borrow::Cow;
use std::ops::Range;

use super::aggregate::Aggregator;
use super::layers::Layer;
use super::{GnnInferenceInput, GnnInferenceOutput, outputs};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::neural_network::dense::{PackedMatrix, TASK_ROWS};
use crate::kernels::graph::neural_network::rows::for_each_part;
use crate::kernels::graph::spmv::row_parts;
use crate::service::{KernelError, RunContext};

/// Computes the output of a valid input. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn infer(
    input: &GnnInferenceInput,
    graph: &CsrGraph,
    context: &RunContext<'_>,
) -> Result<GnnInferenceOutput, KernelError> {
    let aggregator = Aggregator::new(graph, input.aggregation, input.add_self_loops, context)?;
    let parts = row_parts(graph.predecessors());
    let layers = input.layers();
    context.set_steps(layers.len() as u64);
    let mut rows = Cow::Borrowed(&*input.node_features);
    for layer in &layers {
        rows = Cow::Owned(run_layer(layer, &rows, &aggregator, &parts, context)?);
        context.advance(1);
    }
    outputs::of_rows(input, rows.into_owned(), context)
}

fn run_layer(
    layer: &Layer<'_>,
    rows: &[f32],
    aggregator: &Aggregator<'_>,
    parts: &[Range<usize>],
    context: &RunContext<'_>,
) -> Result<Vec<f32>, KernelError> {
    let (inputs, outputs) = (layer.shape.inputs, layer.shape.outputs);
    let num_nodes = rows.len() / inputs;
    let weights = PackedMatrix::new(layer.weights, outputs, context)?;
    let mut out = vec![0.0; num_nodes * outputs];
    if layer.shape.transforms_first {
        let mut transformed = vec![0.0; num_nodes * outputs];
        weights.multiply(rows, &mut transformed, context, |_| {})?;
        for_each_part(parts, &mut out, outputs, context, |nodes, out, cancel_check| {
            for (node, out) in nodes.zip(out.chunks_exact_mut(outputs)) {
                aggregator.aggregate(node, &transformed, out, cancel_check)?;
                layer.epilogue.apply(out);
            }
            Ok(())
        })?;
    } else {
        // Some rows are aggregated and then multiplied while they are in the cache.
        for_each_part(parts, &mut out, outputs, context, |nodes, out, cancel_check| {
            let mut aggregated = vec![0.0; nodes.len().min(TASK_ROWS) * inputs];
            for (first, out) in nodes.step_by(TASK_ROWS).zip(out.chunks_mut(TASK_ROWS * outputs)) {
                let aggregated = &mut aggregated[..out.len() / outputs * inputs];
                for (index, row) in aggregated.chunks_exact_mut(inputs).enumerate() {
                    aggregator.aggregate(first + index, rows, row, cancel_check)?;
                }
                weights.multiply_rows(aggregated, out, cancel_check)?;
                out.chunks_exact_mut(outputs).for_each(|row| layer.epilogue.apply(row));
            }
            Ok(())
        })?;
    }
    Ok(out)
}
