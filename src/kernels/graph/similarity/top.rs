//! The nodes that are most similar to given ones.

use std::cmp::Ordering;
use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;

use super::SimilarityOutput;
use super::measure::{Measure, Sum};
use crate::kernels::graph::cancel_check::{CancelCheck, INTERVAL};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{KernelError, RunContext};

/// Nodes whose similar nodes one task searches.
const NODES_PER_TASK: usize = 16;

/// Returns the scratch memory of a search for `count` nodes: that of each thread.
pub(super) fn scratch(num_nodes: u64, count: u64) -> u64 {
    let threads = count.div_ceil(NODES_PER_TASK as u64).min(rayon::current_num_threads() as u64);
    // The sums, the nodes that have one, and their scores.
    threads.saturating_mul(num_nodes).saturating_mul(16 + 4 + 16)
}

/// Returns the `top_k` nodes that are most similar to each of `nodes`, or all others where there are fewer.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn most_similar<S: Sum>(
    graph: &CsrGraph,
    nodes: &[u32],
    top_k: usize,
    measure: Measure,
    context: &RunContext<'_>,
) -> Result<SimilarityOutput, KernelError> {
    let each = top_k.min(graph.num_nodes().saturating_sub(1));
    let mut scores = vec![0.0; nodes.len() * each];
    let mut similar_nodes = vec![0; nodes.len() * each];
    if each > 0 {
        // As many as there are tasks at the same time.
        let searches: Mutex<Vec<Search<S>>> = Mutex::default();
        let outputs =
            scores.par_chunks_mut(NODES_PER_TASK * each).zip(similar_nodes.par_chunks_mut(NODES_PER_TASK * each));
        nodes.par_chunks(NODES_PER_TASK).zip(outputs).try_for_each(|(nodes, (scores, similar_nodes))| {
            let idle = searches.lock().unwrap_or_else(PoisonError::into_inner).pop();
            let mut search = idle.unwrap_or_else(|| Search::new(graph.num_nodes()));
            let mut cancel_check = CancelCheck::new(context);
            let outputs = scores.chunks_mut(each).zip(similar_nodes.chunks_mut(each));
            for (&node, (scores, similar_nodes)) in nodes.iter().zip(outputs) {
                search.run(graph, node, measure, &mut cancel_check)?;
                search.take_best(node, scores, similar_nodes);
            }
            searches.lock().unwrap_or_else(PoisonError::into_inner).push(search);
            Ok::<_, KernelError>(())
        })?;
    }
    Ok(SimilarityOutput { scores: scores.into(), similar_nodes: similar_nodes.into() })
}

/// The state of a search for the nodes that have common neighbours with a node.
struct Search<S> {
    /// The sum over the common neighbours with each node. All 0 between searches.
    sums: Vec<S>,
    /// The nodes whose sum is not 0.
    reached: Vec<u32>,
    /// Scores and nodes.
    candidates: Vec<(f64, u32)>,
}

impl<S: Sum> Search<S> {
    fn new(num_nodes: usize) -> Self {
        Self { sums: vec![S::default(); num_nodes], reached: Vec::new(), candidates: Vec::new() }
    }

    /// Finds the scores of the neighbours of the node's neighbours. After an error the state is of no use.
    fn run(
        &mut self,
        graph: &CsrGraph,
        node: u32,
        measure: Measure,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let adjacency = graph.successors();
        for &common in adjacency.row(node) {
            let row = adjacency.row(common);
            // The weight of a node without other neighbours may be infinite.
            if row.len() < 2 {
                continue;
            }
            let weight = S::of_neighbor(row.len());
            for piece in row.chunks(INTERVAL) {
                cancel_check.spend(piece.len())?;
                for &other in piece {
                    let sum = &mut self.sums[other as usize];
                    if *sum == S::default() {
                        self.reached.push(other);
                    }
                    *sum += weight;
                }
            }
        }
        let degree = adjacency.degree(node);
        let (sums, reached) = (&self.sums, self.reached.iter().filter(|&&other| other != node));
        let score =
            |&other: &u32| (measure.score(sums[other as usize].value(), [degree, adjacency.degree(other)]), other);
        self.candidates.clear();
        self.candidates.extend(reached.map(score));
        Ok(())
    }

    /// Writes the best candidates, and after them the first nodes with the score 0; makes all sums 0.
    fn take_best(&mut self, node: u32, scores: &mut [f64], similar_nodes: &mut [u32]) {
        let each = scores.len();
        if self.candidates.len() > each {
            self.candidates.select_nth_unstable_by(each - 1, order);
            self.candidates.truncate(each);
        }
        self.candidates.sort_unstable_by(order);
        let sums = &self.sums;
        let others = (0..sums.len() as u32).filter(|&other| other != node && sums[other as usize] == S::default());
        let best = self.candidates.iter().copied().chain(others.map(|other| (0.0, other)));
        for ((score, similar_node), best) in scores.iter_mut().zip(similar_nodes).zip(best) {
            (*score, *similar_node) = best;
        }
        for other in self.reached.drain(..) {
            self.sums[other as usize] = S::default();
        }
    }
}

/// Higher scores first, of equal ones the node with the lower number.
fn order(a: &(f64, u32), b: &(f64, u32)) -> Ordering {
    b.0.total_cmp(&a.0).then(a.1.cmp(&b.1))
}
