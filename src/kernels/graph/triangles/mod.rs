//! Counts the triangles at each node, on the CPU and on CUDA, for the kernels that are about triangles.
//!
//! The algorithm goes through the arcs of an [`OrientedGraph`]: the successors of a node are put into a hash set, and
//! the successors of each of them are looked up in it. A hit is a triangle, which is counted for its three nodes.
//! Node-parallel with hash sets as in Pandey et al., *TRUST: Triangle counting reloaded on GPUs* (2021); O(m^1.5) time
//! for `m` edges.

#[cfg(feature = "cuda")]
pub(super) mod cuda;

use std::sync::atomic::{AtomicU64, Ordering};

use rayon::prelude::*;

use super::cancel_check::CancelCheck;
use super::csr::Adjacency;
use super::degree::map_nodes;
use super::input::GraphInput;
use super::oriented::OrientedGraph;
use super::row_counter::RowCounter;
use crate::service::{Cost, Footprint, KernelError, RunContext};

/// Nodes whose triangles one task counts.
const NODES_PER_TASK: usize = 64;

/// Returns how many triangles each node is a corner of.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn count(graph: &OrientedGraph, context: &RunContext<'_>) -> Result<Vec<u64>, KernelError> {
    let num_nodes = graph.num_nodes();
    let counts: Vec<AtomicU64> = (0..num_nodes).map(|_| AtomicU64::new(0)).collect();
    (0..num_nodes.div_ceil(NODES_PER_TASK)).into_par_iter().try_for_each_init(
        RowCounter::default,
        |counter, task| {
            let mut cancel_check = CancelCheck::new(context);
            let first = task * NODES_PER_TASK;
            for node in first..num_nodes.min(first + NODES_PER_TASK) {
                count_at(node as u32, graph.arcs(), counter, &counts, &mut cancel_check)?;
            }
            Ok::<_, KernelError>(())
        },
    )?;
    Ok(counts.into_iter().map(AtomicU64::into_inner).collect())
}

/// Counts the triangles of which `node` is the lowest corner, for each of their corners.
fn count_at(
    node: u32,
    arcs: &Adjacency,
    counter: &mut RowCounter,
    counts: &[AtomicU64],
    cancel_check: &mut CancelCheck<'_>,
) -> Result<(), KernelError> {
    let row = arcs.row(node);
    cancel_check.spend(1 + row.len())?;
    if row.len() < 2 {
        return Ok(());
    }
    counter.fill(row);
    let mut of_node = 0;
    for &middle in row {
        let other_row = arcs.row(middle);
        cancel_check.spend(other_row.len())?;
        let common = counter.count(other_row);
        counter.add(middle, common);
        of_node += u64::from(common);
    }
    if of_node > 0 {
        counts[node as usize].fetch_add(of_node, Ordering::Relaxed);
        counter.for_each(|other, count| {
            counts[other as usize].fetch_add(u64::from(count), Ordering::Relaxed);
        });
    }
    Ok(())
}

/// The clustering coefficient of a node: the fraction of pairs of its neighbours that have an edge between them, 0 if
/// it has fewer than two neighbours.
fn coefficient(triangles: u64, degree: u32) -> f64 {
    if degree < 2 {
        return 0.0;
    }
    let pairs = u64::from(degree) * u64::from(degree - 1) / 2;
    triangles as f64 / pairs as f64
}

/// Returns the clustering coefficient of each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn coefficients(
    triangles: &[u64],
    degrees: &[u32],
    context: &RunContext<'_>,
) -> Result<Vec<f64>, KernelError> {
    map_nodes(degrees.len(), context, |node| coefficient(triangles[node as usize], degrees[node as usize]))
}

/// Returns the cost of counting the triangles of a graph.
pub(super) fn cost(graph: &GraphInput<'_>) -> Cost {
    let (nodes, arcs) = graph.claimed_size();
    let bytes = graph.load_bytes().saturating_add(nodes.saturating_add(arcs).saturating_mul(16));
    // The bound O(m^1.5) is seldom reached: a mean degree of d takes about m * d steps.
    let mean_degree = arcs / nodes.max(1) + 1;
    let operations = arcs.saturating_mul(mean_degree).saturating_add(nodes).saturating_add(2_000);
    Cost { bytes, operations, device_memory: device_memory(graph) }
}

/// Returns the host memory of counting, without the outputs: the graph, and its oriented form with what it takes to
/// make it.
pub(super) fn scratch(graph: &GraphInput<'_>) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    let oriented = OrientedGraph::bytes(nodes, arcs, graph.direction());
    let counts = Footprint::of_array::<[u32; 3]>(nodes);
    graph.load_memory().saturating_add(oriented).saturating_add(graph.predecessors_memory()).saturating_add(counts)
}

#[cfg(feature = "cuda")]
fn device_memory(graph: &GraphInput<'_>) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    cuda::device_memory(nodes, OrientedGraph::bytes(nodes, arcs, graph.direction()))
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GraphInput<'_>) -> u64 {
    0
}
