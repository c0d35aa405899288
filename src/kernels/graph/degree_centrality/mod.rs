//! `graph/degree-centrality`: the number of neighbours of each node, as a fraction of the other nodes.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `degree` | `"total"`, `"in"` or `"out"`, default total | which arcs of a directed graph count |
//! | `normalized` | bool, default true | divide by the number of other nodes |
//! | out: `scores` | `f64`, `[num_nodes]` | one for each node |
//!
//! A score is `degree / (num_nodes - 1)`, and 1 in a graph of one node; without `normalized` it is the degree. These
//! are `degree_centrality`, `in_degree_centrality` and `out_degree_centrality` of networkx 3.6, for graphs without
//! self-loops: self-loops and repeated edges are dropped. In an undirected graph all three degrees are the same. In a
//! directed graph the total is the sum of both, so a score may be up to 2.
//!
//! Freeman, *Centrality in social networks: conceptual clarification* (1979). Time is linear in nodes, and in arcs
//! where predecessors have to be counted. There is no CUDA code: each byte of the graph is used once, and takes longer
//! to copy to a device than to count.
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
pub struct DegreeCentrality;

/// Which arcs of a node count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Degree {
    /// Those that lead to it and those that lead from it.
    #[default]
    Total,
    /// Those that lead to it.
    In,
    /// Those that lead from it.
    Out,
}

graph_input! {
    /// The input of `graph/degree-centrality`.
    pub struct DegreeCentralityInput {
        /// Which arcs of a directed graph count.
        pub degree: Degree = Degree::Total,
        /// Whether scores are fractions of the other nodes.
        pub normalized: bool = true,
    }
}

/// The output of `graph/degree-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DegreeCentralityOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
}

impl Kernel for DegreeCentrality {
    type Input = DegreeCentralityInput;
    type Output = DegreeCentralityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Degree centrality: the neighbours of each node as a fraction of the other nodes. Runs \
                           on the CPU only: copying a graph to a device takes longer than counting.";
        KernelInfo::new("graph/degree-centrality", "1.0.0", description).pure()
    }

    fn validate(&self, input: &DegreeCentralityInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &DegreeCentralityInput) -> Cost {
        let (nodes, arcs) = input.graph_input().claimed_size();
        let counted = if input.degree == Degree::Out { 0 } else { arcs.saturating_mul(4) };
        let bytes = input.graph_input().load_bytes().saturating_add(nodes.saturating_mul(16)).saturating_add(counted);
        Cost { bytes, operations: nodes.saturating_add(arcs), device_memory: 0 }
    }

    fn footprint(&self, input: &DegreeCentralityInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let degrees = Footprint::of_array::<[u32; 2]>(nodes);
        Some(Footprint {
            output: Footprint::of_array::<f64>(nodes),
            scratch: graph.load_memory().saturating_add(degrees),
        })
    }

    fn operands(&self, input: &DegreeCentralityInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &DegreeCentralityInput,
        context: &RunContext<'_>,
    ) -> Result<DegreeCentralityOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let is_total = graph.direction() == super::csr::Direction::Directed && input.degree == Degree::Total;
        let degrees = match input.degree {
            Degree::In => in_degrees(&graph, context)?,
            Degree::Total | Degree::Out => out_degrees(&graph, context)?,
        };
        let others = if is_total { in_degrees(&graph, context)? } else { Vec::new() };
        let num_nodes = graph.num_nodes();
        let score = |node: u32| {
            let node = node as usize;
            let degree = f64::from(degrees[node]) + others.get(node).map_or(0.0, |&degree| f64::from(degree));
            match (input.normalized, num_nodes) {
                (false, _) => degree,
                (true, 1) => 1.0,
                (true, _) => degree / (num_nodes - 1) as f64,
            }
        };
        Ok(DegreeCentralityOutput { scores: map_nodes(num_nodes, context, score)?.into() })
    }
}
