//! `graph/betweenness-centrality`: how many shortest paths pass through each node of an unweighted graph.
//!
//! The graph comes as an edge list, as CSR arrays, or as a reference to an operand:
//!
//! | field | type | |
//! |---|---|---|
//! | `graph` | an operand, or an object | a stored graph, or an object of the fields up to `directed` |
//! | `num_nodes` | integer | nodes are numbered from 0; with CSR it may be left out |
//! | `edges` | `u32`, `[m, 2]` | pairs of nodes |
//! | `row_offsets` | `u32`, `[num_nodes + 1]` | where each node's neighbours start |
//! | `column_indices` | `u32`, `[m]` | the neighbours |
//! | `directed` | bool, default false | whether edges lead one way only |
//! | `normalized` | bool, default true | divide by the number of node pairs |
//! | `sources` | `u32`, `[k]` | estimate from these sources only |
//! | `samples` | integer | estimate from this many sources, drawn with `seed` |
//! | `seed` | integer, default 0 | with `samples` only |
//! | out: `scores` | `f64`, `[num_nodes]` | one for each node |
//!
//! Self-loops and repeated edges change nothing, and without `directed` an edge or a CSR entry leads both ways whether or
//! not the other way is listed too. Scores are those of networkx 3.6, `betweenness_centrality(G, k, normalized)`, and
//! `sources` stands for the nodes that networkx would have drawn for `k`. One source alone is rejected in a graph of three
//! or more nodes: it contributes nothing to its own score.
//!
//! Isolated nodes are legal and cost memory, so `num_nodes` is limited by the number of edges: above
//! [`FREE_NODES`](super::csr::FREE_NODES) nodes, [`NODES_PER_EDGE`](super::csr::NODES_PER_EDGE) for each edge, and never
//! more than [`MAX_NODES`](super::csr::MAX_NODES).
//!
//! Requests on the same graph [share a run](crate::backends::batched): the graph is built and uploaded once, and on CUDA
//! the sources of all of them go through it in one pass. Each output has the same bits as that of a run by itself.
//!
//! The algorithm and its papers are in [`brandes`] and [`pivots`].

#[cfg(feature = "cuda")]
mod batches;
pub mod brandes;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod lanes;
pub mod pivots;
mod traversal;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::brandes::{pair_dependencies, workspace};
use self::pivots::Pivots;
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::kernels::graph::fields::graph_input;
use crate::kernels::graph::input::to_usize;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct BetweennessCentrality;

graph_input! {
    /// The input of `graph/betweenness-centrality`: a graph as edges or as CSR arrays.
    pub struct BetweennessInput {
        /// Whether scores are fractions of the node pairs.
        pub normalized: bool = true,
        /// The sources to estimate from, two or more different nodes.
        pub sources: Option<Buffer<u32>> = None,
        /// How many sources to draw and estimate from.
        pub samples: Option<u64> = None,
        /// What the draw of `samples` depends on; 0 where it is left out.
        pub seed: Option<u64> = None,
    }
}

/// The output of `graph/betweenness-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct BetweennessOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
}

impl BetweennessInput {
    /// Which way edges lead.
    pub fn direction(&self) -> Direction {
        self.graph_input().direction()
    }

    /// The graph that the input describes.
    ///
    /// # Errors
    /// The first field that is wrong, as [`validate`](Kernel::validate) finds it.
    pub fn graph(&self) -> Result<CsrGraph, InvalidInput> {
        self.graph_input().build()
    }

    /// The number of sources that the input claims to have, before it is checked.
    fn num_sources(&self) -> u64 {
        let chosen = self.sources.as_ref().map(|sources| sources.len() as u64).or(self.samples);
        chosen.unwrap_or_else(|| self.graph_input().claimed_size().0)
    }

    /// The sources to start from, in a graph of `num_nodes` nodes.
    ///
    /// # Errors
    /// The first field that is wrong, as [`validate`](Kernel::validate) finds it.
    pub fn pivots(&self, num_nodes: usize) -> Result<Pivots, InvalidInput> {
        if self.seed.is_some() && self.samples.is_none() {
            return Err(InvalidInput::new("seed", "there are no samples to draw"));
        }
        match (&self.sources, self.samples) {
            (Some(_), Some(_)) => Err(InvalidInput::new("samples", "there are sources already; give one of the two")),
            (Some(sources), None) => Pivots::chosen(sources.to_vec(), num_nodes),
            (None, Some(samples)) => Pivots::sampled(to_usize(samples), self.seed.unwrap_or(0), num_nodes),
            (None, None) => Ok(Pivots::all(num_nodes)),
        }
    }
}

impl Kernel for BetweennessCentrality {
    type Input = BetweennessInput;
    type Output = BetweennessOutput;

    fn info(&self) -> KernelInfo {
        let description = "Betweenness centrality of an unweighted graph: exact, or estimated from some sources.";
        KernelInfo::new("graph/betweenness-centrality", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &BetweennessInput) -> Result<(), InvalidInput> {
        input.pivots(input.graph_input().validate()?).map(drop)
    }

    fn cost(&self, input: &BetweennessInput) -> Cost {
        let (nodes, arcs) = input.graph_input().claimed_size();
        let chosen = input.sources.as_ref().map(|sources| sources.len() as u64).or(input.samples);
        // `operations` stands for the traversals of the graph.
        let graph = input.graph_input().load_bytes();
        let sources = input.num_sources();
        // Each source visits each arc forward and backward; the constant is the cost of the smallest run.
        let visits = arcs.saturating_add(nodes).saturating_mul(2).saturating_mul(sources);
        Cost {
            // Sources that are chosen are sorted or drawn, which touches each several times, when they are checked as well.
            bytes: graph.saturating_add(chosen.unwrap_or(0).saturating_mul(64)),
            operations: visits.saturating_add(2_000),
            device_memory: device_memory(input, sources, 1),
        }
    }

    /// The requests share the graph and the state of a batch of sources.
    fn batch_cost(&self, inputs: &[&BetweennessInput], sum: Cost) -> Cost {
        let Some(first) = inputs.first() else { return sum };
        let sources = inputs.iter().map(|input| input.num_sources()).fold(0, u64::saturating_add);
        Cost { device_memory: device_memory(first, sources, inputs.len() as u64), ..sum }
    }

    fn footprint(&self, input: &BetweennessInput) -> Option<Footprint> {
        let (nodes, _) = input.graph_input().claimed_size();
        let sources = input.sources.as_ref().map(|sources| sources.len() as u64).or(input.samples).unwrap_or(0);
        let graph = input.graph_input().load_memory();
        // The chosen sources, the set that they are looked up in, and the order that duplicates are found by.
        let pivots = sources.saturating_mul(64);
        Some(Footprint {
            output: Footprint::of_array::<f64>(nodes),
            scratch: graph.saturating_add(pivots).saturating_add(workspace(nodes)),
        })
    }

    fn operands(&self, input: &BetweennessInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &BetweennessInput, context: &RunContext<'_>) -> Result<BetweennessOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        graph.make_predecessors(context)?;
        let pivots = input.pivots(graph.num_nodes())?;
        let mut scores = pair_dependencies(&graph, &pivots, context)?;
        pivots.rescale(&mut scores, input.normalized, graph.direction());
        Ok(BetweennessOutput { scores: scores.into() })
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &BetweennessInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<BetweennessOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    /// Requests on one graph share a run, whatever their sources.
    fn batch_key(&self, input: &BetweennessInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &BetweennessInput, other: &BetweennessInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&BetweennessInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<BetweennessOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(context)?;
        graph.make_predecessors(context)?;
        outputs(inputs, graph.num_nodes(), |requests| {
            requests.iter().map(|pivots| Ok(pair_dependencies(&graph, pivots, context)?.into())).collect()
        })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&BetweennessInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<BetweennessOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(cuda.context())?;
        graph.make_predecessors(cuda.context())?;
        let on_device = cuda::DeviceGraph::new(&graph, cuda)?;
        let nodes = graph.num_nodes();
        // The device has a copy. Freeing it takes the host milliseconds, which should not follow the computation.
        drop(graph);
        outputs(inputs, nodes, |requests| cuda::pair_dependencies(&on_device, requests, cuda))
    }
}

/// Device memory of a run of `requests` on the graph of this input, with `sources` in all.
#[cfg(feature = "cuda")]
fn device_memory(input: &BetweennessInput, sources: u64, requests: u64) -> u64 {
    let (nodes, arcs) = input.graph_input().claimed_size();
    cuda::device_memory(nodes, arcs, sources, requests, input.direction() == Direction::Directed)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &BetweennessInput, _: u64, _: u64) -> u64 {
    0
}

/// Returns the outputs of requests on one graph of this many nodes. `pair_dependencies` returns the sums of each list of
/// pivots; requests that start from the same pivots share them.
fn outputs(
    inputs: &[&BetweennessInput],
    num_nodes: usize,
    pair_dependencies: impl FnOnce(&[Pivots]) -> Result<Vec<Buffer<f64>>, KernelError>,
) -> Result<Vec<BetweennessOutput>, KernelError> {
    let mut distinct: Vec<Pivots> = Vec::with_capacity(inputs.len());
    let mut indices = Vec::with_capacity(inputs.len());
    for input in inputs {
        let pivots = input.pivots(num_nodes)?;
        indices.push(distinct.iter().position(|other| *other == pivots).unwrap_or(distinct.len()));
        if indices.last() == Some(&distinct.len()) {
            distinct.push(pivots);
        }
    }
    let mut sums = pair_dependencies(&distinct)?;
    let output = |(position, input): (usize, &&BetweennessInput)| {
        let index = indices[position];
        // The last request with these pivots takes the sums: to write to shared ones would copy them.
        let is_shared = indices[position + 1..].contains(&index);
        let mut scores = if is_shared { sums[index].clone() } else { std::mem::take(&mut sums[index]) };
        distinct[index].rescale(&mut scores, input.normalized, input.direction());
        BetweennessOutput { scores }
    };
    Ok(inputs.iter().enumerate().map(output).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[cfg(feature = "cuda")]
    #[test]
    fn a_shared_run_needs_the_device_memory_of_one_batch() {
        // Only what the inputs claim counts.
        let input = BetweennessInput { samples: Some(64), ..BetweennessInput::from_edges(1 << 20, vec![]) };
        let alone = BetweennessCentrality.cost(&input);
        let sum = Cost { device_memory: 16 * alone.device_memory, operations: 16 * alone.operations, ..alone };
        let shared = BetweennessCentrality.batch_cost(&[&input; 16], sum);
        assert_eq!(BetweennessCentrality.batch_cost(&[&input], alone), alone);
        assert_eq!(shared.operations, sum.operations);
        // A row of scores for each request.
        let rows = 15 * 8 * (1 << 20);
        assert!(shared.device_memory > alone.device_memory, "{shared:?}");
        assert!(shared.device_memory < 3 * alone.device_memory + rows, "{shared:?} {alone:?}");
    }

    #[test]
    fn building_the_graph_ends_at_the_deadline() {
        let edges: Vec<[u32; 2]> = (1..100_000).map(|node| [node - 1, node]).collect();
        let input = BetweennessInput::from_edges(100_000, edges);
        let up = Instant::now().checked_sub(Duration::from_secs(1));
        let result = input.graph_input().build_in(&RunContext::new(None, up));
        assert!(matches!(result, Err(KernelError::DeadlineExceeded { .. })), "{result:?}");
        assert_eq!(input.graph_input().build_in(&RunContext::detached()).unwrap(), input.graph().unwrap());
        // And in the middle, not only before it begins.
        for most in [1, 150_000, 450_000] {
            let mut looked_at = 0;
            let result = input.graph_input().build_while(&mut |arcs| {
                looked_at += arcs;
                if looked_at > most { Err(InvalidInput::new("edges", "enough")) } else { Ok(()) }
            });
            assert!(result.is_err() && looked_at == most + 1, "{looked_at}");
        }
    }
}
