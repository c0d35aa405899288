//! `graph/density`: the edges of a graph as a fraction of those that it could have.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | out: `density` | `f64` | from 0 to 1 |
//! | out: `num_nodes` | `u64` | nodes |
//! | out: `num_edges` | `u64` | edges, without self-loops and repeats |
//!
//! With n nodes and m edges the density is `2 m / (n (n - 1))` in an undirected graph and `m / (n (n - 1))` in a
//! directed one, and 0 where there are no edges: `density` of networkx 3.6, for graphs without self-loops and parallel
//! edges.
//!
//! The time is that of building the graph, which drops repeated edges. There is no CUDA code: a device would have
//! nothing to compute.
//!
//! # Errors
//! An invalid graph; the error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::{CsrGraph, Direction};
use super::fields::graph_input;
use crate::service::{Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Density;

graph_input! {
    /// The input of `graph/density`.
    pub struct DensityInput {}
}

/// The output of `graph/density`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DensityOutput {
    /// The edges as a fraction of those that the graph could have.
    pub density: f64,
    /// The number of nodes.
    pub num_nodes: u64,
    /// The number of edges, without self-loops and repeats.
    pub num_edges: u64,
}

impl Kernel for Density {
    type Input = DensityInput;
    type Output = DensityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Density of a graph: its edges as a fraction of those that it could have. Runs on the CPU \
                           only: a device would have nothing to compute.";
        KernelInfo::new("graph/density", "1.0.0", description).alias("graph/graph-density").pure()
    }

    fn validate(&self, input: &DensityInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &DensityInput) -> Cost {
        let bytes = input.graph_input().load_bytes();
        Cost { bytes, operations: bytes, device_memory: 0 }
    }

    fn footprint(&self, input: &DensityInput) -> Option<Footprint> {
        Some(Footprint { output: 3 * size_of::<f64>() as u64, scratch: input.graph_input().load_memory() })
    }

    fn operands(&self, input: &DensityInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &DensityInput, context: &RunContext<'_>) -> Result<DensityOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        Ok(density(&graph))
    }
}

/// Returns the density of a graph, with what it is made of.
pub(super) fn density(graph: &CsrGraph) -> DensityOutput {
    let (nodes, arcs) = (graph.num_nodes() as u64, graph.num_arcs() as u64);
    let num_edges = if graph.direction() == Direction::Directed { arcs } else { arcs / 2 };
    // At most 2^28 nodes, so the product is exact. Without edges it may be 0.
    let density = if arcs == 0 { 0.0 } else { arcs as f64 / (nodes * (nodes - 1)) as f64 };
    DensityOutput { density, num_nodes: nodes, num_edges }
}
