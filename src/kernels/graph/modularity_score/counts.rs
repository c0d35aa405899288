//! [`CommunityCounts`]: the integers that the modularity of a partition follows from.

use std::sync::atomic::{AtomicU32, Ordering};

use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::kernels::graph::degree::{in_degrees, out_degrees};
use crate::kernels::graph::node_ranges::{for_each_range, into_values, map_ranges};
use crate::kernels::graph::weight_table::WeightTable;
use crate::service::{Footprint, KernelError, RunContext};

/// Counts of a partition of a graph. They are exact, so that the modularity has the same bits on any backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::kernels::graph) struct CommunityCounts {
    /// All arcs. An edge that leads both ways is two.
    pub(in crate::kernels::graph) arcs: u64,
    /// The arcs between nodes of the same community.
    pub(in crate::kernels::graph) internal_arcs: u64,
    /// The sum over the communities of the product of their out-degrees and their in-degrees. It is below 2^64: it is not
    /// more than the square of the number of arcs.
    pub(in crate::kernels::graph) degree_products: u64,
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
        communities: &[u32],
        context: &RunContext<'_>,
    ) -> Result<Self, KernelError> {
        let internal_arcs = internal_arcs(graph, communities, context)?;
        let out_sums = sums(&out_degrees(graph, context)?, communities, context)?;
        let degree_products = match graph.direction() {
            Direction::Undirected => sum_of_products(&out_sums, &out_sums, context)?,
            Direction::Directed => {
                let in_sums = sums(&in_degrees(graph, context)?, communities, context)?;
                sum_of_products(&out_sums, &in_sums, context)?
            }
        };
        Ok(Self { arcs: graph.num_arcs() as u64, internal_arcs, degree_products })
    }

    /// Returns the host memory that [`count`](Self::count) takes.
    pub(in crate::kernels::graph) fn workspace(nodes: u64) -> u64 {
        Footprint::of_array::<[u32; 4]>(nodes)
    }
}

fn internal_arcs(graph: &CsrGraph, communities: &[u32], context: &RunContext<'_>) -> Result<u64, KernelError> {
    let of_ranges = map_ranges(graph.num_nodes(), context, |range, cancel_check| {
        let mut internal = 0;
        for node in range {
            let row = graph.successors().row(node);
            cancel_check.spend(row.len())?;
            let community = communities[node as usize];
            internal += row.iter().filter(|&&other| communities[other as usize] == community).count() as u64;
        }
        Ok(internal)
    })?;
    Ok(of_ranges.into_iter().sum())
}

/// Returns the sum of the degrees of the nodes of each community.
fn sums(degrees: &[u32], communities: &[u32], context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let sums: Vec<AtomicU32> = std::iter::repeat_with(AtomicU32::default).take(degrees.len()).collect();
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

fn sum_of_products(a: &[u32], b: &[u32], context: &RunContext<'_>) -> Result<u64, KernelError> {
    let of_ranges = map_ranges(a.len(), context, |range, _| {
        Ok(range.map(|index| u64::from(a[index as usize]) * u64::from(b[index as usize])).sum::<u64>())
    })?;
    Ok(of_ranges.into_iter().sum())
}
