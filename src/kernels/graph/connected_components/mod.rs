//! `graph/connected-components`: the connected components of a graph, weak or strong.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `strong` | bool, default false | strongly connected components of a directed graph |
//! | out: `components` | `u32`, `[num_nodes]` | the component of each node |
//! | out: `sizes` | `u32`, `[num_components]` | the number of nodes of each component |
//! | out: `num_components` | integer | |
//!
//! Two nodes are in the same component if a path leads from one to the other. Edges of a directed graph are followed in both
//! directions; with `strong`, in their own direction only, and there must be a path either way. In an undirected graph both
//! kinds are the same. Components are numbered from 0 by their lowest nodes, so node 0 is in component 0, and the output is
//! the same on every backend. These are `connected_components`, `weakly_connected_components` and
//! `strongly_connected_components` of networkx 3.6.
//!
//! Weak components: Sutton, Ben-Nun and Barak, *Optimizing parallel graph connectivity computation via subgraph sampling*
//! (2018), in parallel on the CPU and on CUDA, with the pointer jumping of Jaiganesh and Burtscher, *A high-performance
//! connected components implementation for GPUs* (2018). The time is about linear in nodes and arcs; most arcs of an
//! undirected graph with a large component are never read.
//!
//! Strong components on the CPU: Tarjan, *Depth-first search and linear graph algorithms* (1972), without recursion, on one
//! thread, in time linear in nodes and arcs. On CUDA: Alabandi, Sands, Biros and Burtscher, *A GPU algorithm for detecting
//! strongly connected components* (2023), in passes of rounds over the arcs that remain. There are O(log nodes) passes in
//! expectation, whatever the graph, and as many rounds in a pass as the longest shortest path has arcs at most. Most graphs
//! take few: a road-like one of 2^20 nodes 105 rounds, 5 ms on an H200. Many long cycles in a row take the most: 10 485
//! cycles of 100 nodes 3 218 rounds, 92 ms.
//!
//! # Errors
//! An invalid graph; the error names the field.

mod cases;
#[cfg(feature = "cuda")]
pub(super) mod cuda;
pub(super) mod numbering;
mod strong;
#[cfg(feature = "cuda")]
mod strong_cuda;
pub(super) mod weak;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::{CsrGraph, Direction};
use super::fields::graph_input;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ConnectedComponents;

graph_input! {
    /// The input of `graph/connected-components`.
    pub struct ConnectedComponentsInput {
        /// Whether paths must lead both ways between the nodes of a component of a directed graph.
        pub strong: bool = false,
    }
}

/// The output of `graph/connected-components`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConnectedComponentsOutput {
    /// The component of each node.
    pub components: Buffer<u32>,
    /// The number of nodes of each component.
    pub sizes: Buffer<u32>,
    /// The number of components.
    pub num_components: u32,
}

impl ConnectedComponentsInput {
    /// Returns whether components are strong ones that differ from the weak ones.
    fn is_strong(&self) -> bool {
        self.strong && self.graph_input().direction() == Direction::Directed
    }
}

impl Kernel for ConnectedComponents {
    type Input = ConnectedComponentsInput;
    type Output = ConnectedComponentsOutput;

    fn info(&self) -> KernelInfo {
        let description = "Connected components of a graph, weak or strong, with their sizes.";
        KernelInfo::new("graph/connected-components", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ConnectedComponentsInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &ConnectedComponentsInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let weak = cost(nodes, arcs);
        let device_memory = if input.is_strong() { strong_device_memory(nodes, arcs) } else { weak.device_memory };
        Cost { bytes: graph.load_bytes().saturating_add(weak.bytes), device_memory, ..weak }
    }

    fn footprint(&self, input: &ConnectedComponentsInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let scratch = if input.is_strong() { strong::workspace(nodes) } else { weak::workspace(nodes) };
        Some(Footprint {
            // There may be as many components as nodes.
            output: Footprint::of_array::<[u32; 2]>(nodes),
            scratch: graph.load_memory().saturating_add(scratch),
        })
    }

    fn operands(&self, input: &ConnectedComponentsInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &ConnectedComponentsInput,
        context: &RunContext<'_>,
    ) -> Result<ConnectedComponentsOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        if input.is_strong() {
            return numbering::number(strong::lowest_nodes(&graph, context)?, context);
        }
        weak_components(&graph, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &strong_cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ConnectedComponentsInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ConnectedComponentsOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        if input.is_strong() { strong_cuda::components(&graph, cuda) } else { cuda::components(&graph, cuda) }
    }
}

/// Returns the cost of finding weak components in a graph that is there.
pub(super) fn cost(nodes: u64, arcs: u64) -> Cost {
    // Each arc reads the parent of its other end, which is seldom in a cache.
    let visits = nodes.saturating_mul(4).saturating_add(arcs);
    Cost {
        bytes: nodes.saturating_mul(24).saturating_add(arcs.saturating_mul(4)),
        operations: visits.saturating_mul(4).saturating_add(2_000),
        device_memory: device_memory(nodes, arcs),
    }
}

/// Returns the weakly connected components of a graph.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn weak_components(
    graph: &CsrGraph,
    context: &RunContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    numbering::number(weak::lowest_nodes(graph, context)?, context)
}

#[cfg(feature = "cuda")]
fn device_memory(nodes: u64, arcs: u64) -> u64 {
    cuda::device_memory(nodes, arcs)
}

#[cfg(feature = "cuda")]
fn strong_device_memory(nodes: u64, arcs: u64) -> u64 {
    strong_cuda::device_memory(nodes, arcs)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: u64, _: u64) -> u64 {
    0
}

#[cfg(not(feature = "cuda"))]
fn strong_device_memory(_: u64, _: u64) -> u64 {
    0
}
