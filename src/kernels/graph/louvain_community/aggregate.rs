//! Makes the graph of the next level.

use super::level_graph::LevelGraph;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::node_chunks::map_chunks;
use crate::kernels::graph::weight_table::WeightTable;
use crate::service::{KernelError, RunContext};

/// Numbers communities from 0 in the order of their lowest nodes. Returns how many there are.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn number(communities: &mut [u32], context: &RunContext<'_>) -> Result<usize, KernelError> {
    const NONE: u32 = u32::MAX;
    let mut cancel_check = CancelCheck::new(context);
    let mut numbers = vec![NONE; communities.len()];
    let mut count = 0;
    for community in communities {
        cancel_check.spend(1)?;
        let number = &mut numbers[*community as usize];
        if *number == NONE {
            *number = count;
            count += 1;
        }
        *community = *number;
    }
    Ok(count as usize)
}

/// The nodes of each community, ascending.
struct Members {
    nodes: Vec<u32>,
    offsets: Vec<u32>,
}

impl Members {
    fn new(communities: &[u32], num_communities: usize, context: &RunContext<'_>) -> Result<Self, KernelError> {
        let mut cancel_check = CancelCheck::new(context);
        let mut offsets = vec![0_u32; num_communities + 1];
        for &community in communities {
            cancel_check.spend(1)?;
            offsets[community as usize + 1] += 1;
        }
        for community in 0..num_communities {
            offsets[community + 1] += offsets[community];
        }
        let mut next = offsets.clone();
        let mut nodes = vec![0; communities.len()];
        for (node, &community) in (0..).zip(communities) {
            cancel_check.spend(1)?;
            let next = &mut next[community as usize];
            nodes[*next as usize] = node;
            *next += 1;
        }
        Ok(Self { nodes, offsets })
    }

    fn of(&self, community: u32) -> &[u32] {
        let community = community as usize;
        &self.nodes[self.offsets[community] as usize..self.offsets[community + 1] as usize]
    }
}

/// The rows of some communities.
#[derive(Default)]
struct Rows {
    lengths: Vec<u32>,
    columns: Vec<u32>,
    weights: Vec<u64>,
    degrees: Vec<u64>,
    inner_arcs: u64,
}

impl Rows {
    /// Adds the row of a community.
    fn push(
        &mut self,
        graph: &LevelGraph,
        communities: &[u32],
        community: u32,
        members: &[u32],
        table: &mut WeightTable<u64>,
        cancel_check: &mut CancelCheck<'_>,
    ) -> Result<(), KernelError> {
        let arcs: usize = members.iter().map(|&node| graph.row_len(node)).sum();
        table.clear(arcs.min(communities.len()));
        let (mut degree, mut inner) = (0, 0);
        for &node in members {
            cancel_check.spend(1 + graph.row_len(node))?;
            degree += graph.degrees[node as usize];
            for (other, weight) in graph.row(node) {
                let other = communities[other as usize];
                if other == community {
                    inner += weight;
                } else {
                    table.add(other, weight);
                }
            }
        }
        let before = self.columns.len();
        for (other, weight) in table.iter() {
            self.columns.push(other);
            self.weights.push(weight);
        }
        self.lengths.push((self.columns.len() - before) as u32);
        self.degrees.push(degree);
        self.inner_arcs += inner;
        Ok(())
    }
}

/// Returns the graph whose nodes are the communities, which are numbered from 0.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn aggregate(
    graph: &LevelGraph,
    communities: &[u32],
    num_communities: usize,
    context: &RunContext<'_>,
) -> Result<LevelGraph, KernelError> {
    let members = Members::new(communities, num_communities, context)?;
    // The arcs before those of each community, so that chunks are about the same work.
    let mut arcs_before = vec![0];
    let mut cancel_check = CancelCheck::new(context);
    let mut arcs = 0;
    for community in 0..num_communities as u32 {
        let members = members.of(community);
        cancel_check.spend(members.len())?;
        arcs += members.iter().map(|&node| graph.row_len(node) as u32).sum::<u32>();
        arcs_before.push(arcs);
    }
    let all: Vec<u32> = (0..num_communities as u32).collect();
    let parts = map_chunks(&arcs_before, &all, context, |chunk, cancel_check| {
        let (mut rows, mut table) = (Rows::default(), WeightTable::default());
        for &community in chunk {
            rows.push(graph, communities, community, members.of(community), &mut table, cancel_check)?;
        }
        Ok(rows)
    })?;
    let mut offsets = vec![0];
    let (mut columns, mut weights, mut degrees) = (Vec::new(), Vec::new(), Vec::new());
    let mut inner_arcs = graph.inner_arcs;
    for Rows { lengths, columns: of_columns, weights: of_weights, degrees: of_degrees, inner_arcs: inner } in parts {
        context.check()?;
        let mut end = columns.len() as u32;
        for length in lengths {
            end += length;
            offsets.push(end);
        }
        columns.extend(of_columns);
        weights.extend(of_weights);
        degrees.extend(of_degrees);
        inner_arcs += inner;
    }
    let (offsets, columns, weights) = (offsets.into(), columns.into(), Some(weights));
    Ok(LevelGraph { offsets, columns, weights, degrees, inner_arcs, all_arcs: graph.all_arcs })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;
    use crate::kernels::graph::arc_units::ArcUnits;
    use crate::kernels::graph::cases::random_edges;
    use crate::kernels::graph::csr::{CsrGraph, Direction};

    #[test]
    fn weights_are_the_arcs_between_communities() {
        let context = RunContext::detached();
        let mut random = Random::new(7);
        let graph = CsrGraph::from_edges(3_000, &random_edges(3_000, &mut random), Direction::Undirected).unwrap();
        let mut level = LevelGraph::first(&graph, ArcUnits::new(&graph, true), &context).unwrap();
        let mut of_nodes: Vec<u32> = (0..3_000).collect();
        for most in [200, 10, 1] {
            let mut merged: Vec<u32> =
                (0..level.num_nodes()).map(|node| random.below(most.min(node as u64 + 1)) as u32).collect();
            let count = number(&mut merged, &context).unwrap();
            level = aggregate(&level, &merged, count, &context).unwrap();
            of_nodes.iter_mut().for_each(|node| *node = merged[*node as usize]);
            let mut expected = vec![0; count * count];
            for node in 0..3_000 {
                for &other in graph.successors().row(node) {
                    expected[of_nodes[node as usize] as usize * count + of_nodes[other as usize] as usize] += 1;
                }
            }
            let mut inner = 0;
            for community in 0..count {
                let row = &mut expected[community * count..(community + 1) * count];
                assert_eq!(level.degrees[community], row.iter().sum::<u64>());
                inner += std::mem::take(&mut row[community]);
                let mut weights = vec![0; count];
                level.row(community as u32).for_each(|(other, weight)| weights[other as usize] = weight);
                assert_eq!(weights, row);
            }
            assert_eq!(level.inner_arcs, inner);
        }
    }
}
