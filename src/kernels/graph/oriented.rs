//! [`OrientedGraph`]: each edge of a graph once, at its end of lower degree.

use rayon::prelude::*;

use super::cancel_check::{CancelCheck, INTERVAL};
use super::csr::{Adjacency, CsrGraph, Direction};
use super::degree::try_map_nodes;
use crate::service::{Buffer, KernelError, RunContext};

/// Nodes whose rows one task fills.
const NODES_PER_TASK: usize = 1 << 12;

/// A graph whose edges lead from the end of lower degree to that of higher degree, or of higher number among equals.
/// Edges of a directed graph count without direction.
///
/// No node of a graph with `m` edges has more than the square root of `2 m` successors in it, whatever its degree is. A
/// clique appears once, at its lowest node: all other nodes of the clique are successors of that. So triangles are
/// found once each, as common successors of the two ends of an arc, in time O(m^1.5): Latapy, *Main-memory triangle
/// computations for very large (sparse (power-law)) graphs* (2008).
///
/// [`CsrGraph::oriented`] makes it and keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct OrientedGraph {
    degrees: Buffer<u32>,
    arcs: Adjacency,
}

impl OrientedGraph {
    /// Orients the edges of a graph.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Self, KernelError> {
        graph.make_predecessors(context)?;
        let num_nodes = graph.num_nodes();
        let degrees = try_map_nodes(num_nodes, context, |node, cancel_check| {
            let mut degree = 0;
            for_each_neighbour(graph, node, cancel_check, |_| degree += 1)?;
            Ok(degree)
        })?;
        let rank = |node: u32| (degrees[node as usize], node);
        let lengths = try_map_nodes(num_nodes, context, |node, cancel_check| {
            let own = rank(node);
            let mut length = 0;
            for_each_neighbour(graph, node, cancel_check, |other| length += u32::from(rank(other) > own))?;
            Ok(length)
        })?;
        let offsets = starts(&lengths, context)?;
        let mut columns = vec![0; offsets[num_nodes] as usize];
        let tasks = split_rows(&mut columns, &offsets);
        tasks.into_par_iter().try_for_each(|(first, count, mut columns)| {
            let mut cancel_check = CancelCheck::new(context);
            for node in first..first + count {
                let own = rank(node);
                for_each_neighbour(graph, node, &mut cancel_check, |other| {
                    if rank(other) > own {
                        // There is one column left for each, as they have been counted.
                        if let Some(column) = columns.split_off_first_mut() {
                            *column = other;
                        }
                    }
                })?;
            }
            Ok::<_, KernelError>(())
        })?;
        Ok(Self { degrees: degrees.into(), arcs: Adjacency::from_arrays(offsets, columns) })
    }

    /// Returns the bytes of the oriented form of a graph of this size, at most.
    pub(super) fn bytes(nodes: u64, arcs: u64, direction: Direction) -> u64 {
        let edges = match direction {
            Direction::Directed => arcs,
            Direction::Undirected => arcs / 2,
        };
        nodes.saturating_mul(2).saturating_add(edges).saturating_add(1).saturating_mul(4)
    }

    /// How many neighbours each node has, in either direction.
    pub fn degrees(&self) -> &Buffer<u32> {
        &self.degrees
    }

    /// The neighbours of each node that are of higher degree, or of the same degree and a higher number.
    pub fn arcs(&self) -> &Adjacency {
        &self.arcs
    }

    /// How many nodes the graph has.
    pub fn num_nodes(&self) -> usize {
        self.degrees.len()
    }
}

/// Calls `found` with the neighbours of a node in either direction, ascending, each once. The predecessors are
/// [made](CsrGraph::make_predecessors).
pub(super) fn for_each_neighbour(
    graph: &CsrGraph,
    node: u32,
    cancel_check: &mut CancelCheck<'_>,
    mut found: impl FnMut(u32),
) -> Result<(), KernelError> {
    let outward = graph.successors().row(node);
    if graph.direction() == Direction::Undirected {
        for piece in outward.chunks(INTERVAL) {
            cancel_check.spend(piece.len())?;
            piece.iter().copied().for_each(&mut found);
        }
        return Ok(());
    }
    let inward = graph.predecessors().row(node);
    let (mut i, mut j) = (0, 0);
    while i < outward.len() || j < inward.len() {
        cancel_check.spend(1)?;
        let [a, b] = [outward.get(i), inward.get(j)].map(|node| node.copied().unwrap_or(u32::MAX));
        i += usize::from(a <= b);
        j += usize::from(b <= a);
        found(a.min(b));
    }
    Ok(())
}

/// Returns where each row starts, and at the end the sum of the lengths.
pub(super) fn starts(lengths: &[u32], context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let mut offsets = Vec::with_capacity(lengths.len() + 1);
    let mut end = 0;
    offsets.push(end);
    for lengths in lengths.chunks(INTERVAL) {
        context.check()?;
        offsets.extend(lengths.iter().map(|length| {
            end += length;
            end
        }));
    }
    Ok(offsets)
}

/// Splits the columns into the rows of some nodes each: the first node, the number of nodes, and their columns.
pub(super) fn split_rows<'a, T>(mut columns: &'a mut [T], offsets: &[u32]) -> Vec<(u32, u32, &'a mut [T])> {
    let num_nodes = offsets.len() - 1;
    let mut tasks = Vec::with_capacity(num_nodes.div_ceil(NODES_PER_TASK));
    for first in (0..num_nodes).step_by(NODES_PER_TASK) {
        let end = num_nodes.min(first + NODES_PER_TASK);
        let (rows, rest) = columns.split_at_mut((offsets[end] - offsets[first]) as usize);
        tasks.push((first as u32, (end - first) as u32, rows));
        columns = rest;
    }
    tasks
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::kernels::authoring::Random;
    use crate::kernels::graph::cases::{neighbours, random_edges};
    use crate::service::OperandValue;

    #[test]
    fn each_edge_is_at_its_lower_end_once() {
        let mut random = Random::new(5);
        for (nodes, direction) in
            [(1, Direction::Undirected), (300, Direction::Undirected), (9_000, Direction::Directed)]
        {
            let mut edges = random_edges(nodes, &mut random);
            edges.extend((0..nodes as u32).step_by(3).map(|node| [node, 0]));
            let graph = CsrGraph::from_edges(nodes, &edges, direction).unwrap();
            let oriented = graph.oriented(&RunContext::detached()).unwrap();
            let [expected, _] = neighbours(nodes, &edges, false);
            let rank = |node: usize| (expected[node].len(), node);
            for (node, neighbours) in expected.iter().enumerate() {
                assert_eq!(oriented.degrees()[node] as usize, neighbours.len());
                let higher = neighbours.iter().filter(|&&other| rank(other) > rank(node)).map(|&other| other as u32);
                assert!(oriented.arcs().row(node as u32).iter().copied().eq(higher), "{node}");
            }
        }
    }

    #[test]
    fn an_operand_counts_it_before_and_lists_it_once_it_is_made() {
        let edges = [[0, 1], [1, 2], [2, 0], [2, 3], [3, 3]];
        for (direction, forms) in [(Direction::Undirected, 1), (Direction::Directed, 2)] {
            let graph = CsrGraph::from_edges(5, &edges, direction).unwrap();
            let size = |graph: &CsrGraph| graph.arrays().iter().map(|array| array.bytes.len() as u64).sum::<u64>();
            let bytes = graph.bytes();
            let names = |graph: &CsrGraph| graph.arrays().iter().map(|array| array.name.to_owned()).collect::<Vec<_>>();
            let before = names(&graph);
            assert_eq!(before.len(), 2 * forms);
            graph.oriented(&RunContext::detached()).unwrap();
            assert_eq!(graph.bytes(), bytes);
            let after = names(&graph);
            assert_eq!(after[..before.len()], before);
            assert_eq!(after[before.len()..], ["oriented_row_offsets", "oriented_column_indices"]);
            // The degrees are no array for devices.
            assert_eq!(size(&graph) + 4 * 5, bytes);
        }
    }

    #[test]
    fn making_it_ends_at_the_deadline_and_can_be_repeated() {
        let edges: Vec<[u32; 2]> = (1..100_000).map(|node| [node - 1, node]).collect();
        let graph = CsrGraph::from_edges(100_000, &edges, Direction::Undirected).unwrap();
        let passed = Instant::now().checked_sub(Duration::from_secs(1));
        let result = graph.oriented(&RunContext::new(None, passed));
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
        assert_eq!(graph.oriented(&RunContext::detached()).unwrap().arcs().column_indices().len(), 99_999);
    }
}
