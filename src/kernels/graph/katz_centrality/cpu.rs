//! The power iteration on the CPU, for several score vectors in one pass.

use std::ops::Range;

use rayon::prelude::*;

use super::{KatzCentralityInput, KatzCentralityOutput};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::power_iteration::Limits;
use crate::kernels::graph::spmm::{ElementUpdate, iterate_together};
use crate::kernels::graph::spmv::row_parts;
use crate::service::{KernelError, RunContext};

/// The most score vectors that go through the graph together.
const MAX_WIDTH: usize = 4;
/// The most nodes of a graph through which several go. Four take 0.4 to 0.7 of the time of four alone up to 200 000 nodes; with
/// 400 000 their values no longer fit into the caches where those of one do, and they take as long or longer.
const MAX_NODES_TOGETHER: usize = 1 << 18;

/// The score vector of an input, before its last iteration.
struct Vector<'a> {
    /// Which of the inputs it is of.
    index: usize,
    input: &'a KatzCentralityInput,
    limits: Limits,
    scores: Vec<f64>,
    iterations: u32,
    difference: f64,
    /// The sum of the squares of the scores.
    squares: f64,
}

impl<'a> Vector<'a> {
    fn new(index: usize, input: &'a KatzCentralityInput, graph: &CsrGraph) -> Self {
        let (limits, scores) = (input.limits(graph), vec![0.0; graph.num_nodes()]);
        Self { index, input, limits, scores, iterations: 0, difference: f64::INFINITY, squares: 0.0 }
    }

    fn is_done(&self) -> bool {
        self.limits.stops(self.iterations, self.difference)
    }

    fn into_output(self) -> KatzCentralityOutput {
        let Self { input, limits, mut scores, iterations, difference, squares, .. } = self;
        if input.normalized && squares > 0.0 {
            let norm = squares.sqrt();
            scores.par_iter_mut().for_each(|score| *score /= norm);
        }
        KatzCentralityOutput::new(scores.into(), limits.convergence(iterations, difference))
    }
}

/// Computes the scores of each input. As one vector ends, the next joins those that are left. The predecessors of the graph
/// are [made](CsrGraph::make_predecessors).
pub(super) fn scores(
    graph: &CsrGraph,
    inputs: &[&KatzCentralityInput],
    context: &RunContext<'_>,
) -> Result<Vec<KatzCentralityOutput>, KernelError> {
    let parts = row_parts(graph.predecessors());
    let max_width = if graph.num_nodes() <= MAX_NODES_TOGETHER { MAX_WIDTH } else { 1 };
    context.set_steps(inputs.len() as u64);
    let mut waiting = inputs.iter().enumerate().map(|(index, input)| Vector::new(index, input, graph));
    let mut outputs: Vec<Option<KatzCentralityOutput>> = vec![None; inputs.len()];
    let mut vectors: Vec<Vector<'_>> = Vec::new();
    loop {
        vectors.extend(waiting.by_ref().take(max_width - vectors.len()));
        match &mut vectors[..] {
            [] => break,
            [one] => advance(graph, &parts, [one], context)?,
            [one, two] => advance(graph, &parts, [one, two], context)?,
            [one, two, three] => advance(graph, &parts, [one, two, three], context)?,
            [one, two, three, four, ..] => advance(graph, &parts, [one, two, three, four], context)?,
        }
        for vector in vectors.extract_if(.., |vector| vector.is_done()) {
            let index = vector.index;
            outputs[index] = Some(vector.into_output());
            context.advance(1);
        }
    }
    Ok(outputs.into_iter().flatten().collect())
}

/// Iterates until one of the vectors is done.
fn advance<const WIDTH: usize>(
    graph: &CsrGraph,
    parts: &[Range<usize>],
    mut vectors: [&mut Vector<'_>; WIDTH],
    context: &RunContext<'_>,
) -> Result<(), KernelError> {
    let nodes = graph.num_nodes();
    let side_by_side = |node: usize| vectors.each_ref().map(|vector| vector.scores[node]);
    let mut from: Vec<[f64; WIDTH]> = (0..nodes).into_par_iter().map(side_by_side).collect();
    let mut to = vec![[0.0; WIDTH]; nodes];
    while !vectors.iter().any(|vector| vector.is_done()) {
        let inputs = vectors.each_ref().map(|vector| vector.input);
        let update = |vector: usize, node: usize, sum: f64, old: f64| {
            let score = inputs[vector].alpha * sum + inputs[vector].beta(node);
            ElementUpdate { value: score, sums: [(score - old).abs(), score * score] }
        };
        let totals = iterate_together(graph.predecessors(), parts, [&mut from, &mut to], context, update)?;
        for (vector, [difference, squares]) in vectors.iter_mut().zip(totals) {
            (vector.difference, vector.squares) = (difference, squares);
            vector.iterations += 1;
        }
        std::mem::swap(&mut from, &mut to);
    }
    for (index, vector) in vectors.iter_mut().enumerate() {
        vector.scores.par_iter_mut().zip(&from).for_each(|(score, of_node)| *score = of_node[index]);
    }
    Ok(())
}
