//! `graph/full-metrics`: the size, density, degrees, clustering, components and path lengths of an unweighted graph.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `path_samples` | integer | estimate path lengths from this many nodes, drawn with `seed` |
//! | `seed` | integer, default 0 | with `path_samples` only |
//! | out: `num_nodes` | `u64` | nodes |
//! | out: `num_edges` | `u64` | edges, without self-loops and repeats |
//! | out: `density` | `f64` | as [`graph/density`](super::density) |
//! | out: `average_degree` | `f64` | the mean number of neighbours |
//! | out: `min_degree` | `u32` | the smallest number of neighbours |
//! | out: `max_degree` | `u32` | the largest number of neighbours |
//! | out: `average_clustering_coefficient` | `f64` | as [`graph/clustering-coefficient`](super::clustering_coefficient) |
//! | out: `num_components` | `u32` | weak ones, as [`graph/connected-components`](super::connected_components) |
//! | out: `largest_component_size` | `u32` | nodes |
//! | out: `is_connected` | bool | whether there is one component |
//! | out: `average_path_length` | `f64` | in arcs, as [`graph/average-path-length`](super::average_path_length) |
//! | out: `diameter` | `u64` | the largest distance of two nodes that a path leads between, in arcs |
//! | out: `num_pairs` | `u64` | the ordered pairs of nodes that the last two are of |
//!
//! Each is what the kernel of its name returns, and so that of networkx 3.6, but that a directed graph is allowed here:
//! its neighbours, clustering and components are those without the direction of the edges (`G.to_undirected()` of
//! networkx), and its paths follow the edges. With `path_samples` the mean is an estimate and the diameter a lower bound.
//!
//! The predecessors and the oriented form of the graph are made once, and kept with a stored graph. The time is that of
//! the path lengths: exact ones search from every node, which is O(nodes × (nodes + arcs)) / 512 or more on the CPU, so
//! `path_samples` is advised above some 100 000 nodes. On CUDA, components, triangles and paths are found on the device.
//!
//! # Errors
//! An invalid graph; `path_samples` that is 0 or larger than the graph; `seed` without it. The error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::average_path_length::AveragePathLengthOutput;
use super::connected_components::{self, ConnectedComponentsOutput};
use super::csr::CsrGraph;
use super::fields::graph_input;
use super::multi_source_search::{self, DistanceSum, SearchGraph, SumBy};
use super::sources::SourcesInput;
use super::{clustering_coefficient, density, triangles};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct FullMetrics;

graph_input! {
    /// The input of `graph/full-metrics`.
    pub struct FullMetricsInput {
        /// How many nodes to draw and estimate path lengths from; all if it is left out.
        pub path_samples: Option<u64> = None,
        /// What the draw of `path_samples` depends on; 0 where it is left out.
        pub seed: Option<u64> = None,
    }
}

/// The output of `graph/full-metrics`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct FullMetricsOutput {
    /// The number of nodes.
    pub num_nodes: u64,
    /// The number of edges, without self-loops and repeats.
    pub num_edges: u64,
    /// The edges as a fraction of those that the graph could have.
    pub density: f64,
    /// The mean number of neighbours.
    pub average_degree: f64,
    /// The smallest number of neighbours.
    pub min_degree: u32,
    /// The largest number of neighbours.
    pub max_degree: u32,
    /// The mean fraction of pairs of neighbours that have an edge between them.
    pub average_clustering_coefficient: f64,
    /// The number of weakly connected components.
    pub num_components: u32,
    /// The number of nodes of the largest component.
    pub largest_component_size: u32,
    /// Whether there is one component.
    pub is_connected: bool,
    /// The mean distance of the pairs that a path leads between, in arcs.
    pub average_path_length: f64,
    /// The largest distance, in arcs.
    pub diameter: u64,
    /// The number of ordered pairs of different nodes that a path leads between.
    pub num_pairs: u64,
}

impl FullMetricsInput {
    fn sources_input(&self) -> SourcesInput<'_> {
        SourcesInput { sources: None, samples: self.path_samples, seed: self.seed }
    }

    fn num_sources(&self) -> u64 {
        self.sources_input().claimed(self.graph_input().claimed_size().0)
    }
}

/// What the backends compute.
struct Parts {
    components: ConnectedComponentsOutput,
    average_clustering_coefficient: f64,
    sums: Vec<DistanceSum>,
}

impl Parts {
    fn into_output(self, graph: &CsrGraph, context: &RunContext<'_>) -> Result<FullMetricsOutput, KernelError> {
        let size = density::density(graph);
        let degrees = graph.oriented(context)?.degrees();
        let total: u64 = degrees.iter().map(|&degree| u64::from(degree)).sum();
        let paths = AveragePathLengthOutput::new(&self.sums, graph.num_nodes());
        let components = self.components;
        Ok(FullMetricsOutput {
            num_nodes: size.num_nodes,
            num_edges: size.num_edges,
            density: size.density,
            average_degree: total as f64 / size.num_nodes as f64,
            min_degree: degrees.iter().copied().min().unwrap_or(0),
            max_degree: degrees.iter().copied().max().unwrap_or(0),
            average_clustering_coefficient: self.average_clustering_coefficient,
            num_components: components.num_components,
            largest_component_size: components.sizes.iter().copied().max().unwrap_or(0),
            is_connected: components.num_components == 1,
            average_path_length: paths.average_path_length,
            diameter: paths.diameter,
            num_pairs: paths.num_pairs,
        })
    }
}

impl Kernel for FullMetrics {
    type Input = FullMetricsInput;
    type Output = FullMetricsOutput;

    fn info(&self) -> KernelInfo {
        let description = "Size, density, degrees, clustering, components and path lengths of an unweighted graph.";
        KernelInfo::new("graph/full-metrics", "1.0.0", description).alias("graph/full-graph-metrics").cuda().pure()
    }

    fn validate(&self, input: &FullMetricsInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        input.sources_input().validate(num_nodes).map_err(|error| match &*error.field {
            "samples" => InvalidInput::new("path_samples", error.reason),
            _ => error,
        })
    }

    fn cost(&self, input: &FullMetricsInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let parts = [
            multi_source_search::cost(&graph, input.num_sources(), SumBy::Source),
            triangles::cost(&graph),
            connected_components::cost(nodes, arcs),
        ];
        // The first two load the graph.
        let loads = graph.load_bytes();
        Cost {
            bytes: parts.iter().map(|part| part.bytes).fold(0, u64::saturating_add).saturating_sub(loads),
            operations: parts.iter().map(|part| part.operations).fold(0, u64::saturating_add),
            device_memory: parts.iter().map(|part| part.device_memory).fold(0, u64::saturating_add),
        }
    }

    fn footprint(&self, input: &FullMetricsInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let components = connected_components::weak::workspace(nodes).saturating_add(nodes.saturating_mul(8));
        let coefficients = Footprint::of_array::<[u64; 2]>(nodes);
        let search = multi_source_search::scratch(&graph, input.num_sources(), SumBy::Source)
            .saturating_add(input.sources_input().memory(nodes));
        let scratch = triangles::scratch(&graph)
            .saturating_add(coefficients)
            .saturating_add(components)
            .saturating_add(search)
            .saturating_sub(graph.load_memory());
        Some(Footprint { output: 8 * 8 + 4 * 4 + 1, scratch })
    }

    fn operands(&self, input: &FullMetricsInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &FullMetricsInput, context: &RunContext<'_>) -> Result<FullMetricsOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        let counts = triangles::count(oriented, context)?;
        let search = SearchGraph::along_edges(&graph, context)?;
        let sources = input.sources_input().choose(graph.num_nodes());
        let parts = Parts {
            components: connected_components::weak_components(&graph, context)?,
            average_clustering_coefficient: clustering_coefficient::average(oriented, &counts, context)?,
            sums: multi_source_search::search(search, &sources, SumBy::Source, context)?,
        };
        parts.into_output(&graph, context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        let mut modules = multi_source_search::cuda::modules();
        modules.extend([&triangles::cuda::MODULE, &connected_components::cuda::MODULE]);
        modules
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &FullMetricsInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<FullMetricsOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let counts = triangles::cuda::count(oriented, cuda)?;
        let search = SearchGraph::along_edges(&graph, cuda.context())?;
        let sources = input.sources_input().choose(graph.num_nodes());
        let parts = Parts {
            components: connected_components::cuda::components(&graph, cuda)?,
            average_clustering_coefficient: clustering_coefficient::average(oriented, &counts, cuda.context())?,
            sums: multi_source_search::cuda::search(search, &sources, SumBy::Source, cuda)?,
        };
        parts.into_output(&graph, cuda.context())
    }
}
