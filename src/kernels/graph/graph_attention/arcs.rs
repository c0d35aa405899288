//! The arcs whose weights are returned.

use super::{GraphAttentionInput, GraphAttentionOutput};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::Adjacency;
use crate::service::{Buffer, KernelError, RunContext};

/// Returns the output with the arcs that lead to each node, its self-loop last.
pub(super) fn output(
    input: &GraphAttentionInput,
    predecessors: &Adjacency,
    embeddings: Buffer<f32>,
    weights: Buffer<f32>,
    context: &RunContext<'_>,
) -> Result<GraphAttentionOutput, KernelError> {
    let (mut offsets, mut sources) = (Vec::new(), Vec::new());
    if input.return_attention {
        let nodes = predecessors.row_offsets().len() - 1;
        offsets.reserve_exact(nodes + 1);
        sources.reserve_exact(predecessors.column_indices().len() + if input.add_self_loops { nodes } else { 0 });
        let mut cancel_check = CancelCheck::new(context);
        offsets.push(0);
        for node in 0..nodes as u32 {
            let row = predecessors.row(node);
            cancel_check.spend(1 + row.len() / 16)?;
            sources.extend_from_slice(row);
            sources.extend(input.add_self_loops.then_some(node));
            offsets.push(sources.len() as u32);
        }
    }
    Ok(GraphAttentionOutput {
        embeddings,
        attention_offsets: offsets.into(),
        attention_sources: sources.into(),
        attention_weights: weights,
    })
}
