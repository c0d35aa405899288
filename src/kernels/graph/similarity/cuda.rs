//! The scores on CUDA. `similarity.cu` describes the algorithm and what its entries take.

mod pairs;
mod requests;
mod top;

pub(in crate::kernels::graph) use self::requests::run;
use super::measure::{Measure, WeightSum};
use crate::cuda::{DeviceBuffer, Module, device_code};
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::node_ranges::map_ranges;
use crate::service::{KernelError, LaunchContext};

pub(in crate::kernels::graph) static MODULE: Module = Module::embedded(device_code!("graph/similarity"));

/// Returns the bytes that a run holds on the device for a graph and a number of pairs, or of nodes with this many similar
/// ones.
pub(super) fn device_memory(nodes: u64, arcs: u64, pairs: Option<u64>, count: u64, each: u64) -> u64 {
    // The weights too, of which there are at most as many as nodes.
    let graph = nodes.saturating_mul(12).saturating_add(arcs.saturating_mul(4));
    let run = match pairs {
        Some(pairs) => pairs::device_memory(pairs),
        None => top::device_memory(count, each),
    };
    graph.saturating_add(run)
}

/// A graph on the device, and what a common neighbour adds to a sum.
struct DeviceGraph {
    nodes: u32,
    arcs: usize,
    offsets: DeviceBuffer<u32>,
    columns: DeviceBuffer<u32>,
    measure: u32,
    /// By degree, for [`Measure::AdamicAdar`].
    weights: Option<DeviceBuffer<u64>>,
}

impl DeviceGraph {
    /// Returns the arrays of a graph, which the device keeps if it is stored.
    ///
    /// # Errors
    /// Those of the launch context.
    fn new(graph: &CsrGraph, measure: Measure, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let weights = match measure {
            Measure::AdamicAdar => Some(cuda.upload(&weights(graph, cuda)?)?),
            _ => None,
        };
        Ok(Self {
            nodes: graph.num_nodes() as u32,
            arcs: graph.num_arcs(),
            offsets: cuda.input(graph.successors().row_offsets())?,
            columns: cuda.input(graph.successors().column_indices())?,
            measure: measure as u32,
            weights,
        })
    }
}

/// Returns the weight of a node of each degree up to the highest.
fn weights(graph: &CsrGraph, cuda: &LaunchContext<'_>) -> Result<Vec<u64>, KernelError> {
    let degrees = map_ranges(graph.num_nodes(), cuda.context(), |nodes, _| {
        Ok(nodes.map(|node| graph.successors().degree(node)).max().unwrap_or(0))
    })?;
    let highest = degrees.into_iter().max().unwrap_or(0);
    let weights = map_ranges(highest + 1, cuda.context(), |degrees, _| {
        // A node with one neighbour is no common neighbour.
        let weight = |degree: u32| if degree < 2 { 0 } else { WeightSum::units(degree as usize) };
        Ok(degrees.map(weight).collect::<Vec<_>>())
    })?;
    Ok(weights.concat())
}
