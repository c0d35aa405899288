//! `graph/degree-ratio`: in-degree over out-degree of each node, which tells sources from sinks.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | out: `in_degrees` | `u32`, `[num_nodes]` | arcs that lead to each node |
//! | out: `out_degrees` | `u32`, `[num_nodes]` | arcs that lead from each node |
//! | out: `ratios` | `f64`, `[num_nodes]` | `in_degree / out_degree` |
//!
//! The ratio is infinite for a node with predecessors and no successors (a sink), 0 for one with successors and no
//! predecessors (a source), and NaN for an isolated node. JSON has null for infinite and NaN; the degrees tell them
//! apart. In an undirected graph every node with neighbours has the ratio 1. Self-loops and repeated edges do not
//! count.
//!
//! Time is linear in nodes, and in arcs where predecessors have to be counted. There is no CUDA code: each byte of the
//! graph is used once, and takes longer to copy to a device than to count.
//!
//! # Errors
//! An invalid graph; the error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::degree::{in_degrees, map_nodes, out_degrees};
use super::fields::graph_input;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct DegreeRatio;

graph_input! {
    /// The input of `graph/degree-ratio`.
    pub struct DegreeRatioInput {}
}

/// The output of `graph/degree-ratio`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DegreeRatioOutput {
    /// How many arcs lead to each node.
    pub in_degrees: Buffer<u32>,
    /// How many arcs lead from each node.
    pub out_degrees: Buffer<u32>,
    /// The in-degree of each node over its out-degree.
    pub ratios: Buffer<f64>,
}

impl Kernel for DegreeRatio {
    type Input = DegreeRatioInput;
    type Output = DegreeRatioOutput;

    fn info(&self) -> KernelInfo {
        let description = "Ratio of the in-degree of each node to its out-degree. Runs on the CPU only: copying a \
                           graph to a device takes longer than counting.";
        KernelInfo::new("graph/degree-ratio", "1.0.0", description).pure()
    }

    fn validate(&self, input: &DegreeRatioInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &DegreeRatioInput) -> Cost {
        let (nodes, arcs) = input.graph_input().claimed_size();
        let counted = nodes.saturating_mul(32).saturating_add(arcs.saturating_mul(4));
        let bytes = input.graph_input().load_bytes().saturating_add(counted);
        Cost { bytes, operations: nodes.saturating_add(arcs), device_memory: 0 }
    }

    fn footprint(&self, input: &DegreeRatioInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let output = Footprint::of_array::<[u32; 2]>(nodes).saturating_add(Footprint::of_array::<f64>(nodes));
        Some(Footprint { output, scratch: graph.load_memory() })
    }

    fn operands(&self, input: &DegreeRatioInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &DegreeRatioInput, context: &RunContext<'_>) -> Result<DegreeRatioOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let (in_degrees, out_degrees) = (in_degrees(&graph, context)?, out_degrees(&graph, context)?);
        let ratio = |node: u32| f64::from(in_degrees[node as usize]) / f64::from(out_degrees[node as usize]);
        let ratios = map_nodes(graph.num_nodes(), context, ratio)?;
        Ok(DegreeRatioOutput { in_degrees: in_degrees.into(), out_degrees: out_degrees.into(), ratios: ratios.into() })
    }
}
