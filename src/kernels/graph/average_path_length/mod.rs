//! `graph/average-path-length`: the mean distance of two nodes of an unweighted graph, and the largest.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `sources` | `u32`, `[k]`, default all nodes | the nodes where paths start |
//! | `samples` | integer | start from this many nodes, drawn with `seed` |
//! | `seed` | integer, default 0 | with `samples` only |
//! | out: `average_path_length` | `f64` | the mean distance in arcs of all pairs of different nodes that a path leads between; 0 if there are none |
//! | out: `diameter` | `u64` | the largest of these distances |
//! | out: `num_pairs` | `u64` | the number of these pairs |
//! | out: `connected` | bool | whether a path leads from each source to every node |
//!
//! Pairs are ordered: an edge of an undirected graph connects two. In a connected graph, without `sources` and `samples`,
//! these are `average_shortest_path_length` and `diameter` of networkx 3.6; where networkx raises an error because the
//! graph is not connected, pairs without a path are left out. With `sources` or `samples`, they are those of the pairs
//! that start there: an estimate of the mean, and a lower bound of the diameter.
//!
//! The searches are those of [`closeness_centrality`](super::closeness_centrality), which says what they take. The mean is a
//! quotient of exact integers and the same on every backend.
//!
//! Requests on the same graph [share a run](crate::backends::batched), in which all sources are searched from together.
//!
//! # Errors
//! An invalid graph; `sources` together with `samples`; one of them that is empty, larger than the graph, or has a node
//! twice or one that is not in the graph; `seed` without `samples`. The error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::graph_input;
use super::multi_source_search::{self, DistanceSum, SearchGraph, Searcher, SumBy};
use super::sources::SourcesInput;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct AveragePathLength;

graph_input! {
    /// The input of `graph/average-path-length`.
    pub struct AveragePathLengthInput {
        /// The nodes where paths start; all if it is left out.
        pub sources: Option<Buffer<u32>> = None,
        /// How many nodes to draw and start from.
        pub samples: Option<u64> = None,
        /// What the draw of `samples` depends on; 0 where it is left out.
        pub seed: Option<u64> = None,
    }
}

/// The output of `graph/average-path-length`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct AveragePathLengthOutput {
    /// The mean distance of the pairs that a path leads between, in arcs.
    pub average_path_length: f64,
    /// The largest distance, in arcs.
    pub diameter: u64,
    /// The number of pairs of different nodes that a path leads between.
    pub num_pairs: u64,
    /// Whether a path leads from each source to every node.
    pub connected: bool,
}

impl AveragePathLengthInput {
    fn sources_input(&self) -> SourcesInput<'_> {
        SourcesInput { sources: self.sources.as_deref(), samples: self.samples, seed: self.seed }
    }

    /// Returns the number of sources that the input claims, before it is checked.
    fn num_sources(&self) -> u64 {
        self.sources_input().claimed(self.graph_input().claimed_size().0)
    }
}

impl AveragePathLengthOutput {
    /// Returns the output for the distances from each source.
    pub(super) fn new(sums: &[DistanceSum], num_nodes: usize) -> Self {
        let num_pairs: u64 = sums.iter().map(|sum| sum.count).sum();
        let total: u64 = sums.iter().map(|sum| sum.total).sum();
        Self {
            average_path_length: if num_pairs == 0 { 0.0 } else { total as f64 / num_pairs as f64 },
            diameter: sums.iter().map(|sum| sum.largest).max().unwrap_or(0),
            num_pairs,
            connected: sums.iter().all(|sum| sum.count == num_nodes as u64 - 1),
        }
    }
}

/// Returns the outputs of requests on one graph, all of whose sources are searched from together.
fn run_batch(
    inputs: &[&AveragePathLengthInput],
    searcher: &mut impl Searcher,
) -> Result<Vec<AveragePathLengthOutput>, KernelError> {
    let Some(first) = inputs.first() else { return Ok(Vec::new()) };
    let graph = first.graph_input().load_in(searcher.context())?;
    let num_nodes = graph.num_nodes();
    let sources: Vec<_> = inputs.iter().map(|input| input.sources_input().choose(num_nodes)).collect();
    let search_graph = SearchGraph::along_edges(&graph, searcher.context())?;
    let sums = searcher.search(search_graph, &sources.concat(), SumBy::Source)?;
    let mut rest = &sums[..];
    let output = |sources: &[u32]| {
        let (own, others) = rest.split_at(sources.len());
        rest = others;
        AveragePathLengthOutput::new(own, num_nodes)
    };
    Ok(sources.iter().map(|sources| &sources[..]).map(output).collect())
}

impl Kernel for AveragePathLength {
    type Input = AveragePathLengthInput;
    type Output = AveragePathLengthOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Average shortest path length and diameter of an unweighted graph: exact, or from some sources.";
        KernelInfo::new("graph/average-path-length", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &AveragePathLengthInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        input.sources_input().validate(num_nodes)
    }

    fn cost(&self, input: &AveragePathLengthInput) -> Cost {
        multi_source_search::cost(&input.graph_input(), input.num_sources(), SumBy::Source)
    }

    /// The requests share passes, and so the state of one.
    fn batch_cost(&self, inputs: &[&AveragePathLengthInput], sum: Cost) -> Cost {
        let Some(first) = inputs.first() else { return sum };
        let sources = inputs.iter().map(|input| input.num_sources()).fold(0, u64::saturating_add);
        let shared = multi_source_search::cost(&first.graph_input(), sources, SumBy::Source);
        Cost { device_memory: shared.device_memory, ..sum }
    }

    fn footprint(&self, input: &AveragePathLengthInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let sources = input.num_sources();
        // The sources, and those of all requests of a run.
        let chosen = input.sources_input().memory(graph.claimed_size().0).saturating_add(sources.saturating_mul(4));
        let scratch = multi_source_search::scratch(&graph, sources, SumBy::Source).saturating_add(chosen);
        Some(Footprint { output: size_of::<[u64; 3]>() as u64 + 1, scratch })
    }

    fn operands(&self, input: &AveragePathLengthInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &AveragePathLengthInput,
        context: &RunContext<'_>,
    ) -> Result<AveragePathLengthOutput, KernelError> {
        let mut outputs = self.run_cpu_batch(&[input], context)?;
        Ok(outputs.swap_remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        multi_source_search::cuda::modules()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &AveragePathLengthInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<AveragePathLengthOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    fn batch_key(&self, input: &AveragePathLengthInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &AveragePathLengthInput, other: &AveragePathLengthInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&AveragePathLengthInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<AveragePathLengthOutput>, KernelError> {
        run_batch(inputs, &mut { context })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&AveragePathLengthInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<AveragePathLengthOutput>, KernelError> {
        run_batch(inputs, cuda)
    }
}
