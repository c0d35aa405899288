//! `graph/shortest-path`: the distances from some sources to all nodes of an unweighted graph.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `sources` | `u32`, `[k]`, default node 0 | the nodes where paths start, at least one |
//! | `predecessors` | bool, default false | whether to return the predecessors too |
//! | out: `distances` | `u32`, `[k * num_nodes]` | edges on a shortest path from each source to each node, source by source |
//! | out: `predecessors` | `u32`, `[k * num_nodes]` | the node before each node on a shortest path; empty unless requested |
//!
//! The distance to a node that no path leads to, and the predecessor of such a node and of the source itself, is
//! [`UNREACHABLE`], 4294967295. Of several possible predecessors it is the lowest, so the output is the same on every backend.
//! Following predecessors back from a node gives a shortest path. Distances are those of
//! `single_source_shortest_path_length` of networkx 3.6. Edges have no weights.
//!
//! Breadth-first search that changes its direction: Beamer, Asanović and Patterson, *Direction-optimizing breadth-first
//! search* (2012), in parallel on the CPU and on CUDA. The time for each source is at most linear in nodes and arcs; a search
//! whose levels are large does not read most arcs. On CUDA all sources are searched from at the same time.
//!
//! In a directed graph the search changes its direction only if the predecessors of all nodes are at hand: those of a graph
//! that came as an edge list.
//!
//! # Errors
//! An invalid graph; no sources, a source that is not in the graph, or more than 2^32 - 1 distances. The error names the
//! field.

mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;

use super::csr::{Adjacency, CsrGraph, Direction};
use super::fields::graph_input;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The distance to a node that no path leads to, and the predecessor of a node that has none.
pub const UNREACHABLE: u32 = u32::MAX;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ShortestPath;

graph_input! {
    /// The input of `graph/shortest-path`.
    pub struct ShortestPathInput {
        /// The nodes where paths start.
        pub sources: Buffer<u32> = vec![0].into(),
        /// Whether to return the predecessors too.
        pub predecessors: bool = false,
    }
}

/// The output of `graph/shortest-path`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct ShortestPathOutput {
    /// The distances from each source, one source after the other.
    pub distances: Buffer<u32>,
    /// The predecessors of all nodes on paths from each source; empty unless requested.
    pub predecessors: Buffer<u32>,
}

impl ShortestPathInput {
    /// The number of distances that the input asks for, before it is checked.
    fn num_distances(&self) -> u64 {
        (self.sources.len() as u64).saturating_mul(self.graph_input().claimed_size().0)
    }

    fn num_outputs(&self) -> u64 {
        self.num_distances().saturating_mul(if self.predecessors { 2 } else { 1 })
    }
}

/// Returns the predecessors of all nodes if they need not be made.
fn predecessors_at_hand(graph: &CsrGraph) -> Option<&Adjacency> {
    match graph.direction() {
        Direction::Undirected => Some(graph.successors()),
        Direction::Directed => graph.made_predecessors(),
    }
}

impl Kernel for ShortestPath {
    type Input = ShortestPathInput;
    type Output = ShortestPathOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Distances from some nodes of an unweighted graph to all nodes, with predecessors if requested.";
        KernelInfo::new("graph/shortest-path", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ShortestPathInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        if input.sources.is_empty() {
            return Err(InvalidInput::new("sources", "none, and at least one is needed"));
        }
        if let Some(index) = input.sources.iter().position(|&source| source as usize >= num_nodes) {
            let reason = format!("node {}, and the graph has {num_nodes} nodes", input.sources[index]);
            return Err(InvalidInput::new(format!("sources[{index}]"), reason));
        }
        let distances = input.sources.len().saturating_mul(num_nodes);
        if distances > u32::MAX as usize {
            let reason = format!(
                "{} sources of {num_nodes} nodes, and {} distances are the most",
                input.sources.len(),
                u32::MAX
            );
            return Err(InvalidInput::new("sources", reason));
        }
        Ok(())
    }

    fn cost(&self, input: &ShortestPathInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let sources = input.sources.len() as u64;
        let passes = if input.predecessors { 2 } else { 1 };
        let visits = nodes.saturating_add(arcs).saturating_mul(sources).saturating_mul(passes);
        Cost {
            bytes: graph.load_bytes().saturating_add(visits.saturating_mul(8)),
            operations: visits.saturating_mul(2).saturating_add(2_000),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &ShortestPathInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        Some(Footprint {
            output: Footprint::of_array::<u32>(input.num_outputs()),
            scratch: graph.load_memory().saturating_add(cpu::workspace(nodes)),
        })
    }

    fn operands(&self, input: &ShortestPathInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &ShortestPathInput, context: &RunContext<'_>) -> Result<ShortestPathOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        cpu::search(&graph, &input.sources, input.predecessors, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ShortestPathInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ShortestPathOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        cuda::search(&graph, &input.sources, input.predecessors, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &ShortestPathInput) -> u64 {
    let (nodes, arcs) = input.graph_input().claimed_size();
    let directed = input.graph_input().direction() == Direction::Directed;
    cuda::device_memory(nodes, arcs, input.sources.len() as u64, input.predecessors, directed)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &ShortestPathInput) -> u64 {
    0
}
