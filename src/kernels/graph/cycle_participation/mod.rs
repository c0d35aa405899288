//! `graph/cycle-participation`: how many cycles of two, three and four nodes go through each node.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | out: `two_cycles` | `u64`, `[num_nodes]` | cycles of two nodes through each node |
//! | out: `three_cycles` | `u64`, `[num_nodes]` | cycles of three nodes through each node |
//! | out: `four_cycles` | `u64`, `[num_nodes]` | cycles of four nodes through each node |
//! | out: `total_two_cycles` | integer | cycles of two nodes in the graph |
//! | out: `total_three_cycles` | integer | cycles of three nodes in the graph |
//! | out: `total_four_cycles` | integer | cycles of four nodes in the graph |
//!
//! A cycle visits different nodes and returns to the first; where it begins does not matter. It may have chords: each four
//! nodes of a clique form three cycles. In a directed graph it follows the arcs, so a cycle of two nodes is a pair of
//! opposite arcs. In an undirected graph the two ways round are the same cycle, there is no cycle of two nodes, and those
//! of three are the triangles. Self-loops and repeated edges change nothing. These are the cycles that `simple_cycles` of
//! networkx 3.6 lists with a `length_bound` of 4, without the loops.
//!
//! The algorithm counts wedges, paths of two arcs, at the node of highest degree of each cycle, after Chiba and Nishizeki,
//! *Arboricity and subgraph listing algorithms* (1985). For n nodes and m edges it takes O(n + m^1.5) time, on the CPU with 12
//! bytes a node and thread.
//!
//! # Errors
//! An invalid graph; the error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::Direction;
use super::cycles::{self, CycleCounts};
use super::fields::graph_input;
use super::triangles;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct CycleParticipation;

graph_input! {
    /// The input of `graph/cycle-participation`.
    pub struct CycleParticipationInput {}
}

/// The output of `graph/cycle-participation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CycleParticipationOutput {
    /// How many cycles of two nodes go through each node.
    pub two_cycles: Buffer<u64>,
    /// How many cycles of three nodes go through each node.
    pub three_cycles: Buffer<u64>,
    /// How many cycles of four nodes go through each node.
    pub four_cycles: Buffer<u64>,
    /// How many cycles of two nodes the graph has.
    pub total_two_cycles: u64,
    /// How many cycles of three nodes the graph has.
    pub total_three_cycles: u64,
    /// How many cycles of four nodes the graph has.
    pub total_four_cycles: u64,
}

impl Kernel for CycleParticipation {
    type Input = CycleParticipationInput;
    type Output = CycleParticipationOutput;

    fn info(&self) -> KernelInfo {
        let description = "Number of cycles of two, three and four nodes through each node.";
        KernelInfo::new("graph/cycle-participation", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &CycleParticipationInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &CycleParticipationInput) -> Cost {
        // Each wedge is visited twice.
        let triangles = triangles::cost(&input.graph_input());
        let (nodes, arcs) = input.graph_input().claimed_size();
        Cost {
            operations: triangles.operations.saturating_mul(4),
            device_memory: cycles::device_memory(nodes, arcs),
            ..triangles
        }
    }

    fn footprint(&self, input: &CycleParticipationInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        // Three counts of each node, and those of the graph.
        let output = Footprint::of_array::<[u64; 3]>(nodes.saturating_add(1));
        Some(Footprint { output, scratch: triangles::scratch(&graph).saturating_add(cycles::scratch(nodes, arcs)) })
    }

    fn operands(&self, input: &CycleParticipationInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &CycleParticipationInput,
        context: &RunContext<'_>,
    ) -> Result<CycleParticipationOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        Ok(cycles::count(&graph, graph.direction() == Direction::Directed, context)?.into())
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cycles::cuda::modules().to_vec()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &CycleParticipationInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<CycleParticipationOutput, KernelError> {
        if !cycles::cuda::supports(input.graph_input().claimed_size().1) {
            return Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CUDA" });
        }
        let graph = input.graph_input().load_in(cuda.context())?;
        Ok(cycles::cuda::count(&graph, cuda)?.into())
    }
}

impl From<CycleCounts> for CycleParticipationOutput {
    fn from(CycleCounts { two, three, four }: CycleCounts) -> Self {
        // A cycle is counted at each of its nodes.
        let total = |counts: &[u64], nodes: u64| counts.iter().sum::<u64>() / nodes;
        Self {
            total_two_cycles: total(&two, 2),
            total_three_cycles: total(&three, 3),
            total_four_cycles: total(&four, 4),
            two_cycles: two,
            three_cycles: three,
            four_cycles: four,
        }
    }
}
