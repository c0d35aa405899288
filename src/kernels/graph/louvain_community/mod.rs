//! `graph/louvain-community`: communities of high modularity by Louvain's method.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`], undirected, with or without weights, which are not negative |
//! | `resolution` | `f64`, default 1, not negative | above 1 favours small communities, below 1 large ones |
//! | `max_iterations` | `u32`, default 100, at least 1 | sweeps over the nodes of each level |
//! | `min_modularity_gain` | `f64`, default 1e-7, not negative | sweeps and levels that gain less are the last ones |
//! | `seed` | `u64`, default 0 | chooses the order in which nodes move |
//! | `use_weights` | bool, default true | false counts the edges of a graph that has weights |
//! | out: `communities` | `u32`, `[num_nodes]` | the community of each node, numbered by their lowest nodes |
//! | out: `sizes` | `u32`, `[num_communities]` | the nodes of each community |
//! | out: `num_communities` | `u32` | |
//! | out: `modularity` | `f64` | as of [`graph/modularity-score`](super::modularity_score) with this resolution |
//! | out: `levels` | `u32` | how often the nodes of a graph were moved: of the input, or of merged communities |
//! | out: `iterations` | `u32` | the sweeps of all levels |
//!
//! Blondel, Guillaume, Lambiotte and Lefebvre, *Fast unfolding of communities in large networks* (2008). Each node begins
//! as a community of its own. In a sweep, each node moves to the community among those of its neighbours for which the
//! modularity rises most. When sweeps gain no more, communities become the nodes of a smaller graph, a level, whose nodes
//! are moved in the same way. All of this is done again from the communities that were found, as long as it gains 0.001:
//! Rotta and Noack, *Multilevel local search algorithms for modularity clustering* (2011).
//!
//! Nodes are moved in parallel: a sweep goes through 16 groups of nodes, which a hash of the node, the sweep and the seed
//! chooses; up to 64 nodes are moved one by one. The nodes of a group choose their communities at the same time, and then
//! all of them move. So neighbours seldom move past each other, and if they do, they are in different groups in the next
//! sweep; Lu, Halappanavar and Kalyanaraman, *Parallel heuristics for scalable community detection* (2015) describe the
//! problem and other ways around it. Nodes are skipped while none of their neighbours moves: Traag, Waltman and van Eck,
//! *From Louvain to Leiden* (2019). The modularity is computed from exact counts after each sweep. A sweep that does not
//! raise it is undone, so the result is never below that of single nodes. It is the same on every backend and any number of
//! threads.
//!
//! Where weights are used, nodes choose by the sums of the weights of edges instead of their numbers, which are added up in
//! integers, as in `graph/modularity-score`, so that these sums do not depend on the order. With them,
//! `louvain_communities` of networkx 3.6 finds communities of about the same modularity.
//!
//! A sweep takes time linear in nodes and arcs; most time goes into the first level. Memory is up to 96 bytes a node and
//! 24 an arc, and 8 an arc for weights; on the device it is 136 bytes a node and 32 an arc, or 50 with weights. Directed
//! graphs are rejected.
//!
//! On CUDA, a thread, a warp or a block looks at the neighbours of a node, by their number, as in Naim, Manne, Halappanavar
//! and Tumeo, *Community detection on the GPU* (2017).
//!
//! # Errors
//! An invalid or directed graph, a negative weight where weights are used, no iterations, or a resolution or gain that is
//! negative or not finite; the error names the field.

mod aggregate;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod level_graph;
mod local_moving;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::aggregate::{aggregate, number};
use self::level_graph::LevelGraph;
use self::local_moving::{Limits, Moved, move_nodes};
use super::arc_units::ArcUnits;
use super::connected_components::{ConnectedComponentsOutput, numbering};
use super::csr::CsrGraph;
use super::degree::map_nodes;
use super::fields::graph_input;
use super::input::GraphInput;
use super::modularity_score::{CommunityCounts, check_resolution};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The gain of modularity of a pass over all levels after which there is another one.
const MIN_PASS_GAIN: f64 = 1e-3;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct LouvainCommunity;

graph_input! {
    /// The input of `graph/louvain-community`.
    pub struct LouvainCommunityInput {
        /// The weight of the edges that are expected within communities, not negative.
        pub resolution: f64 = 1.0,
        /// The most sweeps over the nodes of each level, at least 1.
        pub max_iterations: u32 = 100,
        /// The gain of modularity below which a sweep or a level is the last one, not negative.
        pub min_modularity_gain: f64 = 1e-7,
        /// Chooses the order in which nodes move.
        pub seed: u64 = 0,
        /// The weights of the edges, one for each of `edges` or `column_indices`: finite and not negative.
        pub weights: Option<Buffer<f32>> = None,
        /// Whether edges count by their weights, where the graph has weights.
        pub use_weights: bool = true,
    }
}

impl LouvainCommunityInput {
    /// The fields that describe the graph, with the weights.
    fn weighted_graph(&self) -> GraphInput<'_> {
        GraphInput { weights: self.weights.as_ref(), takes_weights: true, ..self.graph_input() }
    }

    /// Returns whether edges count by their weights.
    fn is_weighted(&self) -> bool {
        self.use_weights && self.weighted_graph().has_weights()
    }

    fn limits(&self) -> Limits {
        Limits {
            resolution: self.resolution,
            max_sweeps: self.max_iterations,
            min_gain: self.min_modularity_gain,
            seed: self.seed,
        }
    }
}

/// The output of `graph/louvain-community`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LouvainCommunityOutput {
    /// The community of each node. Communities are numbered by their lowest nodes.
    pub communities: Buffer<u32>,
    /// The number of nodes of each community.
    pub sizes: Buffer<u32>,
    /// The number of communities.
    pub num_communities: u32,
    /// The modularity of the communities.
    pub modularity: f64,
    /// How often the nodes of a graph were moved: of the input, or of merged communities.
    pub levels: u32,
    /// The sweeps of all levels.
    pub iterations: u32,
}

impl Kernel for LouvainCommunity {
    type Input = LouvainCommunityInput;
    type Output = LouvainCommunityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Communities of high modularity of an undirected graph, by edges or weights (Louvain).";
        KernelInfo::new("graph/louvain-community", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &LouvainCommunityInput) -> Result<(), InvalidInput> {
        input.weighted_graph().validate_undirected()?;
        if input.use_weights {
            input.weighted_graph().check_not_negative()?;
        }
        check_resolution(input.resolution)?;
        if input.max_iterations == 0 {
            return Err(InvalidInput::new("max_iterations", "0, and 1 is the least"));
        }
        let gain = input.min_modularity_gain;
        if !(gain >= 0.0 && gain.is_finite()) {
            return Err(InvalidInput::new("min_modularity_gain", format!("{gain}, and it is finite and not negative")));
        }
        Ok(())
    }

    fn cost(&self, input: &LouvainCommunityInput) -> Cost {
        /// Sweeps over all nodes of the first level of a usual graph, after which most nodes are skipped, and the work of
        /// the other levels.
        const USUAL_SWEEPS: u32 = 8;
        let graph = input.weighted_graph();
        let (nodes, arcs) = graph.claimed_size();
        // Each arc reads a community, which is seldom in a cache, adds to a table, and is counted after the sweep.
        let steps = nodes.saturating_add(arcs).saturating_mul(input.max_iterations.min(USUAL_SWEEPS).into());
        Cost {
            bytes: graph.load_bytes().saturating_add(nodes.saturating_mul(32)),
            operations: steps.saturating_mul(10).saturating_add(5_000),
            device_memory: device_memory(nodes, arcs, input.is_weighted()),
        }
    }

    fn footprint(&self, input: &LouvainCommunityInput) -> Option<Footprint> {
        let graph = input.weighted_graph();
        let (nodes, arcs) = graph.claimed_size();
        // Nodes have thirteen words and a flag in a level, and tables of the rows that are worked on; the arcs of the next
        // level, with their weights, are made in parts, which are then joined.
        let weights = if input.is_weighted() { arcs } else { 0 };
        let scratch = Footprint::of_array::<[u32; 24]>(nodes)
            .saturating_add(Footprint::of_array::<[u32; 6]>(arcs))
            .saturating_add(Footprint::of_array::<u64>(weights));
        Some(Footprint {
            // There may be as many communities as nodes.
            output: Footprint::of_array::<[u32; 2]>(nodes).saturating_add(20),
            scratch: graph.load_memory().saturating_add(scratch),
        })
    }

    fn operands(&self, input: &LouvainCommunityInput) -> Vec<Arc<OperandVersion>> {
        input.weighted_graph().operands()
    }

    fn run_cpu(
        &self,
        input: &LouvainCommunityInput,
        context: &RunContext<'_>,
    ) -> Result<LouvainCommunityOutput, KernelError> {
        let graph = input.weighted_graph().load_in(context)?;
        let units = ArcUnits::new(&graph, input.use_weights);
        let Partition { communities, levels, sweeps } = find_communities(&graph, units, &input.limits(), context)?;
        let counts = CommunityCounts::count(&graph, units, &communities, context)?;
        let numbered = numbering::number(numbering::lowest_nodes(&communities, context)?, context)?;
        Ok(output(numbered, &counts, input.resolution, levels, sweeps))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &LouvainCommunityInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<LouvainCommunityOutput, KernelError> {
        let graph = input.weighted_graph().load_in(cuda.context())?;
        cuda::communities(&graph, ArcUnits::new(&graph, input.use_weights), &input.limits(), cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(nodes: u64, arcs: u64, is_weighted: bool) -> u64 {
    cuda::device_memory(nodes, arcs, is_weighted)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: u64, _: u64, _: bool) -> u64 {
    0
}

fn output(
    numbered: ConnectedComponentsOutput,
    counts: &CommunityCounts,
    resolution: f64,
    levels: u32,
    iterations: u32,
) -> LouvainCommunityOutput {
    let ConnectedComponentsOutput { components: communities, sizes, num_components: num_communities } = numbered;
    let modularity = counts.modularity(resolution);
    LouvainCommunityOutput { communities, sizes, num_communities, modularity, levels, iterations }
}

/// What the method finds.
struct Partition {
    communities: Vec<u32>,
    levels: u32,
    sweeps: u32,
}

fn find_communities(
    graph: &CsrGraph,
    units: ArcUnits<'_>,
    limits: &Limits,
    context: &RunContext<'_>,
) -> Result<Partition, KernelError> {
    let first = LevelGraph::first(graph, units, context)?;
    let communities = (0..graph.num_nodes() as u32).collect();
    let mut partition = Partition { communities, levels: 0, sweeps: 0 };
    while partition.run_pass(&first, limits, context)? >= MIN_PASS_GAIN {}
    Ok(partition)
}

impl Partition {
    /// Moves nodes, and then merged communities, level by level. Returns by how much the modularity has risen.
    fn run_pass(&mut self, first: &LevelGraph, limits: &Limits, context: &RunContext<'_>) -> Result<f64, KernelError> {
        let mut gain_of_pass = 0.0;
        let mut merged: Option<LevelGraph> = None;
        let mut start = self.communities.clone();
        loop {
            let level = merged.as_ref().unwrap_or(first);
            let Moved { mut communities, gain, sweeps } = move_nodes(level, &start, limits, self.levels, context)?;
            self.levels += 1;
            self.sweeps += sweeps;
            gain_of_pass += gain;
            if gain <= 0.0 {
                return Ok(gain_of_pass);
            }
            let num_communities = number(&mut communities, context)?;
            self.communities = match merged {
                None => communities.clone(),
                Some(_) => map_nodes(self.communities.len(), context, |node| {
                    communities[self.communities[node as usize] as usize]
                })?,
            };
            if gain < limits.min_gain {
                return Ok(gain_of_pass);
            }
            merged = Some(aggregate(level, &communities, num_communities, context)?);
            start = (0..num_communities as u32).collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::authoring::Random;

    #[test]
    fn planted_communities_are_found_by_any_number_of_threads() {
        // Communities of 100 nodes, each of which has 12 edges within and 4 to any node.
        let mut random = Random::new(9);
        let mut edges = Vec::new();
        for node in 0..20_000 {
            edges.extend((0..12).map(|_| [node, node / 100 * 100 + random.below(100) as u32]));
            edges.extend((0..4).map(|_| [node, random.below(20_000) as u32]));
        }
        let planted: Vec<u32> = (0..20_000).map(|node| node / 100).collect();
        let input = LouvainCommunityInput::from_edges(20_000, edges);
        let run = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| LouvainCommunity.run_cpu(&input, &RunContext::detached())).unwrap()
        };
        let output = run(1);
        assert_eq!(run(5), output);
        let graph = input.graph_input().build().unwrap();
        let of_planted = CommunityCounts::count(&graph, ArcUnits::new(&graph, true), &planted, &RunContext::detached());
        let of_planted = of_planted.unwrap().modularity(1.0);
        assert!(output.modularity > of_planted - 0.01, "{} and {of_planted}", output.modularity);
    }
}
