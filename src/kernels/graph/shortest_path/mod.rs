//! `graph/shortest-path`: the distances from some sources to all nodes of a graph, or to some, by edges or by their weights.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`], with or without weights |
//! | `sources` | `u32`, `[k]`, default node 0 | the nodes where paths start, at least one |
//! | `targets` | `u32`, `[t]`, optional | the nodes to which distances are returned, at least one; without it, all nodes |
//! | `predecessors` | bool, default false | whether to return the predecessors too; only without `targets` |
//! | `paths` | bool, default false | whether to return a shortest path to each target too |
//! | `max_path_nodes` | `u32`, default 1048576 | the most nodes that the paths may have together |
//! | `use_weights` | bool, default true | false counts the edges of a graph that has weights |
//! | out: `distances` | `u32`, `[k * num_nodes]` or `[k * t]` | edges on a shortest path from each source to each node or target, source by source; empty where weights are used |
//! | out: `weighted_distances` | `f64`, `[k * num_nodes]` or `[k * t]` | the sums of the weights instead, where weights are used |
//! | out: `predecessors` | `u32`, `[k * num_nodes]` | the node before each node on a shortest path; empty unless requested |
//! | out: `path_offsets` | `u32`, `[k * t + 1]` | where the path from each source to each target begins in `path_nodes`, in the order of the distances, and the end; only if paths are requested |
//! | out: `path_nodes` | `u32` | the nodes of the paths, from the source to the target; only if paths are requested |
//!
//! The distance to a node that no path leads to is [`UNREACHABLE`], 4294967295, or infinite where weights are used, which is
//! `null` in JSON. The predecessor of such a node and of the source itself is `UNREACHABLE` as well. Of several possible
//! predecessors it is the lowest, so the output is the same on every backend. Following predecessors back from a node gives a
//! shortest path; where weights are used, one with the fewest edges. `paths` are these: empty to a target that no path leads
//! to, and of one node from a node to itself. Distances are those of
//! `single_source_shortest_path_length` and `single_source_dijkstra_path_length` of networkx 3.6.
//!
//! With `targets` a search ends when it has reached all of them, and the response has what leads to them alone: for one pair
//! of nodes of a graph of a million, a few bytes in place of four million. Paths in a directed graph need the predecessors of
//! all nodes, which are made at the first request on a stored graph, and stay.
//!
//! Weights are not negative, and are added as `f64` in the order of the path, so a distance is the least of those sums.
//!
//! By edges: breadth-first search that changes its direction, by Beamer, Asanović and Patterson, *Direction-optimizing
//! breadth-first search* (2012), in parallel on the CPU and on CUDA. The time for each source is at most linear in nodes and
//! arcs; a search whose levels are large does not read most arcs. On CUDA all sources are searched from at the same time. In
//! a directed graph the search changes its direction only if the predecessors of all nodes are at hand: those of a graph that
//! came as an edge list.
//!
//! By weights: delta-stepping by Meyer and Sanders, *Δ-stepping: a parallelizable shortest path algorithm* (2003). Nodes wait
//! in buckets of distances, each 32 mean weights over the mean degree wide. A node may be visited again while its bucket is
//! worked on: with weights of about the same size the time is nearly linear, and at worst that of nodes times arcs. On CUDA
//! there are two buckets, near and far, by Davidson, Baxter, Garland and Owens, *Work-efficient parallel GPU methods for
//! single-source shortest paths* (2014).
//!
//! # Errors
//! An invalid graph; a negative weight where weights are used; no sources or targets, one that is not in the graph, or more than
//! 2^32 - 1 distances; paths without targets, predecessors with targets, or paths with more nodes than `max_path_nodes`. The
//! error names the field.

mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod targets;
#[cfg(feature = "cuda")]
mod targets_cuda;
mod weighted;
#[cfg(feature = "cuda")]
mod weighted_cuda;

use std::sync::Arc;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::targets::Targets;
use super::csr::{Adjacency, CsrGraph, Direction};
use super::fields::graph_input;
use super::input::GraphInput;
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
    examples = [
        { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]] },
        { "row_offsets": [0, 2, 4, 6, 8], "column_indices": [1, 3, 0, 2, 1, 3, 0, 2] },
        { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]], "sources": [0, 1], "targets": [3] },
    ];
    /// The input of `graph/shortest-path`.
    pub struct ShortestPathInput {
        /// The nodes where paths start.
        pub sources: Buffer<u32> = vec![0].into(),
        /// The nodes to which distances are returned, in place of all nodes.
        pub targets: Option<Buffer<u32>> = None,
        /// Whether to return the predecessors too, which there are only without `targets`.
        pub predecessors: bool = false,
        /// Whether to return a shortest path to each of `targets` too.
        pub paths: bool = false,
        /// The most nodes that the paths may have together.
        pub max_path_nodes: u32 = 1 << 20,
        /// The weights of the edges, one for each of `edges` or `column_indices`: finite and not negative.
        pub weights: Option<Buffer<f32>> = None,
        /// Whether distances are sums of weights, where the graph has weights.
        pub use_weights: bool = true,
    }
}

/// The output of `graph/shortest-path`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ShortestPathOutput {
    /// The distances from each source in edges, one source after the other; empty where weights are used.
    pub distances: Buffer<u32>,
    /// The distances as sums of weights, where weights are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weighted_distances: Option<Buffer<f64>>,
    /// The predecessors of all nodes on paths from each source; empty unless requested.
    pub predecessors: Buffer<u32>,
    /// Where the path from each source to each target begins in `path_nodes`, and the end, if paths are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_offsets: Option<Buffer<u32>>,
    /// The nodes of the paths, one path after the other, if paths are requested.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_nodes: Option<Buffer<u32>>,
}

impl ShortestPathOutput {
    /// Returns the output with the offsets and the nodes of paths.
    fn with_paths(self, [offsets, nodes]: [Buffer<u32>; 2]) -> Self {
        Self { path_offsets: Some(offsets), path_nodes: Some(nodes), ..self }
    }
}

impl ShortestPathInput {
    /// The fields that describe the graph, with the weights.
    fn weighted_graph(&self) -> GraphInput<'_> {
        GraphInput { weights: self.weights.as_ref(), takes_weights: true, ..self.graph_input() }
    }

    /// Returns whether distances are sums of weights.
    fn is_weighted(&self) -> bool {
        self.use_weights && self.weighted_graph().has_weights()
    }

    /// The number of distances that the input asks for, before it is checked.
    fn num_distances(&self) -> u64 {
        (self.sources.len() as u64).saturating_mul(self.nodes_per_source())
    }

    /// The number of distances from each source.
    fn nodes_per_source(&self) -> u64 {
        self.targets.as_ref().map_or_else(|| self.weighted_graph().claimed_size().0, |targets| targets.len() as u64)
    }

    /// The most nodes that the paths have.
    fn path_nodes(&self) -> u64 {
        let nodes = self.num_distances().saturating_mul(self.weighted_graph().claimed_size().0);
        if self.paths { nodes.min(self.max_path_nodes.into()) } else { 0 }
    }

    fn output_bytes(&self) -> u64 {
        let distances = match self.is_weighted() {
            true => Footprint::of_array::<f64>(self.num_distances()),
            false => Footprint::of_array::<u32>(self.num_distances()),
        };
        let predecessors = if self.predecessors { self.num_distances() } else { 0 };
        let offsets = if self.paths { self.num_distances().saturating_add(1) } else { 0 };
        [predecessors, offsets, self.path_nodes()]
            .map(Footprint::of_array::<u32>)
            .into_iter()
            .fold(distances, u64::saturating_add)
    }

    /// Checks the nodes of a field of which there are to be some.
    fn check_nodes(field: &str, nodes: &[u32], num_nodes: usize) -> Result<(), InvalidInput> {
        if nodes.is_empty() {
            return Err(InvalidInput::new(field, "none, and at least one is needed"));
        }
        let Some(index) = nodes.iter().position(|&node| node as usize >= num_nodes) else { return Ok(()) };
        let reason = format!("node {}, and the graph has {num_nodes} nodes", nodes[index]);
        Err(InvalidInput::new(format!("{field}[{index}]"), reason))
    }

    fn check_targets(&self, num_nodes: usize) -> Result<(), InvalidInput> {
        match &self.targets {
            Some(_) if self.predecessors => {
                Err(InvalidInput::new("predecessors", "there are those of all nodes only; with targets, ask for paths"))
            }
            Some(targets) => Self::check_nodes("targets", targets, num_nodes),
            None if self.paths => {
                Err(InvalidInput::new("paths", "there are those to targets only, and none are given"))
            }
            None => Ok(()),
        }
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
            "Distances from some nodes of a graph to all or to some, by edges or weights, with paths if requested.";
        KernelInfo::new("graph/shortest-path", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ShortestPathInput) -> Result<(), InvalidInput> {
        let num_nodes = input.weighted_graph().validate()?;
        if input.use_weights {
            input.weighted_graph().check_not_negative()?;
        }
        ShortestPathInput::check_nodes("sources", &input.sources, num_nodes)?;
        input.check_targets(num_nodes)?;
        if input.num_distances() > u32::MAX.into() {
            let (sources, to) = (input.sources.len(), input.nodes_per_source());
            let reason = format!("{sources} sources of {to} distances each, and {} distances are the most", u32::MAX);
            return Err(InvalidInput::new("sources", reason));
        }
        Ok(())
    }

    fn cost(&self, input: &ShortestPathInput) -> Cost {
        let graph = input.weighted_graph();
        let (nodes, arcs) = graph.claimed_size();
        // A search by weights visits some arcs again, and keeps its nodes in buckets.
        let visits_per_arc = if input.is_weighted() { 4 } else { 1 };
        let sources = input.sources.len() as u64;
        let passes = if input.predecessors || input.paths { 2 } else { 1 };
        let visits = nodes.saturating_add(arcs).saturating_mul(sources).saturating_mul(passes * visits_per_arc);
        Cost {
            bytes: graph.load_bytes().saturating_add(visits.saturating_mul(8)),
            operations: visits.saturating_mul(2).saturating_add(2_000),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &ShortestPathInput) -> Option<Footprint> {
        let graph = input.weighted_graph();
        let (nodes, arcs) = graph.claimed_size();
        let workspace = if input.is_weighted() { weighted::workspace(nodes, arcs) } else { cpu::workspace(nodes) };
        // The outputs of each source are joined at the end.
        let parts = if input.is_weighted() || input.targets.is_some() { input.output_bytes() } else { 0 };
        // By weights the workspace has the distances to all nodes.
        let to_all = if input.targets.is_some() && !input.is_weighted() { cpu::workspace(nodes) } else { 0 };
        // With the weights, as many numbers again.
        let predecessors = if input.paths { graph.predecessors_memory().saturating_mul(2) } else { 0 };
        let scratch =
            [workspace, parts, to_all, predecessors].into_iter().fold(graph.load_memory(), u64::saturating_add);
        Some(Footprint { output: input.output_bytes(), scratch })
    }

    fn min_output(&self, input: &ShortestPathInput) -> Option<u64> {
        // How many nodes the paths have depends on the graph.
        input.paths.then(|| input.output_bytes().saturating_sub(Footprint::of_array::<u32>(input.path_nodes())))
    }

    fn operands(&self, input: &ShortestPathInput) -> Vec<Arc<OperandVersion>> {
        input.weighted_graph().operands()
    }

    fn run_cpu(&self, input: &ShortestPathInput, context: &RunContext<'_>) -> Result<ShortestPathOutput, KernelError> {
        let graph = input.weighted_graph().load_in(context)?;
        let weights = graph.successors().weights().filter(|_| input.use_weights);
        match (weights, Targets::of(input)) {
            (Some(weights), Some(targets)) => weighted::search_to(&graph, weights, &input.sources, targets, context),
            (None, Some(targets)) => cpu::search_to(&graph, &input.sources, targets, context),
            (Some(weights), None) => weighted::search(&graph, weights, &input.sources, input.predecessors, context),
            (None, None) => cpu::search(&graph, &input.sources, input.predecessors, context),
        }
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        cuda::modules().into_iter().chain([&weighted_cuda::MODULE]).collect()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ShortestPathInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ShortestPathOutput, KernelError> {
        let graph = input.weighted_graph().load_in(cuda.context())?;
        let weights = graph.successors().weights().filter(|_| input.use_weights);
        match (weights, Targets::of(input)) {
            (Some(weights), Some(targets)) => weighted_cuda::search_to(&graph, weights, &input.sources, targets, cuda),
            (None, Some(targets)) => cuda::search_to(&graph, &input.sources, targets, cuda),
            (Some(weights), None) => weighted_cuda::search(&graph, weights, &input.sources, input.predecessors, cuda),
            (None, None) => cuda::search(&graph, &input.sources, input.predecessors, cuda),
        }
    }
}

/// Runs a search on the CPU from each source, side by side. Returns both parts of their results, in the order of the sources.
///
/// # Errors
/// Those of `run`.
fn from_each<T: Send, U: Send>(
    sources: &[u32],
    run: impl Fn(&u32) -> Result<(T, U), KernelError> + Send + Sync,
) -> Result<(Vec<T>, Vec<U>), KernelError> {
    let found: Vec<_> = match sources {
        [source] => vec![run(source)?],
        _ => sources.par_iter().map(run).collect::<Result<_, _>>()?,
    };
    Ok(found.into_iter().unzip())
}

/// Joins the outputs of the batches, of which there is mostly one.
#[cfg(feature = "cuda")]
fn joined<T: crate::service::Element>(mut batches: Vec<Buffer<T>>) -> Buffer<T> {
    match batches.len() {
        1 => batches.swap_remove(0),
        _ => batches.iter().map(|batch| &batch[..]).collect::<Vec<_>>().concat().into(),
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &ShortestPathInput) -> u64 {
    let (nodes, arcs) = input.weighted_graph().claimed_size();
    let sources = input.sources.len() as u64;
    let with_predecessors = input.predecessors || input.paths;
    let of_targets = match &input.targets {
        Some(_) => targets_cuda::device_memory(input.num_distances(), input.path_nodes(), input.paths),
        None => 0,
    };
    let of_search = if input.is_weighted() {
        weighted_cuda::device_memory(nodes, arcs, sources, with_predecessors)
    } else {
        let directed = input.weighted_graph().direction() == Direction::Directed;
        cuda::device_memory(nodes, arcs, sources, with_predecessors, directed)
    };
    of_search.saturating_add(of_targets)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &ShortestPathInput) -> u64 {
    0
}
