//! The layer on the CPU, in parallel over nodes.

use std::ops::Range;

use pulp::Arch;
use rayon::prelude::*;

use super::{GraphAttentionInput, GraphAttentionOutput, Variant, arcs};
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::neural_network::activation::leaky;
use crate::kernels::graph::neural_network::dense::PackedMatrix;
use crate::kernels::graph::neural_network::rows::{RowEpilogue, split};
use crate::kernels::graph::spmv::row_parts;
use crate::service::{KernelError, RunContext};

/// Numbers of a row that take as long as the visit of an arc.
const NUMBERS_PER_UNIT: usize = 16;

/// Computes the output of a valid input. The predecessors of the graph are [made](CsrGraph::make_predecessors).
pub(super) fn attend(
    input: &GraphAttentionInput,
    graph: &CsrGraph,
    context: &RunContext<'_>,
) -> Result<GraphAttentionOutput, KernelError> {
    let layer = Layer::new(input, graph.predecessors(), context)?;
    let parts = row_parts(layer.predecessors);
    let out_width = if input.concat_heads { layer.width } else { layer.head_width };
    let mut out = vec![0.0; graph.num_nodes() * out_width];
    let weights_of = |nodes: &Range<usize>| {
        let arcs = layer.first_arc(nodes.end) - layer.first_arc(nodes.start);
        if input.return_attention { arcs * layer.heads } else { 0 }
    };
    let mut weights = vec![0.0; weights_of(&(0..graph.num_nodes()))];
    let out_parts = split(&mut out, parts.iter().map(|nodes| nodes.len() * out_width));
    let weight_parts = split(&mut weights, parts.iter().map(weights_of));
    let epilogue = RowEpilogue { bias: input.bias.as_deref(), normalize: false, activation: input.activation };
    let run = |((nodes, out), mut weights): ((&Range<usize>, &mut [f32]), &mut [f32])| {
        let mut cancel_check = CancelCheck::new(context);
        let (mut scores, mut row) = (Vec::new(), vec![0.0; layer.width]);
        for (node, out) in nodes.clone().zip(out.chunks_exact_mut(out_width)) {
            layer.weigh_arcs(node, &mut scores, &mut cancel_check)?;
            layer.add_values(node, &scores, &mut row, &mut cancel_check)?;
            combine_heads(&row, out);
            epilogue.apply(out);
            if input.return_attention {
                let (of_node, rest) = std::mem::take(&mut weights).split_at_mut(scores.len());
                of_node.copy_from_slice(&scores);
                weights = rest;
            }
        }
        Ok::<_, KernelError>(())
    };
    parts.par_iter().zip(out_parts).zip(weight_parts).try_for_each(run)?;
    arcs::output(input, layer.predecessors, out.into(), weights.into(), context)
}

/// Puts the heads side by side, or averages them where `out` is as wide as one.
fn combine_heads(row: &[f32], out: &mut [f32]) {
    if row.len() == out.len() {
        out.copy_from_slice(row);
        return;
    }
    let heads = row.len() / out.len();
    out.fill(0.0);
    for head in row.chunks_exact(out.len()) {
        out.iter_mut().zip(head).for_each(|(sum, number)| *sum += number);
    }
    out.iter_mut().for_each(|number| *number /= heads as f32);
}

/// How the scores of arcs follow from the rows of their nodes.
enum Scores<'a> {
    /// Numbers of each node and head, as the source and as the target of an arc.
    Nodes { source: Vec<f32>, target: Vec<f32> },
    /// A vector of each head, and a row of each node as the target; those of the values if there is none.
    Rows { vectors: &'a [f32], queries: Option<Vec<f32>> },
}

struct Layer<'a> {
    predecessors: &'a Adjacency,
    has_self_loops: bool,
    heads: usize,
    head_width: usize,
    width: usize,
    slope: f32,
    /// The row of each node.
    values: Vec<f32>,
    scores: Scores<'a>,
    arch: Arch,
}

impl<'a> Layer<'a> {
    fn new(
        input: &'a GraphAttentionInput,
        predecessors: &'a Adjacency,
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let (heads, head_width) = (input.num_heads as usize, input.head_dim as usize);
        let width = heads * head_width;
        let rows = |weights: &[f32]| -> Result<Vec<f32>, KernelError> {
            let mut rows = vec![0.0; input.node_features.len() / input.feature_width() * width];
            let weights = PackedMatrix::new(weights, width, context)?;
            weights.multiply(&input.node_features, &mut rows, context, |_| {})?;
            Ok(rows)
        };
        let values = rows(&input.value_weights)?;
        let arch = Arch::new();
        let vectors = &*input.attention_vectors;
        let scores = match input.variant {
            Variant::Gat => {
                let [target, source] = [0, 1].map(|half| {
                    let score = |(head, row): (usize, &[f32])| {
                        let vector = &vectors[(2 * (head % heads) + half) * head_width..][..head_width];
                        arch.dispatch(|| sum_of(row.iter().zip(vector).map(|(x, a)| x * a)))
                    };
                    values.par_chunks_exact(head_width).with_min_len(1 << 10).enumerate().map(score).collect()
                });
                Scores::Nodes { source, target }
            }
            Variant::GatV2 => {
                let queries = input.query_weights.as_deref().map(rows).transpose()?;
                Scores::Rows { vectors, queries }
            }
        };
        context.check()?;
        let (slope, has_self_loops) = (input.negative_slope as f32, input.add_self_loops);
        Ok(Self { predecessors, has_self_loops, heads, head_width, width, slope, values, scores, arch })
    }

    /// The arcs, with self-loops, that lead to nodes before this one.
    fn first_arc(&self, node: usize) -> usize {
        self.predecessors.row_offsets()[node] as usize + if self.has_self_loops { node } else { 0 }
    }

    /// The sources of the arcs that lead to a node.
    fn sources(&self, node: usize) -> impl Iterator<Item = usize> + use<'a> {
        let own = self.has_self_loops.then_some(node);
        self.predecessors.row(node as u32).iter().map(|&source| source as usize).chain(own)
    }

    fn head<'r>(&self, rows: &'r [f32], node: usize, head: usize) -> &'r [f32] {
        &rows[node * self.width + head * self.head_width..][..self.head_width]
    }

    /// The score of an arc before the softmax.
    fn score(&self, source: usize, target: usize, head: usize) -> f32 {
        match &self.scores {
            Scores::Nodes { source: of_sources, target: of_targets } => {
                let [source, target] = [source, target].map(|node| node * self.heads + head);
                leaky(of_sources[source] + of_targets[target], self.slope)
            }
            Scores::Rows { vectors, queries } => {
                let value = self.head(&self.values, source, head);
                let query = self.head(queries.as_ref().unwrap_or(&self.values), target, head);
                let vector = &vectors[head * self.head_width..][..self.head_width];
                let terms = value.iter().zip(query).zip(vector);
                self.arch.dispatch(|| sum_of(terms.map(|((value, query), a)| a * leaky(value + query, self.slope))))
            }
        }
    }

    /// Replaces `weights` by the attention weights of the arcs that lead to a node, those of all heads for each arc.
    fn weigh_arcs(
        &self,
        node: usize,
        weights: &mut Vec<f32>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        weights.clear();
        let is_by_row = matches!(self.scores, Scores::Rows { .. });
        let units = self.heads + if is_by_row { self.width.div_ceil(NUMBERS_PER_UNIT) } else { 0 };
        for source in self.sources(node) {
            cancel_check.spend(units)?;
            weights.extend((0..self.heads).map(|head| self.score(source, node, head)));
        }
        for head in 0..self.heads {
            cancel_check.spend(weights.len() / self.heads * 4)?;
            let of_head = || weights.iter().skip(head).step_by(self.heads);
            let most = of_head().copied().fold(f32::NEG_INFINITY, f32::max);
            let mut total = 0.0;
            for weight in weights.iter_mut().skip(head).step_by(self.heads) {
                *weight = (*weight - most).exp();
                total += *weight;
            }
            weights.iter_mut().skip(head).step_by(self.heads).for_each(|weight| *weight /= total);
        }
        Ok(())
    }

    /// Writes the sum of the values of the sources of a node's arcs to `row`, with these weights.
    fn add_values(
        &self,
        node: usize,
        weights: &[f32],
        row: &mut [f32],
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        row.fill(0.0);
        for (source, weights) in self.sources(node).zip(weights.chunks_exact(self.heads)) {
            cancel_check.spend(self.width.div_ceil(NUMBERS_PER_UNIT))?;
            let values = &self.values[source * self.width..][..self.width];
            self.arch.dispatch(
                #[inline(always)]
                || {
                    let heads = row.chunks_exact_mut(self.head_width).zip(values.chunks_exact(self.head_width));
                    for ((sums, values), weight) in heads.zip(weights) {
                        sums.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
                    }
                },
            );
        }
        Ok(())
    }
}

/// The sum of numbers, as eight sums of every eighth, so that vector instructions add them up.
#[inline(always)]
fn sum_of(numbers: impl ExactSizeIterator<Item = f32>) -> f32 {
    let mut sums = [0.0; 8];
    for (index, number) in numbers.enumerate() {
        sums[index % 8] += number;
    }
    sums.iter().sum()
}
