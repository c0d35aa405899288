//! `graph/pagerank`: PageRank by power iteration, for one or several personalizations at once.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `damping` | `f64`, default 0.85, from 0 to 1 | the probability that the random walk follows an edge |
//! | `personalization` | `f64`, `[k, num_nodes]` | weights of the nodes to return to, for k score vectors |
//! | `seed_nodes` | `u32`, `[k]` | nodes that have all the weight, for k score vectors |
//! | `max_iterations` | `u32`, default 100, at least 1 | |
//! | `tolerance` | `f64`, default 1e-6, not negative | stop below this mean change of a score |
//! | out: `scores` | `f64`, `[k * num_nodes]` | the k score vectors, one after the other; each adds up to 1 |
//! | out: `iterations` | `u32`, `[k]` | iterations of each vector |
//! | out: `differences` | `f64`, `[k]` | what the last iteration changed, the sum over all nodes |
//! | out: `converged` | bool | whether each difference is below `num_nodes * tolerance` |
//!
//! Without `personalization` and `seed_nodes` all nodes have the same weight, and k is 1. Weights are divided by their
//! sum. An iteration is, for the ranks `x`, the weights `p` and the out-degrees `d`,
//! `x[v] = damping * (sum of x[u] / d[u] over predecessors u + dangling * p[v]) + (1 - damping) * p[v]`, where
//! `dangling` is the sum of the ranks of nodes without successors. It starts from `1 / num_nodes`.
//!
//! Scores, iterations and the test for convergence are those of `pagerank` of networkx 3.6, for graphs without
//! self-loops and parallel edges, which are dropped. Where networkx raises `PowerIterationFailedConvergence`, this
//! returns the ranks of the last iteration, and `converged` is false.
//!
//! Page, Brin, Motwani and Winograd, *The PageRank citation ranking: bringing order to the web* (1999). An iteration
//! takes time linear in arcs and nodes, and memory of 24 bytes for each node and vector. All arithmetic is in `f64`.
//! Scores have the same bits on every run of a backend, and whatever requests share the run.
//!
//! Requests on the same graph [share a run](crate::backends::batched): the graph is loaded once, and on CUDA two
//! vectors go through it in one pass. A stored graph of two million arcs or more, of which nearly all come from few nodes, is
//! rearranged at the first request on CUDA, where a pass for one vector then takes about two thirds of the time.
//!
//! # Errors
//! An invalid graph, an option out of its range, weights that are negative, not finite or all 0, or a node that is not
//! in the graph; the error names the field.

mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
mod personalization;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::personalization::Weights;
use super::csr::CsrGraph;
use super::fields::graph_input;
use super::power_iteration::{self, Convergence, Limits};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct PageRank;

graph_input! {
    /// The input of `graph/pagerank`.
    pub struct PageRankInput {
        /// The probability that the random walk follows an edge, from 0 to 1.
        pub damping: f64 = 0.85,
        /// Weights of the nodes to which the random walk returns: a row of num_nodes for each score vector.
        pub personalization: Option<Vec<Buffer<f64>>> = None,
        /// Nodes to which the random walk returns, one for each score vector.
        pub seed_nodes: Option<Buffer<u32>> = None,
        /// The most iterations, at least 1.
        pub max_iterations: u32 = 100,
        /// The mean change of a score below which an iteration is the last.
        pub tolerance: f64 = 1e-6,
    }
}

/// The output of `graph/pagerank`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PageRankOutput {
    /// The score vectors, one after the other.
    pub scores: Buffer<f64>,
    /// The iterations of each vector.
    pub iterations: Buffer<u32>,
    /// The sum of the changes of all scores in the last iteration of each vector.
    pub differences: Buffer<f64>,
    /// Whether all vectors converged.
    pub converged: bool,
}

/// The parameters of one score vector.
#[derive(Debug, Clone, Copy)]
struct PowerIteration<'a> {
    damping: f64,
    limits: Limits,
    weights: Weights<'a>,
}

/// A score vector.
#[derive(Debug)]
struct Ranks {
    scores: Buffer<f64>,
    convergence: Convergence,
}

impl PageRankInput {
    /// Returns the parameters of each score vector.
    fn power_iterations(&self, num_nodes: usize) -> Result<Vec<PowerIteration<'_>>, InvalidInput> {
        let limits = Limits::new(self.max_iterations, self.tolerance, num_nodes);
        let of = |weights| PowerIteration { damping: self.damping, limits, weights };
        Ok(self.weights(num_nodes)?.into_iter().map(of).collect())
    }

    /// The number of score vectors that have weights of their own.
    #[cfg(feature = "cuda")]
    fn num_dense(&self) -> u64 {
        self.personalization.as_ref().map_or(0, |rows| rows.len() as u64)
    }

    /// The number of score vectors that the input claims to have, before it is checked.
    fn num_vectors(&self) -> u64 {
        let rows = self.personalization.as_ref().map(Vec::len);
        rows.or(self.seed_nodes.as_ref().map(|nodes| nodes.len())).unwrap_or(1) as u64
    }
}

impl Kernel for PageRank {
    type Input = PageRankInput;
    type Output = PageRankOutput;

    fn info(&self) -> KernelInfo {
        let description = "PageRank of a graph, for one or several personalizations at once.";
        KernelInfo::new("graph/pagerank", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &PageRankInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        if !(0.0..=1.0).contains(&input.damping) {
            return Err(InvalidInput::new("damping", format!("{}, and it is from 0 to 1", input.damping)));
        }
        Limits::validate(input.max_iterations, input.tolerance)?;
        input.weights(num_nodes).map(drop)
    }

    fn cost(&self, input: &PageRankInput) -> Cost {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let vectors = input.num_vectors();
        let weights = input.personalization.as_ref().map_or(0, |_| vectors.saturating_mul(nodes).saturating_mul(8));
        Cost {
            bytes: graph.load_bytes().saturating_add(weights),
            operations: power_iteration::operations(&graph, vectors, input.max_iterations),
            device_memory: device_memory(&[input]),
        }
    }

    /// The requests share the graph.
    fn batch_cost(&self, inputs: &[&PageRankInput], sum: Cost) -> Cost {
        Cost { device_memory: device_memory(inputs), ..sum }
    }

    fn footprint(&self, input: &PageRankInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let vectors = input.num_vectors();
        let predecessors = graph.predecessors_memory().saturating_add(graph.segmented_memory());
        let scores = Footprint::of_array::<f64>(nodes.saturating_mul(vectors));
        // The vectors are joined at the end; an iteration has two more of contributions, and the weights once more.
        let scratch = scores.saturating_mul(2).saturating_add(Footprint::of_array::<[f64; 3]>(nodes));
        Some(Footprint {
            output: scores.saturating_add(vectors.saturating_mul(12)).saturating_add(1),
            scratch: graph.load_memory().saturating_add(predecessors).saturating_add(scratch),
        })
    }

    fn operands(&self, input: &PageRankInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &PageRankInput, context: &RunContext<'_>) -> Result<PageRankOutput, KernelError> {
        let mut outputs = self.run_cpu_batch(&[input], context)?;
        Ok(outputs.swap_remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &crate::kernels::device::radix_sort::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &PageRankInput, cuda: &mut LaunchContext<'_>) -> Result<PageRankOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    /// Requests on one graph share a run, whatever their options.
    fn batch_key(&self, input: &PageRankInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &PageRankInput, other: &PageRankInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&PageRankInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<PageRankOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(context)?;
        graph.make_predecessors(context)?;
        run_batch(inputs, &graph, |iterations| cpu::ranks(&graph, iterations, context))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&PageRankInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<PageRankOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph_input = first.graph_input();
        let graph = graph_input.load_in(cuda.context())?;
        graph.make_predecessors(cuda.context())?;
        run_batch(inputs, &graph, |iterations| cuda::ranks(&graph, graph_input.is_stored(), iterations, cuda))
    }
}

/// Returns the device memory of a run of these inputs, which have the same graph.
#[cfg(feature = "cuda")]
fn device_memory(inputs: &[&PageRankInput]) -> u64 {
    let Some(first) = inputs.first() else { return 0 };
    let (nodes, arcs) = first.graph_input().claimed_size();
    let total = |count: fn(&PageRankInput) -> u64| inputs.iter().map(|input| count(input)).fold(0, u64::saturating_add);
    cuda::device_memory(nodes, arcs, total(PageRankInput::num_vectors), total(PageRankInput::num_dense))
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &[&PageRankInput]) -> u64 {
    0
}

/// Returns the outputs of requests on one graph, whose score vectors `ranks` computes in one run.
fn run_batch(
    inputs: &[&PageRankInput],
    graph: &CsrGraph,
    ranks: impl FnOnce(&[PowerIteration<'_>]) -> Result<Vec<Ranks>, KernelError>,
) -> Result<Vec<PageRankOutput>, KernelError> {
    let mut iterations = Vec::new();
    let mut lengths = Vec::with_capacity(inputs.len());
    for input in inputs {
        let of_input = input.power_iterations(graph.num_nodes())?;
        lengths.push(of_input.len());
        iterations.extend(of_input);
    }
    let mut ranks = ranks(&iterations)?.into_iter();
    Ok(lengths.into_iter().map(|length| output(ranks.by_ref().take(length).collect())).collect())
}

fn output(vectors: Vec<Ranks>) -> PageRankOutput {
    let iterations: Vec<u32> = vectors.iter().map(|ranks| ranks.convergence.iterations).collect();
    let differences: Vec<f64> = vectors.iter().map(|ranks| ranks.convergence.difference).collect();
    let converged = vectors.iter().all(|ranks| ranks.convergence.converged);
    let mut scores: Vec<Buffer<f64>> = vectors.into_iter().map(|ranks| ranks.scores).collect();
    let scores = if scores.len() == 1 { scores.swap_remove(0) } else { join(&scores) };
    PageRankOutput { scores, iterations: iterations.into(), differences: differences.into(), converged }
}

/// Copies vectors into one array, one after the other.
fn join(vectors: &[Buffer<f64>]) -> Buffer<f64> {
    let vectors: Vec<&[f64]> = vectors.iter().map(|vector| &**vector).collect();
    vectors.concat().into()
}
