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
//! backend.
//!
//! # Errors
//! An invalid graph, an option out of its range, a `beta` that is not finite or has another length than the graph has
//! nodes, or an `alpha` with which the iteration diverges for certain; the error names the field.

mod cases;
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
use super::spmv::{NodeUpdate, Vectors, iterate, row_parts};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, FloatArray, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
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

    /// Returns the graph, and the score that each node has without predecessors.
    fn load_in(&self, context: &RunContext<'_>) -> Result<(Arc<CsrGraph>, Vec<f64>), KernelError> {
        let graph = self.graph_input().load_in(context)?;
        let betas = match &self.beta {
            FloatArray::One(beta) => vec![*beta; graph.num_nodes()],
            FloatArray::F32(betas) => betas.iter().map(|&beta| beta.into()).collect(),
            FloatArray::F64(betas) => betas.to_vec(),
        };
        context.check()?;
        if graph.direction() == Direction::Undirected && betas.iter().all(|&beta| beta > 0.0) {
            check_alpha(&graph, self.alpha, context)?;
        }
        graph.make_predecessors(context)?;
        Ok((graph, betas))
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
        let (nodes, _) = graph.claimed_size();
        Cost {
            bytes: graph.load_bytes().saturating_add(nodes.saturating_mul(8)),
            operations: power_iteration::operations(&graph, 1, input.max_iterations),
            device_memory: device_memory(input),
        }
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
        let (graph, betas) = input.load_in(context)?;
        scores(&graph, &betas, input, context)
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
        let (graph, betas) = input.load_in(cuda.context())?;
        cuda::scores(&graph, input.graph_input().is_stored(), &betas, input, cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &KatzCentralityInput) -> u64 {
    let (nodes, arcs) = input.graph_input().claimed_size();
    cuda::device_memory(nodes, arcs)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &KatzCentralityInput) -> u64 {
    0
}

/// Iterates on the CPU. The predecessors of the graph are [made](CsrGraph::make_predecessors).
fn scores(
    graph: &CsrGraph,
    betas: &[f64],
    input: &KatzCentralityInput,
    context: &RunContext<'_>,
) -> Result<KatzCentralityOutput, KernelError> {
    let (alpha, nodes) = (input.alpha, graph.num_nodes());
    let parts = row_parts(graph.predecessors());
    let (mut values, mut from, mut to) = (vec![0.0; nodes], vec![0.0; nodes], vec![0.0; nodes]);
    let mut squares = 0.0;
    let convergence = input.limits(graph).repeat(|| {
        let vectors = Vectors { from: &from, values: &mut values, to: &mut to };
        let update = |node: usize, sum: f64, old: f64| {
            let score = alpha * sum + betas[node];
            NodeUpdate { value: score, contribution: score, sums: [(score - old).abs(), score * score] }
        };
        let [difference, of_scores] = iterate(graph.predecessors(), &parts, vectors, context, update)?;
        squares = of_scores;
        std::mem::swap(&mut from, &mut to);
        Ok(difference)
    })?;
    if input.normalized && squares > 0.0 {
        let norm = squares.sqrt();
        values.par_iter_mut().for_each(|value| *value /= norm);
    }
    Ok(KatzCentralityOutput::new(values.into(), convergence))
}
