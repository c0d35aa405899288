//! Graphs in compressed sparse row form.

mod adjacency;
mod checks;
mod derived;
mod rows;

use std::sync::OnceLock;

use rayon::prelude::*;

pub use self::adjacency::Adjacency;
pub(super) use self::derived::DerivedForm;
use self::derived::DerivedForms;
use self::rows::{ArcWeight, Rows, WeightedArc, arcs_of};
use super::cancel_check::CancelCheck;
use super::canonical::is_canonical;
use crate::service::{Buffer, InvalidInput, KernelError, RunContext};

/// The most nodes that a [`CsrGraph`] may have.
pub const MAX_NODES: usize = 1 << 28;

/// A graph of up to this many nodes may have any number of edges.
pub const FREE_NODES: usize = 1 << 16;

/// Above [`FREE_NODES`], a graph may have this many nodes for each edge.
///
/// Isolated nodes are legal, and an output has one value per node, so `num_nodes` is limited by the size of the request: 16
/// nodes an edge keep the memory that a request can ask for within a small multiple of the bytes that it sent.
pub const NODES_PER_EDGE: usize = 16;

/// Whether an edge `(u, v)` also leads from `v` to `u`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Edges lead from the first node to the second.
    Directed,
    /// Edges lead both ways. Naming one of the two directions is enough, and naming both changes nothing.
    Undirected,
}

/// A simple graph: no self-loops, no parallel edges, neighbours sorted. Its edges may have weights.
///
/// Self-loops and parallel edges of the input are dropped; no shortest path uses the former, and unweighted shortest
/// paths are counted by the nodes they pass, as networkx counts them. Of parallel edges, and of the two directions of an
/// undirected edge where both are given, the least weight is kept: that is the edge which a shortest path takes.
#[derive(Debug, Clone)]
pub struct CsrGraph {
    successors: Adjacency,
    predecessors: Predecessors,
    /// The least weight, of a graph with edges that have weights.
    least_weight: Option<f32>,
    total_weight: f64,
    derived_forms: DerivedForms,
}

impl PartialEq for CsrGraph {
    /// All other forms follow from the successors.
    fn eq(&self, other: &Self) -> bool {
        self.successors == other.successors && self.direction() == other.direction()
    }
}

/// The arcs the other way round.
#[derive(Debug, Clone)]
enum Predecessors {
    /// Edges lead both ways, so that these are the successors.
    Same,
    /// Made when a kernel needs them first, and kept.
    Lazy(OnceLock<Adjacency>),
}

impl CsrGraph {
    fn new(successors: Adjacency, predecessors: Predecessors) -> Self {
        let least_weight = successors.weights().and_then(|weights| weights.iter().copied().reduce(f32::min));
        let total_weight = successors.weights().map_or(0.0, sum);
        Self { successors, predecessors, least_weight, total_weight, derived_forms: DerivedForms::default() }
    }

    /// Builds a graph from a list of edges, in time and memory linear in nodes and edges.
    ///
    /// # Errors
    /// `num_nodes` over [`MAX_NODES`], or over both [`FREE_NODES`] and [`NODES_PER_EDGE`] times the number of edges,
    /// checked before anything is allocated; an edge with a node that is not below `num_nodes`; more than
    /// `u32::MAX` arcs (an undirected edge is two).
    pub fn from_edges(num_nodes: usize, edges: &[[u32; 2]], direction: Direction) -> Result<Self, InvalidInput> {
        Self::from_edges_while(num_nodes, edges, None, direction, &mut |_| Ok(()))
    }

    /// As [`from_edges`](Self::from_edges), with a weight for each edge.
    ///
    /// # Errors
    /// Those of `from_edges`; another number of weights than of edges, or a weight that is not finite.
    pub fn from_weighted_edges(
        num_nodes: usize,
        edges: &[[u32; 2]],
        weights: &[f32],
        direction: Direction,
    ) -> Result<Self, InvalidInput> {
        Self::from_edges_while(num_nodes, edges, Some(weights), direction, &mut |_| Ok(()))
    }

    /// As [`from_edges`](Self::from_edges) or [`from_weighted_edges`](Self::from_weighted_edges), as long as `spend`, which
    /// is called with the number of arcs visited, returns no error.
    pub(super) fn from_edges_while<E: From<InvalidInput>>(
        num_nodes: usize,
        edges: &[[u32; 2]],
        weights: Option<&[f32]>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_edges(num_nodes, edges)?;
        Self::check_arcs("edges", edges.len(), direction)?;
        match weights {
            Some(weights) => {
                Self::check_weights(weights, edges.len())?;
                let arcs = || edges.iter().zip(weights).map(|(&[from, to], &weight)| (from, to, weight));
                Self::build(num_nodes, arcs, direction, spend)
            }
            None => Self::build(num_nodes, || edges.iter().map(|&[from, to]| (from, to, ())), direction, spend),
        }
    }

    /// Builds a graph from CSR arrays: the neighbours of node `v` are
    /// `column_indices[row_offsets[v]..row_offsets[v + 1]]`, in any order, and there are `row_offsets.len() - 1` nodes.
    ///
    /// # Errors
    /// `row_offsets` that is empty, does not start at 0, falls, or does not end at the length of `column_indices`; a
    /// column index that is not below the number of nodes; too many nodes or arcs.
    pub fn from_csr(row_offsets: &[u32], column_indices: &[u32], direction: Direction) -> Result<Self, InvalidInput> {
        Self::check_csr(row_offsets, column_indices)?;
        Self::check_arcs("column_indices", column_indices.len(), direction)?;
        Self::build_csr(row_offsets, column_indices, None, direction, &mut |_| Ok(()))
    }

    /// Builds a graph from CSR arrays that have been checked.
    fn build_csr<E>(
        row_offsets: &[u32],
        column_indices: &[u32],
        weights: Option<&[f32]>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let num_nodes = row_offsets.len() - 1;
        match weights {
            Some(weights) => Self::build(num_nodes, || arcs_of(row_offsets, column_indices, weights), direction, spend),
            None => {
                let units = vec![(); column_indices.len()];
                Self::build(num_nodes, || arcs_of(row_offsets, column_indices, &units), direction, spend)
            }
        }
    }

    /// As [`from_csr`](Self::from_csr), with weights if there are any, as long as `spend`, which is called with the number
    /// of arcs visited, returns no error. Arrays that are in the form of the graph already are shared and not copied, but
    /// for those of an undirected graph with weights, whose two directions are compared by sorting them.
    pub(super) fn from_buffers_while<E: From<InvalidInput>>(
        row_offsets: &Buffer<u32>,
        column_indices: &Buffer<u32>,
        weights: Option<&Buffer<f32>>,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        Self::check_row_offsets(row_offsets, column_indices.len())?;
        Self::check_arcs("column_indices", column_indices.len(), direction)?;
        if let Some(weights) = weights {
            Self::check_weights(weights, column_indices.len())?;
        }
        let is_to_be_sorted = direction == Direction::Undirected && weights.is_some();
        if is_to_be_sorted || !is_canonical(row_offsets, column_indices, direction, spend)? {
            Self::check_columns(row_offsets.len() - 1, column_indices)?;
            return Self::build_csr(row_offsets, column_indices, weights.map(|weights| &**weights), direction, spend);
        }
        let successors =
            Adjacency { offsets: row_offsets.clone(), columns: column_indices.clone(), weights: weights.cloned() };
        let predecessors = match direction {
            Direction::Directed => Predecessors::Lazy(OnceLock::new()),
            Direction::Undirected => Predecessors::Same,
        };
        Ok(Self::new(successors, predecessors))
    }

    fn build<W: ArcWeight, I: Iterator<Item = WeightedArc<W>>, E>(
        num_nodes: usize,
        edges: impl Fn() -> I,
        direction: Direction,
        spend: &mut impl FnMut(usize) -> Result<(), E>,
    ) -> Result<Self, E> {
        let edges = || edges().filter(|(from, to, _)| from != to);
        match direction {
            Direction::Directed => {
                let predecessors = Rows::sorted(num_nodes, edges, spend)?.reversed(spend)?.without_repeats();
                let successors = predecessors.reversed(spend)?.into();
                Ok(Self::new(successors, Predecessors::Lazy(Adjacency::from(predecessors).into())))
            }
            Direction::Undirected => {
                let arcs = || edges().flat_map(|(from, to, weight)| [(from, to, weight), (to, from, weight)]);
                let successors = Rows::sorted(num_nodes, arcs, spend)?.reversed(spend)?.without_repeats();
                Ok(Self::new(successors.into(), Predecessors::Same))
            }
        }
    }

    /// How many nodes the graph has.
    pub fn num_nodes(&self) -> usize {
        self.successors.num_nodes()
    }

    /// How many arcs the graph has after repeats and loops were dropped; an undirected edge is two.
    pub fn num_arcs(&self) -> usize {
        self.successors.columns.len()
    }

    /// Whether edges lead one way only.
    pub fn direction(&self) -> Direction {
        match self.predecessors {
            Predecessors::Lazy(_) => Direction::Directed,
            Predecessors::Same => Direction::Undirected,
        }
    }

    /// The least weight of an edge; `None` without weights or without edges.
    pub fn least_weight(&self) -> Option<f32> {
        self.least_weight
    }

    /// The sum of the weights of all arcs; 0 without weights. An edge that leads both ways is two arcs.
    pub fn total_weight(&self) -> f64 {
        self.total_weight
    }

    /// The nodes that edges lead to.
    pub fn successors(&self) -> &Adjacency {
        &self.successors
    }

    /// The nodes that edges come from; the same as [`successors`](Self::successors) where edges lead both ways. They are
    /// made at the first call.
    pub fn predecessors(&self) -> &Adjacency {
        match &self.predecessors {
            Predecessors::Same => &self.successors,
            Predecessors::Lazy(predecessors) => predecessors.get_or_init(|| {
                let mut spend = |_| Ok::<(), std::convert::Infallible>(());
                match self.successors.transposed(&mut spend) {
                    Ok(predecessors) => predecessors,
                    Err(never) => match never {},
                }
            }),
        }
    }

    /// Makes the predecessors, unless they are there, and checks the context on the way.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub fn make_predecessors(&self, context: &RunContext<'_>) -> Result<(), KernelError> {
        let Predecessors::Lazy(predecessors) = &self.predecessors else { return Ok(()) };
        if predecessors.get().is_none() {
            let mut cancel_check = CancelCheck::new(context);
            let transposed = self.successors.transposed(&mut |arcs| cancel_check.spend(arcs))?;
            // Another request may have made them meanwhile, which are the same.
            let _ = predecessors.set(transposed);
        }
        Ok(())
    }

    /// Returns the predecessors if they were made and are not the successors.
    pub(super) fn made_predecessors(&self) -> Option<&Adjacency> {
        match &self.predecessors {
            Predecessors::Same => None,
            Predecessors::Lazy(predecessors) => predecessors.get(),
        }
    }
}

/// Returns the sum of weights, in an order that does not depend on the number of threads.
fn sum(weights: &[f32]) -> f64 {
    let of_chunk = |weights: &[f32]| weights.iter().copied().map(f64::from).sum();
    let sums: Vec<f64> = weights.par_chunks(LARGE / 16).map(of_chunk).collect();
    sums.into_iter().sum()
}

/// Values of an array that one thread checks in about 50 µs, which is worth waking others for.
const LARGE: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_arrays_are_the_graph_that_sorting_makes() {
        let random = crate::random::SplitMix64::new(7);
        for direction in [Direction::Directed, Direction::Undirected] {
            for nodes in [1_u32, 2, 50, 3000] {
                let node = || random.up_to(u64::from(nodes) - 1) as u32;
                let edges: Vec<[u32; 2]> = (0..4 * nodes).map(|_| [node(), node()]).collect();
                let graph = CsrGraph::from_edges(nodes as usize, &edges, direction).unwrap();
                let arrays = graph.successors();
                let ok = &mut |_| Ok::<(), InvalidInput>(());
                let shared =
                    CsrGraph::from_buffers_while(&arrays.offsets, &arrays.columns, None, direction, ok).unwrap();
                let columns = [&shared, &graph].map(|graph| graph.successors().column_indices().as_ptr());
                // Small buffers are copied.
                assert!(columns[0] == columns[1] || nodes < 3000);
                assert_eq!(shared, graph);
                assert_eq!(shared.made_predecessors(), None);
                assert_eq!(shared.predecessors(), graph.predecessors());
                if direction == Direction::Undirected && graph.num_arcs() > 0 {
                    // Without one arc, sorting puts it back.
                    let mut columns = arrays.columns.to_vec();
                    let mut offsets = arrays.offsets.to_vec();
                    let row = (0..nodes).find(|&row| arrays.degree(row) > 0).unwrap() as usize;
                    columns.remove(offsets[row] as usize);
                    offsets[row + 1..].iter_mut().for_each(|offset| *offset -= 1);
                    let (offsets, columns) = (offsets.into(), columns.into());
                    assert_eq!(CsrGraph::from_buffers_while(&offsets, &columns, None, direction, ok).unwrap(), graph);
                }
            }
        }
    }
}
