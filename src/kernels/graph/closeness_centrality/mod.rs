//! `graph/closeness-centrality`: the reciprocal of each node's mean distance from the other nodes of an unweighted graph.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `nodes` | `u32`, `[k]`, default all | score these nodes only, exactly |
//! | `sources` | `u32`, `[s]` | estimate the scores of all nodes from their distances from these nodes |
//! | `samples` | integer | estimate them from this many nodes, drawn with `seed` |
//! | `seed` | integer, default 0 | with `samples` only |
//! | `wf_improved` | bool, default true | scale by the fraction of the graph that leads to the node |
//! | out: `scores` | `f64`, `[num_nodes]` or `[k]` | one for each node, or for each of `nodes` |
//!
//! The score of a node is `r / d`, for the `r` other nodes from which a path leads to the node, and the sum `d` of their
//! distances in arcs; 0 if there are none. With `wf_improved` it is multiplied by `r / (num_nodes - 1)` (Wasserman and
//! Faust, *Social network analysis*, 1994), which makes scores of different components comparable and changes nothing in
//! a connected graph. Edges of a directed graph are followed towards the node. These are the scores of
//! `closeness_centrality(G, wf_improved)` of networkx 3.6.
//!
//! With `sources` or `samples`, `r` and `d` are those of the chosen nodes, and `num_nodes - 1` is the number of chosen
//! nodes other than the node itself: Eppstein and Wang, *Fast approximation of centrality* (2004). With `s` of them, the
//! error of a mean distance is about `diameter / sqrt(s)` at most.
//!
//! Freeman, *Centrality in social networks: conceptual clarification* (1979). The searches are breadth-first and share the
//! graph, 512 in a pass on the CPU and 1024 on CUDA ([Then et al., 2014](super)), where it has few levels; a pass then takes
//! the time of some visits of all nodes and arcs. In a deep graph, such as a road network, each search visits them by itself:
//! as many threads as there are search at the same time on the CPU, and all sources at once on CUDA. Scores are quotients of
//! exact integers and the same on every backend.
//!
//! Requests on the same graph [share a run](crate::backends::batched), in which all of `nodes` are searched from together.
//!
//! # Errors
//! An invalid graph; more than one of `nodes`, `sources` and `samples`; one of them that is empty, larger than the graph,
//! or has a node twice or one that is not in the graph; `seed` without `samples`. The error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::CsrGraph;
use super::fields::graph_input;
use super::multi_source_search::{self, DistanceSum, SearchGraph, Searcher, SumBy};
use super::sources::{SourcesInput, check_distinct};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClosenessCentrality;

graph_input! {
    /// The input of `graph/closeness-centrality`.
    pub struct ClosenessInput {
        /// The nodes to score; all if it is left out.
        pub nodes: Option<Buffer<u32>> = None,
        /// The nodes to estimate the scores of all nodes from.
        pub sources: Option<Buffer<u32>> = None,
        /// How many nodes to draw and estimate from.
        pub samples: Option<u64> = None,
        /// What the draw of `samples` depends on; 0 where it is left out.
        pub seed: Option<u64> = None,
        /// Whether scores are multiplied by the fraction of the graph that leads to the node.
        pub wf_improved: bool = true,
    }
}

/// The output of `graph/closeness-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClosenessOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
}

impl ClosenessInput {
    fn sources_input(&self) -> SourcesInput<'_> {
        SourcesInput { sources: self.sources.as_deref(), samples: self.samples, seed: self.seed }
    }

    fn is_estimate(&self) -> bool {
        self.sources.is_some() || self.samples.is_some()
    }

    fn sum_by(&self) -> SumBy {
        if self.is_estimate() { SumBy::Node } else { SumBy::Source }
    }

    /// Returns the number of nodes to search from that the input claims, before it is checked.
    fn num_searches(&self) -> u64 {
        let (nodes, _) = self.graph_input().claimed_size();
        self.nodes.as_ref().map_or_else(|| self.sources_input().claimed(nodes), |nodes| nodes.len() as u64)
    }

    /// Returns the score of a node from its distances from `others` nodes, some of which may not lead to it.
    fn score(&self, sum: &DistanceSum, others: usize) -> f64 {
        if sum.count == 0 {
            return 0.0;
        }
        let reached = sum.count as f64;
        let score = reached / sum.total as f64;
        if self.wf_improved { score * (reached / others as f64) } else { score }
    }

    /// Returns the output of an estimate.
    fn estimate(&self, graph: &CsrGraph, searcher: &mut impl Searcher) -> Result<ClosenessOutput, KernelError> {
        let num_nodes = graph.num_nodes();
        let sources = self.sources_input().choose(num_nodes);
        let search_graph = SearchGraph::along_edges(graph, searcher.context())?;
        let sums = searcher.search(search_graph, &sources, SumBy::Node)?;
        let mut others = vec![sources.len(); num_nodes];
        sources.iter().for_each(|&source| others[source as usize] -= 1);
        let scores = sums.iter().zip(others).map(|(sum, others)| self.score(sum, others)).collect::<Vec<_>>();
        Ok(ClosenessOutput { scores: scores.into() })
    }
}

/// Returns the outputs of requests on one graph. The nodes that are scored exactly are searched from together.
fn run_batch(inputs: &[&ClosenessInput], searcher: &mut impl Searcher) -> Result<Vec<ClosenessOutput>, KernelError> {
    let Some(first) = inputs.first() else { return Ok(Vec::new()) };
    let graph = first.graph_input().load_in(searcher.context())?;
    let num_nodes = graph.num_nodes();
    let exact = || inputs.iter().filter(|input| !input.is_estimate());
    let is_all = exact().any(|input| input.nodes.is_none());
    let nodes: Vec<u32> = if is_all {
        (0..num_nodes as u32).collect()
    } else {
        exact().filter_map(|input| input.nodes.as_deref()).flatten().copied().collect()
    };
    let sums = if nodes.is_empty() {
        Vec::new()
    } else {
        // Distances are those to the nodes that are scored.
        let search_graph = SearchGraph::against_edges(&graph, searcher.context())?;
        searcher.search(search_graph, &nodes, SumBy::Source)?
    };
    let mut first = 0;
    let mut output = |input: &ClosenessInput| {
        let score = |sum: &DistanceSum| input.score(sum, num_nodes - 1);
        let scores: Vec<f64> = match &input.nodes {
            _ if input.is_estimate() => return input.estimate(&graph, searcher),
            None => sums.iter().map(score).collect(),
            Some(nodes) if is_all => nodes.iter().map(|&node| score(&sums[node as usize])).collect(),
            Some(nodes) => {
                let own = first..first + nodes.len();
                first = own.end;
                sums[own].iter().map(score).collect()
            }
        };
        Ok(ClosenessOutput { scores: scores.into() })
    };
    inputs.iter().map(|input| output(input)).collect()
}

impl Kernel for ClosenessCentrality {
    type Input = ClosenessInput;
    type Output = ClosenessOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Closeness centrality of an unweighted graph: of all nodes or of some, or estimated from some.";
        KernelInfo::new("graph/closeness-centrality", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ClosenessInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        input.sources_input().validate(num_nodes)?;
        match &input.nodes {
            Some(_) if input.is_estimate() => Err(InvalidInput::new(
                "nodes",
                "an estimate scores all nodes; leave out this field, or sources and samples",
            )),
            Some(nodes) => check_distinct("nodes", nodes, num_nodes),
            None => Ok(()),
        }
    }

    fn cost(&self, input: &ClosenessInput) -> Cost {
        multi_source_search::cost(&input.graph_input(), input.num_searches(), input.sum_by())
    }

    /// The exact requests share passes, and so the state of one.
    fn batch_cost(&self, inputs: &[&ClosenessInput], sum: Cost) -> Cost {
        let (estimates, exact): (Vec<&ClosenessInput>, Vec<_>) = inputs.iter().partition(|input| input.is_estimate());
        let searches = exact.iter().map(|input| input.num_searches()).fold(0, u64::saturating_add);
        let shared = exact
            .first()
            .map(|first| multi_source_search::cost(&first.graph_input(), searches, SumBy::Source).device_memory);
        let device_memory = estimates.iter().map(|input| self.cost(input).device_memory).chain(shared);
        Cost { device_memory: device_memory.fold(0, u64::saturating_add), ..sum }
    }

    fn footprint(&self, input: &ClosenessInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let scores = input.nodes.as_ref().map_or(nodes, |nodes| nodes.len() as u64);
        let chosen = input.sources_input().memory(nodes).saturating_add(Footprint::of_array::<u64>(nodes));
        let search = multi_source_search::scratch(&graph, input.num_searches(), input.sum_by());
        Some(Footprint { output: Footprint::of_array::<f64>(scores), scratch: search.saturating_add(chosen) })
    }

    fn operands(&self, input: &ClosenessInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &ClosenessInput, context: &RunContext<'_>) -> Result<ClosenessOutput, KernelError> {
        let mut outputs = self.run_cpu_batch(&[input], context)?;
        Ok(outputs.swap_remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        multi_source_search::cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &ClosenessInput, cuda: &mut LaunchContext<'_>) -> Result<ClosenessOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    fn batch_key(&self, input: &ClosenessInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &ClosenessInput, other: &ClosenessInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&ClosenessInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<ClosenessOutput>, KernelError> {
        run_batch(inputs, &mut { context })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&ClosenessInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<ClosenessOutput>, KernelError> {
        run_batch(inputs, cuda)
    }
}
