//! [`LevelGraph`]: the graph of a level.

use crate::kernels::graph::arc_units::ArcUnits;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::degree::map_nodes;
use crate::kernels::graph::modularity_score::degrees;
use crate::service::{Buffer, KernelError, RunContext};

/// An undirected graph whose nodes are communities of the level before: the arcs between two communities are one, whose
/// weight is the sum of theirs. All weights and degrees are in [units](ArcUnits) of arcs of the first graph.
pub(super) struct LevelGraph {
    pub(super) offsets: Buffer<u32>,
    pub(super) columns: Buffer<u32>,
    /// The weight of each arc; without, all are 1.
    pub(super) weights: Option<Vec<u64>>,
    /// The weight of the arcs of the first graph that begin in each node, with those that end in it, too.
    pub(super) degrees: Vec<u64>,
    /// The weight of the arcs of the first graph that begin and end in the same node.
    pub(super) inner_arcs: u64,
    /// The weight of the arcs of the first graph.
    pub(super) all_arcs: u64,
}

impl LevelGraph {
    /// Returns the graph of the first level.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn first(graph: &CsrGraph, units: ArcUnits<'_>, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let [offsets, columns] = graph.successors().to_buffers();
        let weights = match units.weights() {
            Some((weights, _)) => Some(map_nodes(weights.len(), context, |arc| units.get(arc as usize))?),
            None => None,
        };
        let degrees = degrees(graph.successors(), units, context)?;
        let all_arcs = degrees.iter().sum();
        Ok(Self { offsets, columns, weights, degrees, inner_arcs: 0, all_arcs })
    }

    pub(super) fn num_nodes(&self) -> usize {
        self.degrees.len()
    }

    /// Returns the number of neighbours of a node.
    pub(super) fn row_len(&self, node: u32) -> usize {
        (self.offsets[node as usize + 1] - self.offsets[node as usize]) as usize
    }

    /// Returns the neighbours of a node, and the weights of the arcs to them.
    pub(super) fn row(&self, node: u32) -> impl Iterator<Item = (u32, u64)> + '_ {
        let range = self.offsets[node as usize] as usize..self.offsets[node as usize + 1] as usize;
        let weights = self.weights.as_ref().map(|weights| &weights[range.clone()]);
        let weight = move |index: usize| weights.map_or(1, |weights| weights[index]);
        self.columns[range].iter().enumerate().map(move |(index, &column)| (column, weight(index)))
    }
}
