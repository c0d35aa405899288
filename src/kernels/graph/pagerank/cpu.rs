//! The power iteration on the CPU.

use super::{PowerIteration, Ranks};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::degree::map_nodes;
use crate::kernels::graph::spmv::{NodeUpdate, Vectors, iterate, row_parts};
use crate::service::{KernelError, RunContext};

/// Computes the ranks of each power iteration, one after the other. The predecessors of the graph are
/// [made](CsrGraph::make_predecessors).
pub(super) fn ranks(
    graph: &CsrGraph,
    iterations: &[PowerIteration<'_>],
    context: &RunContext<'_>,
) -> Result<Vec<Ranks>, KernelError> {
    let parts = row_parts(graph.predecessors());
    context.set_steps(iterations.len() as u64);
    let ranks = |iteration: &PowerIteration<'_>| {
        let ranks = run(graph, &parts, iteration, context)?;
        context.advance(1);
        Ok(ranks)
    };
    iterations.iter().map(ranks).collect()
}

fn run(
    graph: &CsrGraph,
    parts: &[std::ops::Range<usize>],
    parameters: &PowerIteration<'_>,
    context: &RunContext<'_>,
) -> Result<Ranks, KernelError> {
    let PowerIteration { damping, limits, weights } = *parameters;
    let num_nodes = graph.num_nodes();
    let uniform = 1.0 / num_nodes as f64;
    let out_degree = |node: usize| graph.successors().degree(node as u32);
    let contribution = |rank: f64, degree: usize| if degree > 0 { rank / degree as f64 } else { 0.0 };

    let mut ranks = vec![uniform; num_nodes];
    let mut from = map_nodes(num_nodes, context, |node| contribution(uniform, out_degree(node as usize)))?;
    let mut to = vec![0.0; num_nodes];
    let mut dangling = (0..num_nodes).filter(|&node| out_degree(node) == 0).count() as f64 * uniform;
    let convergence = limits.repeat(|| {
        let vectors = Vectors { from: &from, values: &mut ranks, to: &mut to };
        let update = |node: usize, sum: f64, old: f64| {
            let weight = weights.of(node, num_nodes);
            let rank = damping * (sum + dangling * weight) + (1.0 - damping) * weight;
            let degree = out_degree(node);
            let dangling = if degree > 0 { 0.0 } else { rank };
            NodeUpdate { value: rank, contribution: contribution(rank, degree), sums: [dangling, (rank - old).abs()] }
        };
        let [of_dangling, difference] = iterate(graph.predecessors(), parts, vectors, context, update)?;
        dangling = of_dangling;
        std::mem::swap(&mut from, &mut to);
        Ok(difference)
    })?;
    Ok(Ranks { scores: ranks.into(), convergence })
}
