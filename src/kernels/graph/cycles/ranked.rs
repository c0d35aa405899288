//! [`RankedGraph`]: a graph whose nodes are numbered by their degrees.

use rayon::prelude::*;

use crate::kernels::graph::cancel_check::{CancelCheck, INTERVAL};
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::degree::{map_nodes, try_map_nodes};
use crate::kernels::graph::oriented::{for_each_neighbour, split_rows, starts};
use crate::service::{KernelError, RunContext};

/// A longer row is sorted by a set of bits, in steps that can be cancelled.
const MAX_SORTED_ROW: usize = 1 << 18;

/// The nodes of a graph in the order of their degrees, ascending, and of their numbers among equals. The index of a
/// node in this order is its rank. Rows are ascending, so that the nodes of lower rank than one of them are a prefix.
pub(super) struct RankedGraph {
    /// The rank of each node.
    pub(super) ranks: Vec<u32>,
    /// The ranks of the neighbours; or of the successors, and of the predecessors, if there are two.
    pub(super) sides: Vec<Adjacency>,
}

impl RankedGraph {
    /// Ranks the nodes of a graph; `directed` if the directions of its arcs matter.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(super) fn new(graph: &CsrGraph, directed: bool, context: &RunContext<'_>) -> Result<Self, KernelError> {
        graph.make_predecessors(context)?;
        let degrees = try_map_nodes(graph.num_nodes(), context, |node, cancel_check| {
            let mut degree = 0;
            for_each_neighbour(graph, node, cancel_check, |_| degree += 1)?;
            Ok(degree)
        })?;
        let (order, ranks) = ranks(&degrees, context)?;
        let rows = |length: &(dyn Fn(u32) -> u32 + Sync), neighbours: &Neighbours<'_>| {
            rows(&order, &ranks, length, neighbours, context)
        };
        let sides = if directed {
            let side = |arcs: &Adjacency| {
                rows(&|node| arcs.degree(node) as u32, &|node, neighbours, _| {
                    neighbours.extend_from_slice(arcs.row(node));
                    Ok(())
                })
            };
            vec![side(graph.successors())?, side(graph.predecessors())?]
        } else {
            vec![rows(&|node| degrees[node as usize], &|node, neighbours, cancel_check| {
                for_each_neighbour(graph, node, cancel_check, |other| neighbours.push(other))
            })?]
        };
        Ok(Self { ranks, sides })
    }

    /// Returns the host memory of the ranked form of a graph of this size in bytes, with what it takes to make it.
    pub(super) const fn bytes(nodes: u64, arcs: u64) -> u64 {
        // Both directions of each arc; degrees, ranks, their order, and lengths and offsets of two sides.
        nodes.saturating_mul(7 * 4).saturating_add(arcs.saturating_mul(8)).saturating_add(8)
    }

    pub(super) fn num_nodes(&self) -> usize {
        self.ranks.len()
    }
}

/// Sorts the nodes by degree. Returns them, and the rank of each.
fn ranks(degrees: &[u32], context: &RunContext<'_>) -> Result<(Vec<u32>, Vec<u32>), KernelError> {
    let mut next = vec![0_u32; degrees.iter().max().map_or(0, |&max| max as usize + 1)];
    for degrees in degrees.chunks(INTERVAL) {
        context.check()?;
        degrees.iter().for_each(|&degree| next[degree as usize] += 1);
    }
    let mut sum = 0;
    for count in &mut next {
        sum += std::mem::replace(count, sum);
    }
    let [mut order, mut ranks] = [0, 1].map(|_| vec![0; degrees.len()]);
    let mut cancel_check = CancelCheck::new(context);
    for (node, &degree) in (0..).zip(degrees) {
        cancel_check.spend(1)?;
        let rank = &mut next[degree as usize];
        ranks[node as usize] = *rank;
        order[*rank as usize] = node;
        *rank += 1;
    }
    Ok((order, ranks))
}

/// Adds the neighbours of a node to an array.
type Neighbours<'a> = dyn Fn(u32, &mut Vec<u32>, &mut CancelCheck<'_>) -> Result<(), KernelError> + Sync + 'a;

/// Makes the rows of the ranked nodes from the number of the neighbours of each node, and these.
fn rows(
    order: &[u32],
    ranks: &[u32],
    length: &(dyn Fn(u32) -> u32 + Sync),
    neighbours: &Neighbours<'_>,
    context: &RunContext<'_>,
) -> Result<Adjacency, KernelError> {
    let lengths = map_nodes(order.len(), context, |rank| length(order[rank as usize]))?;
    let offsets = starts(&lengths, context)?;
    let mut columns = vec![0; offsets[order.len()] as usize];
    let tasks = split_rows(&mut columns, &offsets);
    tasks.into_par_iter().try_for_each(|(first, count, mut columns)| {
        let mut cancel_check = CancelCheck::new(context);
        let mut nodes = Vec::new();
        for rank in first..first + count {
            nodes.clear();
            neighbours(order[rank as usize], &mut nodes, &mut cancel_check)?;
            let (row, rest) = columns.split_at_mut(nodes.len());
            for (row, nodes) in row.chunks_mut(INTERVAL).zip(nodes.chunks(INTERVAL)) {
                cancel_check.spend(1 + nodes.len())?;
                row.iter_mut().zip(nodes).for_each(|(column, &node)| *column = ranks[node as usize]);
            }
            sort_row(row, order.len(), &mut cancel_check)?;
            columns = rest;
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(Adjacency::from_arrays(offsets, columns))
}

/// Sorts different ranks.
fn sort_row(row: &mut [u32], num_nodes: usize, cancel_check: &mut CancelCheck<'_>) -> Result<(), KernelError> {
    if row.len() <= MAX_SORTED_ROW {
        cancel_check.spend(8 * row.len())?;
        row.sort_unstable();
        return Ok(());
    }
    let mut bits = vec![0_u64; num_nodes.div_ceil(64)];
    for piece in row.chunks(INTERVAL) {
        cancel_check.spend(piece.len())?;
        piece.iter().for_each(|&rank| bits[rank as usize / 64] |= 1 << (rank % 64));
    }
    let mut columns = row.iter_mut();
    for (word, mut bits) in (0..).step_by(64).zip(bits) {
        cancel_check.spend(1 + bits.count_ones() as usize)?;
        while bits != 0 {
            // There is a column for each bit, as the ranks differ.
            if let Some(column) = columns.next() {
                *column = word + bits.trailing_zeros();
            }
            bits &= bits - 1;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;
    use crate::kernels::graph::cases::{neighbours, random_edges};
    use crate::kernels::graph::csr::Direction;

    #[test]
    fn rows_are_those_of_the_graph_by_rank() {
        let mut random = Random::new(6);
        let context = RunContext::detached();
        for (nodes, direction, directed) in [
            (1, Direction::Undirected, false),
            (300, Direction::Undirected, false),
            (9_000, Direction::Directed, false),
            (9_000, Direction::Directed, true),
        ] {
            let mut edges = random_edges(nodes, &mut random);
            edges.extend((0..nodes as u32).step_by(3).map(|node| [node, 0]));
            let graph = CsrGraph::from_edges(nodes, &edges, direction).unwrap();
            let ranked = RankedGraph::new(&graph, directed, &context).unwrap();
            let [undirected, _] = neighbours(nodes, &edges, false);
            let mut order: Vec<usize> = (0..nodes).collect();
            order.sort_by_key(|&node| undirected[node].len());
            assert!((0..).zip(&order).all(|(rank, &node)| ranked.ranks[node] == rank));
            let expected = if directed { neighbours(nodes, &edges, true).to_vec() } else { vec![undirected] };
            assert_eq!(ranked.sides.len(), expected.len());
            for (side, expected) in ranked.sides.iter().zip(&expected) {
                for (rank, &node) in (0..).zip(&order) {
                    let mut row: Vec<u32> = expected[node].iter().map(|&other| ranked.ranks[other]).collect();
                    row.sort_unstable();
                    assert_eq!(side.row(rank), row);
                }
            }
        }
    }

    #[test]
    fn long_rows_are_sorted() {
        let len = MAX_SORTED_ROW as u32 + 100;
        let mut row: Vec<u32> = (0..len).map(|index| (len - 1 - index) * 3 + 1).collect();
        sort_row(&mut row, 3 * len as usize, &mut CancelCheck::new(&RunContext::detached())).unwrap();
        assert!(row.iter().copied().eq((0..len).map(|index| 3 * index + 1)));
    }
}
