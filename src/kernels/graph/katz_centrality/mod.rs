//! `graph/katz-centrality`: the number of walks that end at each node, each weighted by a factor for each of its steps.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `alpha` | `f64`, default 0.1, not negative | the factor of a step |
//! | `beta` | `f32` or `f64`, one or `[num_nodes]`, default 1 | the score of a node without predecessors |
//! | `normalized` | bool, default true | divide by the Euclidean norm of the scores |
//! | `max_iterations` | `u32`, default 1000, at least 1 | |
//! | `tolerance` | `f64`, default 1e-6, not negative | stop below this mean change of a score |
//! | out: `scores` | `f64`, `[num_nodes]` | one for each node |
//! | out: `iterations` | `u32` | |
//! | out: `difference` | `f64` | what the last iteration changed, the sum over all nodes, before scores are normalized |
//! | out: `converged` | bool | whether the difference is below `num_nodes * tolerance` |
//!
//! An iteration is `x[v] = alpha * (sum of x[u] over predecessors u) + beta[v]`. It starts from 0, and converges where
//! `alpha` is less than the reciprocal of the largest eigenvalue of the adjacency matrix.
//!
//! Scores, iterations and the test for convergence are those of `katz_centrality` of networkx 3.6, for graphs without
//! self-loops and parallel edges, which are dropped. Where networkx raises `PowerIterationFailedConvergence`, this
//! returns the scores of the last iteration, and `converged` is false. Scores that grow beyond the largest `f64` are
//! infinite or not a number, and end the iteration.
//!
//! An `alpha` is rejected if the iteration is known to diverge: the graph is undirected, `beta` is positive, and `alpha`
//! is not below the reciprocal of the mean degree or of the square root of the largest degree, neither of which is above
//! the largest eigenvalue.
//!
//! Katz, *A new status index derived from sociometric analysis* (1953). An iteration takes time linear in arcs and
//! nodes, and memory of 24 bytes for each node. All arithmetic is in `f64`. Scores have the same bits on every run of a
//! backend, and whatever requests share the run.
//!
//! Requests on the same graph [share a run](crate::backends::batched), whatever their other fields: the graph is loaded
//! once, and several vectors go through it in one pass: on the CPU four, up to 262144 nodes, and on CUDA two, but one where
//! the arcs of a large stored graph are [rearranged](super::pagerank).
//!
//! # Errors
//! An invalid graph, an option out of its range, a `beta` that is not finite or has another length than the graph has
//! nodes, or an `alpha` with which the iteration diverges for certain; the error names the field.

mod cases;
mod cpu;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::{CsrGraph, Direction};
use super::degree::out_degrees;
use super::fields::graph_input;
use super::power_iteration::{self, Convergence, Limits};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, FloatArray, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion,
    RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KatzCentrality;

graph_input! {
    /// The input of `graph/katz-centrality`.
    pub struct KatzCentralityInput {
        /// The factor of a step of a walk.
        pub alpha: f64 = 0.1,
        /// The score of a node without predecessors: one number for all nodes, or one for each.
        pub beta: FloatArray = FloatArray::One(1.0),
        /// Whether scores are divided by their Euclidean norm.
        pub normalized: bool = true,
        /// The most iterations, at least 1.
        pub max_iterations: u32 = 1000,
        /// The mean change of a score below which an iteration is the last.
        pub tolerance: f64 = 1e-6,
    }
}

/// The output of `graph/katz-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KatzCentralityOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
    /// How many iterations were made.
    pub iterations: u32,
    /// The sum of the changes of all scores in the last iteration, before they are normalized.
    pub difference: f64,
    /// Whether the last iteration changed the scores by less than the tolerance.
    pub converged: bool,
}

impl KatzCentralityOutput {
    fn new(scores: Buffer<f64>, convergence: Convergence) -> Self {
        let Convergence { iterations, difference, converged } = convergence;
        Self { scores, iterations, difference, converged }
    }
}

impl KatzCentralityInput {
    fn limits(&self, graph: &CsrGraph) -> Limits {
        Limits::new(self.max_iterations, self.tolerance, graph.num_nodes())
    }

    /// The score that a node has without predecessors.
    fn beta(&self, node: usize) -> f64 {
        match &self.beta {
            FloatArray::One(beta) => *beta,
            FloatArray::F32(betas) => betas[node].into(),
            FloatArray::F64(betas) => betas[node],
        }
    }

    /// Adds the beta of each node.
    #[cfg(feature = "cuda")]
    fn extend_with_betas(&self, betas: &mut Vec<f64>, num_nodes: usize) {
        match &self.beta {
            FloatArray::One(beta) => betas.resize(betas.len() + num_nodes, *beta),
            FloatArray::F32(of_nodes) => betas.extend(of_nodes.iter().copied().map(f64::from)),
            FloatArray::F64(of_nodes) => betas.extend_from_slice(of_nodes),
        }
    }

    fn check_betas(&self, num_nodes: usize) -> Result<(), InvalidInput> {
        if let Some(len) = self.beta.array_len().filter(|&len| len != num_nodes) {
            return Err(InvalidInput::new("beta", format!("{len} values, and the graph has {num_nodes} nodes")));
        }
        let not_finite = |index: usize, beta: f64| {
            InvalidInput::new(format!("beta[{index}]"), format!("{beta}, and it is a finite number"))
        };
        match &self.beta {
            FloatArray::One(beta) if beta.is_finite() => Ok(()),
            FloatArray::One(beta) => Err(InvalidInput::new("beta", format!("{beta}, and it is a finite number"))),
            FloatArray::F32(betas) => match betas.iter().position(|beta| !beta.is_finite()) {
                Some(index) => Err(not_finite(index, betas[index].into())),
                None => Ok(()),
            },
            FloatArray::F64(betas) => match betas.iter().position(|beta| !beta.is_finite()) {
                Some(index) => Err(not_finite(index, betas[index])),
                None => Ok(()),
            },
        }
    }
}

/// Returns the graph of inputs that have the same, with its predecessors, and checks their `alpha`.
fn load(inputs: &[&KatzCentralityInput], context: &RunContext<'_>) -> Result<Arc<CsrGraph>, KernelError> {
    let Some(first) = inputs.first() else { unreachable!("a run has inputs") };
    let graph = first.graph_input().load_in(context)?;
    let is_positive = |input: &KatzCentralityInput| (0..graph.num_nodes()).all(|node| input.beta(node) > 0.0);
    if graph.direction() == Direction::Undirected {
        let largest = inputs.iter().filter(|input| is_positive(input)).map(|input| input.alpha).reduce(f64::max);
        context.check()?;
        if let Some(alpha) = largest {
            check_alpha(&graph, alpha, context)?;
        }
    }
    graph.make_predecessors(context)?;
    Ok(graph)
}

/// Rejects an `alpha` with which the iteration on an undirected graph diverges, by two lower bounds of its largest
/// eigenvalue.
fn check_alpha(graph: &CsrGraph, alpha: f64, context: &RunContext<'_>) -> Result<(), KernelError> {
    let largest_degree = out_degrees(graph, context)?.into_par_iter().max().unwrap_or(0);
    let mean_degree = graph.num_arcs() as f64 / graph.num_nodes() as f64;
    let eigenvalue = mean_degree.max(f64::from(largest_degree).sqrt());
    if alpha * eigenvalue >= 1.0 {
        let reason = format!(
            "{alpha}, and the iteration diverges from {} on: the largest eigenvalue of the graph is at least {eigenvalue}",
            eigenvalue.recip()
        );
        return Err(InvalidInput::new("alpha", reason).into());
    }
    Ok(())
}

impl Kernel for KatzCentrality {
    type Input = KatzCentralityInput;
    type Output = KatzCentralityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Katz centrality: the walks that end at each node, weighted by a factor for each step.";
        KernelInfo::new("graph/katz-centrality", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &KatzCentralityInput) -> Result<(), InvalidInput> {
        let num_nodes = input.graph_input().validate()?;
        if !(input.alpha >= 0.0 && input.alpha.is_finite()) {
            return Err(InvalidInput::new("alpha", format!("{}, and it is finite and not negative", input.alpha)));
        }
        Limits::validate(input.max_iterations, input.tolerance)?;
        input.check_betas(num_nodes)
    }

    fn cost(&self, input: &KatzCentralityInput) -> Cost {
        let graph = input.graph_input();
        let betas = input.beta.array_len().unwrap_or(0) as u64;
        Cost {
            bytes: graph.load_bytes().saturating_add(betas.saturating_mul(8)),
            operations: power_iteration::operations(&graph, 1, input.max_iterations),
            device_memory: device_memory(&[input]),
        }
    }

    /// The requests share the graph.
    fn batch_cost(&self, inputs: &[&KatzCentralityInput], sum: Cost) -> Cost {
        Cost { device_memory: device_memory(inputs), ..sum }
    }

    fn footprint(&self, input: &KatzCentralityInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let of_iteration = power_iteration::footprint(&graph);
        // The betas, and the degrees that `alpha` is checked with.
        let scratch = of_iteration.scratch.saturating_add(Footprint::of_array::<[f64; 2]>(nodes));
        Some(Footprint { scratch, ..of_iteration })
    }

    fn operands(&self, input: &KatzCentralityInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &KatzCentralityInput,
        context: &RunContext<'_>,
    ) -> Result<KatzCentralityOutput, KernelError> {
        let mut outputs = self.run_cpu_batch(&[input], context)?;
        Ok(outputs.swap_remove(0))
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &crate::kernels::device::radix_sort::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &KatzCentralityInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<KatzCentralityOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    /// Requests on one graph share a run, whatever their options.
    fn batch_key(&self, input: &KatzCentralityInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &KatzCentralityInput, other: &KatzCentralityInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&KatzCentralityInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<KatzCentralityOutput>, KernelError> {
        if inputs.is_empty() {
            return Ok(Vec::new());
        }
        let graph = load(inputs, context)?;
        cpu::scores(&graph, inputs, context)
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&KatzCentralityInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<KatzCentralityOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = load(inputs, cuda.context())?;
        cuda::scores(&graph, first.graph_input().is_stored(), inputs, cuda)
    }
}

/// Returns the device memory of a run of these inputs, which have the same graph.
#[cfg(feature = "cuda")]
fn device_memory(inputs: &[&KatzCentralityInput]) -> u64 {
    let Some(first) = inputs.first() else { return 0 };
    let (nodes, arcs) = first.graph_input().claimed_size();
    cuda::device_memory(nodes, arcs, inputs.len() as u64)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &[&KatzCentralityInput]) -> u64 {
    0
}
