//! `graph/modularity-score`: the modularity of a partition of the nodes into communities.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`], with or without weights, which are not negative |
//! | `communities` | `u32`, `[num_nodes]` | the community of each node, below `num_nodes` |
//! | `resolution` | `f64`, default 1, not negative | above 1 favours small communities, below 1 large ones |
//! | `use_weights` | bool, default true | false counts the edges of a graph that has weights |
//! | out: `modularity` | `f64` | Q, at most 1 |
//! | out: `coverage` | `f64` | the fraction of edges between nodes of the same community, or of their weight |
//!
//! For m edges, `Q = sum over communities c of (L(c) / m - resolution * K(c))`, where `L(c)` is the number of edges within
//! the community. `K(c)` is the square of `D(c) / 2 m` in an undirected graph, where `D(c)` is the sum of the degrees of
//! its nodes, and `Dout(c) * Din(c) / m^2` in a directed one: Newman, *Modularity and community structure in networks*
//! (2006); Leicht and Newman, *Community structure in directed networks* (2008). Any numbers may be left out, and which
//! number a community has does not matter. Where weights are used, the sum of the weights of edges takes the place of their
//! number, in m, L and degrees alike: Newman, *Analysis of weighted networks* (2004).
//!
//! The values are those of `modularity` and, without weights, of the coverage of `partition_quality` of networkx 3.6, for
//! graphs without self-loops and parallel edges, which are dropped. Both are 0 for a graph without edges, or without any
//! weight, where networkx raises `ZeroDivisionError`. The time is linear in nodes and arcs; memory is 32 bytes a node. Edges
//! and degrees are counted in integers, so the result has the same bits on every backend, and is exact to three roundings of
//! `f64`. Weights are rounded to multiples of less than 2^-61 of the sum of all: it is those of less than 2^-38 of the sum
//! that this changes.
//!
//! # Errors
//! An invalid graph, a negative weight where weights are used, communities that are not one for each node or not below
//! `num_nodes`, or a resolution that is negative or not finite; the error names the field.

mod cases;
mod counts;
#[cfg(feature = "cuda")]
pub(in crate::kernels::graph) mod cuda;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(in crate::kernels::graph) use self::counts::{CommunityCounts, degrees};
use super::arc_units::ArcUnits;
use super::csr::Direction;
use super::fields::graph_input;
use super::input::GraphInput;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ModularityScore;

graph_input! {
    examples = [
        { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "communities": [0, 0, 1, 1] },
        { "row_offsets": [0, 1, 2, 3, 4], "column_indices": [1, 0, 3, 2], "communities": [2, 2, 0, 0], "resolution": 0.5 },
    ];
    /// The input of `graph/modularity-score`.
    pub struct ModularityScoreInput {
        /// The community of each node, below the number of nodes.
        pub communities: Buffer<u32> = Buffer::default(),
        /// The weight of the edges that are expected within communities, not negative.
        pub resolution: f64 = 1.0,
        /// The weights of the edges, one for each of `edges` or `column_indices`: finite and not negative.
        pub weights: Option<Buffer<f32>> = None,
        /// Whether edges count by their weights, where the graph has weights.
        pub use_weights: bool = true,
    }
}

/// The output of `graph/modularity-score`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModularityScoreOutput {
    /// The modularity.
    pub modularity: f64,
    /// The fraction of edges between nodes of the same community, or of their weight.
    pub coverage: f64,
}

impl ModularityScoreInput {
    /// The fields that describe the graph, with the weights.
    fn weighted_graph(&self) -> GraphInput<'_> {
        GraphInput { weights: self.weights.as_ref(), takes_weights: true, ..self.graph_input() }
    }

    fn output(&self, counts: &CommunityCounts) -> ModularityScoreOutput {
        ModularityScoreOutput { modularity: counts.modularity(self.resolution), coverage: counts.coverage() }
    }
}

/// Checks the field `resolution`.
pub(in crate::kernels::graph) fn check_resolution(resolution: f64) -> Result<(), InvalidInput> {
    if resolution >= 0.0 && resolution.is_finite() {
        return Ok(());
    }
    Err(InvalidInput::new("resolution", format!("{resolution}, and it is finite and not negative")))
}

impl Kernel for ModularityScore {
    type Input = ModularityScoreInput;
    type Output = ModularityScoreOutput;

    fn info(&self) -> KernelInfo {
        let description = "Modularity and coverage of a partition of a graph's nodes, by edges or weights.";
        KernelInfo::new("graph/modularity-score", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ModularityScoreInput) -> Result<(), InvalidInput> {
        let num_nodes = input.weighted_graph().validate()?;
        if input.use_weights {
            input.weighted_graph().check_not_negative()?;
        }
        let communities = &input.communities;
        if communities.len() != num_nodes {
            let reason = format!("{} values, and the graph has {num_nodes} nodes", communities.len());
            return Err(InvalidInput::new("communities", reason));
        }
        if let Some(node) = communities.iter().position(|&community| community as usize >= num_nodes) {
            let reason = format!("{}, and communities are below the {num_nodes} nodes", communities[node]);
            return Err(InvalidInput::new(format!("communities[{node}]"), reason));
        }
        check_resolution(input.resolution)
    }

    fn cost(&self, input: &ModularityScoreInput) -> Cost {
        let graph = input.weighted_graph();
        let (nodes, arcs) = graph.claimed_size();
        Cost {
            bytes: graph.load_bytes().saturating_add(nodes.saturating_mul(4)),
            // A lookup for each arc, and one in a hash table for each node and direction.
            operations: arcs.saturating_mul(2).saturating_add(nodes.saturating_mul(8)).saturating_add(2_000),
            device_memory: device_memory(&graph, input.use_weights && graph.has_weights()),
        }
    }

    fn footprint(&self, input: &ModularityScoreInput) -> Option<Footprint> {
        let graph = input.weighted_graph();
        let (nodes, _) = graph.claimed_size();
        let scratch = graph.load_memory().saturating_add(CommunityCounts::workspace(nodes));
        Some(Footprint { output: size_of::<[f64; 2]>() as u64, scratch })
    }

    fn operands(&self, input: &ModularityScoreInput) -> Vec<Arc<OperandVersion>> {
        input.weighted_graph().operands()
    }

    fn run_cpu(
        &self,
        input: &ModularityScoreInput,
        context: &RunContext<'_>,
    ) -> Result<ModularityScoreOutput, KernelError> {
        let graph = input.weighted_graph().load_in(context)?;
        let units = ArcUnits::new(&graph, input.use_weights);
        Ok(input.output(&CommunityCounts::count(&graph, units, &input.communities, context)?))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ModularityScoreInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ModularityScoreOutput, KernelError> {
        let graph = input.weighted_graph().load_in(cuda.context())?;
        let communities = cuda.input(&input.communities)?;
        let device_graph = cuda::DeviceGraph::new(&graph, cuda)?;
        let weights = cuda::DeviceWeights::new(ArcUnits::new(&graph, input.use_weights), cuda)?;
        Ok(input.output(&cuda::count(&device_graph, weights.as_ref(), &communities, cuda)?))
    }
}

#[cfg(feature = "cuda")]
fn device_memory(graph: &GraphInput<'_>, is_weighted: bool) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    // The graph, its weights, and the communities.
    let arrays = nodes.saturating_mul(8).saturating_add(arcs.saturating_mul(if is_weighted { 8 } else { 4 }));
    arrays.saturating_add(cuda::device_memory(nodes, graph.direction() == Direction::Directed, is_weighted))
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GraphInput<'_>, _: bool) -> u64 {
    0
}
