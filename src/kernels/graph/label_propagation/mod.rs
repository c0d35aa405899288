//! `graph/label-propagation`: communities by label propagation.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput), undirected |
//! | `max_iterations` | `u32`, default 100, at least 1 | sweeps over all nodes |
//! | `seed` | `u64`, default 0 | chooses the order of the nodes |
//! | out: `communities` | `u32`, `[num_nodes]` | the community of each node, numbered by their lowest nodes |
//! | out: `sizes` | `u32`, `[num_communities]` | the nodes of each community |
//! | out: `num_communities` | `u32` | |
//! | out: `modularity` | `f64` | as of [`graph/modularity-score`](super::modularity_score) with resolution 1 |
//! | out: `iterations` | `u32` | the sweeps, with the last one that changed no label |
//! | out: `converged` | bool | whether the last sweep changed no label |
//!
//! Each node begins with a label of its own, and takes the label that most of its neighbours have: Raghavan, Albert and
//! Kumara, *Near linear time algorithm to detect community structures in large-scale networks* (2007). Nodes are updated
//! as in Cordasco and Gargano, *Community detection via semi-synchronous label propagation algorithms* (2010): the graph is
//! coloured, so that neighbours have different colours, and the nodes of one colour are updated at the same time, one
//! colour after the other. As no two neighbours are updated together, no update makes fewer edges join equal labels, so
//! that labels do not oscillate as they do where all nodes are updated together. A node keeps its label if that is among
//! the most frequent ones, and takes the last of these in the order of the nodes otherwise.
//!
//! The colouring is greedy in the order of the nodes, which is that of a hash of node and seed. With the nodes added in
//! this order, and coloured in it, `label_propagation_communities` of networkx 3.6 gives the same communities. They are the
//! same on every backend.
//!
//! A sweep takes time linear in nodes and arcs; nodes are skipped while their neighbours keep their labels. Memory is 80
//! bytes a node. Directed graphs are rejected, as networkx does.
//!
//! # Errors
//! An invalid or directed graph, or no iterations; the error names the field.

mod cases;
mod coloring;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::connected_components::ConnectedComponentsOutput;
use super::fields::graph_input;
use super::modularity_score::CommunityCounts;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct LabelPropagation;

graph_input! {
    /// The input of `graph/label-propagation`.
    pub struct LabelPropagationInput {
        /// The most sweeps over all nodes, at least 1.
        pub max_iterations: u32 = 100,
        /// Chooses the order of the nodes, in which they are coloured and by which equally frequent labels are chosen.
        pub seed: u64 = 0,
    }
}

/// The output of `graph/label-propagation`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LabelPropagationOutput {
    /// The community of each node. Communities are numbered by their lowest nodes.
    pub communities: Buffer<u32>,
    /// The number of nodes of each community.
    pub sizes: Buffer<u32>,
    /// The number of communities.
    pub num_communities: u32,
    /// The modularity of the communities.
    pub modularity: f64,
    /// The sweeps, with the last one that changed no label.
    pub iterations: u32,
    /// Whether the last sweep changed no label.
    pub converged: bool,
}

fn output(
    numbered: ConnectedComponentsOutput,
    counts: &CommunityCounts,
    iterations: u32,
    converged: bool,
) -> LabelPropagationOutput {
    let ConnectedComponentsOutput { components: communities, sizes, num_components: num_communities } = numbered;
    let modularity = counts.modularity(1.0);
    LabelPropagationOutput { communities, sizes, num_communities, modularity, iterations, converged }
}

impl Kernel for LabelPropagation {
    type Input = LabelPropagationInput;
    type Output = LabelPropagationOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Communities of an undirected graph by label propagation, semi-synchronous and deterministic.";
        KernelInfo::new("graph/label-propagation", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &LabelPropagationInput) -> Result<(), InvalidInput> {
        input.graph_input().validate_undirected()?;
        if input.max_iterations == 0 {
            return Err(InvalidInput::new("max_iterations", "0, and 1 is the least"));
        }
        Ok(())
    }

    fn cost(&self, input: &LabelPropagationInput) -> Cost {
        /// Sweeps over all nodes of a usual graph, after which most nodes are skipped, and that of the colouring.
        const USUAL_SWEEPS: u32 = 6;
        let (nodes, arcs) = input.graph_input().claimed_size();
        let sweeps = u64::from(input.max_iterations.min(USUAL_SWEEPS)) + 1;
        // Each arc reads a label, which is seldom in a cache, and counts it.
        let steps = nodes.saturating_add(arcs).saturating_mul(sweeps);
        Cost {
            bytes: input.graph_input().load_bytes().saturating_add(nodes.saturating_mul(32)),
            operations: steps.saturating_mul(6).saturating_add(5_000),
            device_memory: device_memory(nodes, arcs),
        }
    }

    fn footprint(&self, input: &LabelPropagationInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        // There may be as many communities as nodes.
        let output = Footprint::of_array::<[u32; 2]>(nodes).saturating_add(16);
        Some(Footprint { output, scratch: graph.load_memory().saturating_add(cpu::workspace(nodes)) })
    }

    fn operands(&self, input: &LabelPropagationInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &LabelPropagationInput,
        context: &RunContext<'_>,
    ) -> Result<LabelPropagationOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        cpu::communities(&graph, input, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &LabelPropagationInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<LabelPropagationOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        cuda::communities(&graph, input, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(nodes: u64, arcs: u64) -> u64 {
    cuda::device_memory(nodes, arcs)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: u64, _: u64) -> u64 {
    0
}
