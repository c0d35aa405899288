//! [`CommunityCounts`]: the integers that the modularity of a partition follows from.

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use crate::kernels::graph::arc_units::ArcUnits;
use crate::kernels::graph::cancel_check::{CancelCheck, INTERVAL};
use crate::kernels::graph::csr::{Adjacency, CsrGraph, Direction};
use crate::kernels::graph::degree::try_map_nodes;
use crate::kernels::graph::node_ranges::{for_each_range, map_ranges};
use crate::kernels::graph::weight_table::WeightTable;
use crate::service::{Footprint, KernelError, RunContext};

/// Sums of the [units](ArcUnits) of arcs for a partition of a graph. They are exact, so that the modularity has the same bits
/// on any backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels::graph) struct CommunityCounts {
    /// The units of all arcs. An edge that leads both ways is two arcs.
    pub(in crate::kernels::graph) arcs: u64,
    /// The units of the arcs between nodes of the same community.
    pub(in crate::kernels::graph) internal_arcs: u64,
    /// The sum over the communities of the product of their out-degrees and their in-degrees, in units. It is not more than
    /// the square of `arcs`.
    pub(in crate::kernels::graph) degree_products: u128,
}

impl CommunityCounts {
    /// Returns the fraction of arcs that are internal; 0 without arcs.
    pub(in crate::kernels::graph) fn coverage(&self) -> f64 {
        if self.arcs == 0 { 0.0 } else { self.internal_arcs as f64 / self.arcs as f64 }
    }

    /// Returns the modularity; 0 without arcs.
    pub(in crate::kernels::graph) fn modularity(&self, resolution: f64) -> f64 {
        if self.arcs == 0 {
            return 0.0;
        }
        let arcs = self.arcs as f64;
        self.coverage() - resolution * (self.degree_products as f64 / (arcs * arcs))
    }

    /// Counts on the CPU, in parallel. Each community is below the number of nodes.
    ///
    /// # Errors
    /// Those of [`RunContext::check`].
    pub(in crate::kernels::graph) fn count(
        graph: &CsrGraph,
        units: ArcUnits<'_>,
        communities: &[u32],
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let out_degrees = degrees(graph.successors(), units, context)?;
        let arcs = out_degrees.iter().sum();
        let internal_arcs = internal_arcs(graph, units, communities, context)?;
        let out_sums = sums(&out_degrees, communities, context)?;
        let degree_products = match graph.direction() {
            Direction::Undirected => sum_of_products(&out_sums, &out_sums, context)?,
            Direction::Directed => {
                let in_sums = sums(&in_degrees(graph, units, context)?, communities, context)?;
                sum_of_products(&out_sums, &in_sums, context)?
            }
        };
        Ok(Self { arcs, internal_arcs, degree_products })
    }

    /// Returns the host memory that [`count`](Self::count) takes.
    pub(in crate::kernels::graph) fn workspace(nodes: u64) -> u64 {
        Footprint::of_array::<[u64; 4]>(nodes)
    }
}

/// Returns the units of the arcs in each row.
pub(in crate::kernels::graph) fn degrees(
    rows: &Adjacency,
    units: ArcUnits<'_>,
    context: &RunContext<'_>,
) -> Result<Vec<u64>, KernelError> {
    let offsets = rows.row_offsets();
    try_map_nodes(offsets.len() - 1, context, |node, cancel_check| {
        let range = offsets[node as usize] as usize..offsets[node as usize + 1] as usize;
        if units.weights().is_none() {
            return Ok(range.len() as u64);
        }
        cancel_check.spend(range.len())?;
        Ok(range.map(|arc| units.get(arc)).sum())
    })
}

/// Returns the units of the arcs that lead to each node. Where the predecessors have not been made, they are not made.
fn in_degrees(graph: &CsrGraph, units: ArcUnits<'_>, context: &RunContext<'_>) -> Result<Vec<u64>, KernelError> {
    if let Some(predecessors) = graph.made_predecessors() {
        return degrees(predecessors, units.of_predecessors(predecessors), context);
    }
    let degrees: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(graph.num_nodes()).collect();
    let columns = graph.successors().column_indices();
    columns.par_chunks(INTERVAL).enumerate().try_for_each(|(chunk, columns)| {
        context.check()?;
        for (arc, &column) in (chunk * INTERVAL..).zip(columns) {
            degrees[column as usize].fetch_add(units.get(arc), Ordering::Relaxed);
        }
        Ok::<_, KernelError>(())
    })?;
    Ok(into_values(degrees))
}

fn internal_arcs(
    graph: &CsrGraph,
    units: ArcUnits<'_>,
    communities: &[u32],
    context: &RunContext<'_>,
) -> Result<u64, KernelError> {
    let internal_of = |node: u32, cancel_check: &mut CancelCheck<'_>| {
        cancel_check.spend(graph.successors().degree(node))?;
        let community = communities[node as usize];
        let row = graph.successors().indexed_row(node);
        let internal = row.filter(|&(_, other)| communities[other as usize] == community);
        Ok::<u64, KernelError>(internal.map(|(arc, _)| units.get(arc)).sum())
    };
    let of_ranges = map_ranges(graph.num_nodes(), context, |mut range, cancel_check| {
        range.try_fold(0, |sum, node| Ok(sum + internal_of(node, cancel_check)?))
    })?;
    Ok(of_ranges.into_iter().sum())
}

/// Returns the sum of the degrees of the nodes of each community.
fn sums(degrees: &[u64], communities: &[u32], context: &RunContext<'_>) -> Result<Vec<u64>, KernelError> {
    let sums: Vec<AtomicU64> = std::iter::repeat_with(AtomicU64::default).take(degrees.len()).collect();
    for_each_range(degrees.len(), context, |range, _| {
        // Threads would wait for each other at the sum of a large community, so each range adds to it once.
        let mut of_range = WeightTable::default();
        of_range.clear(range.len());
        for node in range {
            of_range.add(communities[node as usize], degrees[node as usize]);
        }
        for (community, sum) in of_range.iter() {
            sums[community as usize].fetch_add(sum, Ordering::Relaxed);
        }
        Ok(())
    })?;
    Ok(into_values(sums))
}

fn into_values(atomics: Vec<AtomicU64>) -> Vec<u64> {
    // In place: they have the same size.
    atomics.into_iter().map(AtomicU64::into_inner).collect()
}

fn sum_of_products(a: &[u64], b: &[u64], context: &RunContext<'_>) -> Result<u128, KernelError> {
    let of_ranges = map_ranges(a.len(), context, |range, _| {
        Ok(range.map(|index| u128::from(a[index as usize]) * u128::from(b[index as usize])).sum::<u128>())
    })?;
    Ok(of_ranges.into_iter().sum())
}
