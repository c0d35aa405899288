//! `graph/clustering-coefficient`: the fraction of the pairs of each node's neighbours that have an edge between them,
//! and the mean of these fractions.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | undirected, as in [`GraphInput`](super::input::GraphInput) |
//! | `count_zeros` | bool, default true | whether nodes with the coefficient 0 count in the mean |
//! | out: `coefficients` | `f64`, `[num_nodes]` | one for each node, from 0 to 1 |
//! | out: `average` | `f64` | their mean; 0 where no node counts |
//!
//! These are `clustering` and `average_clustering` of networkx 3.6, but for the mean of no nodes, for which networkx
//! raises an error. A node with fewer than two neighbours has the coefficient 0. Self-loops and repeated edges change
//! nothing.
//!
//! Watts and Strogatz, *Collective dynamics of 'small-world' networks* (1998). The work is that of
//! [`graph/triangle-counting`](super::triangle_counting), O(m^1.5) for m edges.
//!
//! Requests on the same graph [share a run](crate::backends::batched).
//!
//! # Errors
//! An invalid graph, or a directed one, for which several other coefficients are in use; the error names the field.

mod cases;

use std::sync::Arc;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::fields::graph_input;
use super::oriented::OrientedGraph;
use super::triangles;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClusteringCoefficient;

graph_input! {
    /// The input of `graph/clustering-coefficient`.
    pub struct ClusteringCoefficientInput {
        /// Whether nodes with the coefficient 0 count in the mean.
        pub count_zeros: bool = true,
    }
}

/// The output of `graph/clustering-coefficient`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ClusteringCoefficientOutput {
    /// The fraction of the pairs of each node's neighbours that have an edge between them.
    pub coefficients: Buffer<f64>,
    /// The mean of the coefficients.
    pub average: f64,
}

impl Kernel for ClusteringCoefficient {
    type Input = ClusteringCoefficientInput;
    type Output = ClusteringCoefficientOutput;

    fn info(&self) -> KernelInfo {
        let description = "Clustering coefficient of each node of an undirected graph, and the mean.";
        KernelInfo::new("graph/clustering-coefficient", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &ClusteringCoefficientInput) -> Result<(), InvalidInput> {
        input.graph_input().validate_undirected().map(drop)
    }

    fn cost(&self, input: &ClusteringCoefficientInput) -> Cost {
        triangles::cost(&input.graph_input())
    }

    /// The requests share the triangles.
    fn batch_cost(&self, inputs: &[&ClusteringCoefficientInput], sum: Cost) -> Cost {
        inputs.first().map_or(sum, |input| self.cost(input))
    }

    fn footprint(&self, input: &ClusteringCoefficientInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let counts = Footprint::of_array::<u64>(nodes);
        let scratch = triangles::scratch(&graph).saturating_add(counts);
        // The mean and the coefficients.
        Some(Footprint { output: Footprint::of_array::<f64>(nodes.saturating_add(1)), scratch })
    }

    fn operands(&self, input: &ClusteringCoefficientInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &ClusteringCoefficientInput,
        context: &RunContext<'_>,
    ) -> Result<ClusteringCoefficientOutput, KernelError> {
        let mut outputs = self.run_cpu_batch(&[input], context)?;
        Ok(outputs.swap_remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&triangles::cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &ClusteringCoefficientInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<ClusteringCoefficientOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    fn batch_key(&self, input: &ClusteringCoefficientInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &ClusteringCoefficientInput, other: &ClusteringCoefficientInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&ClusteringCoefficientInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<ClusteringCoefficientOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        outputs(inputs, oriented, &triangles::count(oriented, context)?, context)
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&ClusteringCoefficientInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<ClusteringCoefficientOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let counts = triangles::cuda::count(oriented, cuda)?;
        outputs(inputs, oriented, &counts, cuda.context())
    }
}

/// Returns the outputs of requests on one graph.
fn outputs(
    inputs: &[&ClusteringCoefficientInput],
    graph: &OrientedGraph,
    counts: &[u64],
    context: &RunContext<'_>,
) -> Result<Vec<ClusteringCoefficientOutput>, KernelError> {
    let coefficients: Buffer<f64> = triangles::coefficients(counts, graph.degrees(), context)?.into();
    let means = mean(&coefficients);
    let output = |input: &&ClusteringCoefficientInput| ClusteringCoefficientOutput {
        coefficients: coefficients.clone(),
        average: if input.count_zeros { means.of_all } else { means.of_positive },
    };
    Ok(inputs.iter().map(output).collect())
}

/// Returns the mean coefficient of all nodes.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn average(graph: &OrientedGraph, counts: &[u64], context: &RunContext<'_>) -> Result<f64, KernelError> {
    Ok(mean(&triangles::coefficients(counts, graph.degrees(), context)?).of_all)
}

struct Means {
    of_all: f64,
    of_positive: f64,
}

/// Returns the means, which have the same bits on any number of threads.
fn mean(coefficients: &[f64]) -> Means {
    /// Some tens of microseconds of work.
    const PART: usize = 1 << 14;
    let of_part = |part: &[f64]| (part.iter().sum::<f64>(), part.iter().filter(|&&value| value > 0.0).count());
    let parts: Vec<_> = coefficients.par_chunks(PART).map(of_part).collect();
    let (sum, positive) = parts.into_iter().fold((0.0, 0), |(sum, count), part| (sum + part.0, count + part.1));
    let mean = |count: usize| if count == 0 { 0.0 } else { sum / count as f64 };
    Means { of_all: mean(coefficients.len()), of_positive: mean(positive) }
}
