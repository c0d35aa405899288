//! `graph/triangle-counting`: the triangles at each node and in the whole graph, and the clustering coefficients.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | out: `total_triangles` | integer | triangles of the graph |
//! | out: `per_node_triangles` | `u64`, `[num_nodes]` | triangles that each node is a corner of |
//! | out: `clustering_coefficients` | `f64`, `[num_nodes]` | fraction of a node's pairs of neighbours with an edge |
//! | out: `global_clustering_coefficient` | `f64` | the same fraction over the pairs of all nodes |
//!
//! These are `triangles`, `clustering` and `transitivity` of networkx 3.6 for undirected graphs. A node with fewer than
//! two neighbours has the coefficient 0, and so has a graph without such nodes. Self-loops and repeated edges change
//! nothing, and edges of a directed graph count without direction.
//!
//! Watts and Strogatz, *Collective dynamics of 'small-world' networks* (1998) defines the local coefficient; Newman,
//! Watts and Strogatz, *Random graph models of social networks* (2002) the global one. The time is O(m^1.5) for m
//! edges, and far less on most graphs: [`OrientedGraph`] says why. A stored graph keeps
//! its oriented form.
//!
//! Requests on the same graph [share a run](crate::backends::batched).
//!
//! # Errors
//! An invalid graph; the error names the field.

mod cases;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::degree::map_nodes;
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
pub struct TriangleCounting;

graph_input! {
    /// The input of `graph/triangle-counting`.
    pub struct TriangleCountingInput {}
}

/// The output of `graph/triangle-counting`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TriangleCountingOutput {
    /// How many triangles the graph has.
    pub total_triangles: u64,
    /// How many triangles each node is a corner of.
    pub per_node_triangles: Buffer<u64>,
    /// The fraction of the pairs of each node's neighbours that have an edge between them.
    pub clustering_coefficients: Buffer<f64>,
    /// The fraction of the pairs of neighbours of all nodes that have an edge between them.
    pub global_clustering_coefficient: f64,
}

impl Kernel for TriangleCounting {
    type Input = TriangleCountingInput;
    type Output = TriangleCountingOutput;

    fn info(&self) -> KernelInfo {
        let description =
            "Triangles at each node and in the whole graph, with local and global clustering coefficients.";
        KernelInfo::new("graph/triangle-counting", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &TriangleCountingInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &TriangleCountingInput) -> Cost {
        triangles::cost(&input.graph_input())
    }

    /// The requests have the same output.
    fn batch_cost(&self, inputs: &[&TriangleCountingInput], sum: Cost) -> Cost {
        inputs.first().map_or(sum, |input| self.cost(input))
    }

    fn footprint(&self, input: &TriangleCountingInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        // A count and a coefficient of each node, and those of the graph.
        let output = Footprint::of_array::<[u64; 2]>(nodes.saturating_add(1));
        Some(Footprint { output, scratch: triangles::scratch(&graph) })
    }

    fn operands(&self, input: &TriangleCountingInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &TriangleCountingInput,
        context: &RunContext<'_>,
    ) -> Result<TriangleCountingOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        output(oriented, triangles::count(oriented, context)?.into(), context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&triangles::cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &TriangleCountingInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<TriangleCountingOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let counts = triangles::cuda::count(oriented, cuda)?;
        output(oriented, counts, cuda.context())
    }

    fn batch_key(&self, input: &TriangleCountingInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &TriangleCountingInput, other: &TriangleCountingInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&TriangleCountingInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<TriangleCountingOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        Ok(vec![self.run_cpu(first, context)?; inputs.len()])
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&TriangleCountingInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<TriangleCountingOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        Ok(vec![self.run_cuda(first, cuda)?; inputs.len()])
    }
}

/// Returns the output that follows from the triangles of each node.
fn output(
    graph: &OrientedGraph,
    per_node_triangles: Buffer<u64>,
    context: &RunContext<'_>,
) -> Result<TriangleCountingOutput, KernelError> {
    let coefficients = triangles::coefficients(&per_node_triangles, graph.degrees(), context)?;
    // Each triangle has three corners.
    let corners: u64 = per_node_triangles.iter().sum();
    let pairs = pairs_of_neighbours(graph.degrees(), context)?;
    let global = if pairs == 0 { 0.0 } else { corners as f64 / pairs as f64 };
    Ok(TriangleCountingOutput {
        total_triangles: corners / 3,
        per_node_triangles,
        clustering_coefficients: coefficients.into(),
        global_clustering_coefficient: global,
    })
}

/// Returns the number of pairs of neighbours, over all nodes.
fn pairs_of_neighbours(degrees: &[u32], context: &RunContext<'_>) -> Result<u64, KernelError> {
    let pairs = |node: u32| u64::from(degrees[node as usize]) * u64::from(degrees[node as usize].saturating_sub(1)) / 2;
    Ok(map_nodes(degrees.len(), context, pairs)?.iter().sum())
}
