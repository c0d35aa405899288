//! `graph/eigenvector-centrality`: the eigenvector of the largest eigenvalue of the adjacency matrix, by power iteration.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `max_iterations` | `u32`, default 100, at least 1 | |
//! | `tolerance` | `f64`, default 1e-6, not negative | stop below this mean change of a score |
//! | out: `scores` | `f64`, `[num_nodes]` | one for each node; their squares add up to 1 |
//! | out: `iterations` | `u32` | |
//! | out: `difference` | `f64` | what the last iteration changed, the sum over all nodes |
//! | out: `converged` | bool | whether the difference is below `num_nodes * tolerance` |
//!
//! An iteration is `y[v] = x[v] + (sum of x[u] over predecessors u)` and `x[v] = y[v] / sqrt(sum of y[w]^2)`: a power
//! iteration with the adjacency matrix plus the identity, which has the same eigenvectors and no oscillation on
//! bipartite graphs. It starts from `1 / num_nodes`. In a directed graph the score of a node follows from those of the
//! nodes with an edge to it.
//!
//! Scores, iterations and the test for convergence are those of `eigenvector_centrality` of networkx 3.6, for graphs
//! without self-loops and parallel edges, which are dropped. Where networkx raises `PowerIterationFailedConvergence`,
//! this returns the scores of the last iteration, and `converged` is false. In a graph that is not strongly connected
//! the scores may depend on where the iteration starts, and there may be no convergence in any number of iterations
//! that is of practical use: an acyclic directed graph takes about `1 / tolerance` of them.
//!
//! Bonacich, *Power and centrality: a family of measures* (1987). An iteration takes time linear in arcs and nodes, and
//! memory of 24 bytes for each node. All arithmetic is in `f64`. Scores have the same bits on every run of a backend, and
//! whatever requests share the run.
//!
//! Requests on the same graph [share a run](crate::backends::batched): they iterate the same vector, so the graph is read as
//! often as for the one that takes the most iterations, and each gets the scores at which it stops.
//!
//! # Errors
//! An invalid graph, or an option out of its range; the error names the field.

mod cases;
#[cfg(feature = "cuda")]
mod cuda;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::csr::CsrGraph;
use super::fields::graph_input;
use super::power_iteration::{self, Convergence, Limits, repeat_for_all};
use super::spmv::{NodeUpdate, Vectors, iterate, row_parts, update_each};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct EigenvectorCentrality;

graph_input! {
    /// The input of `graph/eigenvector-centrality`.
    pub struct EigenvectorCentralityInput {
        /// The most iterations, at least 1.
        pub max_iterations: u32 = 100,
        /// The mean change of a score below which an iteration is the last.
        pub tolerance: f64 = 1e-6,
    }
}

/// The output of `graph/eigenvector-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct EigenvectorCentralityOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
    /// How many iterations were made.
    pub iterations: u32,
    /// The sum of the changes of all scores in the last iteration.
    pub difference: f64,
    /// Whether the last iteration changed the scores by less than the tolerance.
    pub converged: bool,
}

impl EigenvectorCentralityOutput {
    fn new(scores: Buffer<f64>, convergence: Convergence) -> Self {
        let Convergence { iterations, difference, converged } = convergence;
        Self { scores, iterations, difference, converged }
    }
}

impl EigenvectorCentralityInput {
    fn limits(&self, graph: &CsrGraph) -> Limits {
        Limits::new(self.max_iterations, self.tolerance, graph.num_nodes())
    }
}

impl Kernel for EigenvectorCentrality {
    type Input = EigenvectorCentralityInput;
    type Output = EigenvectorCentralityOutput;

    fn info(&self) -> KernelInfo {
        let description = "Eigenvector centrality: the score of a node is proportional to the sum of those of the \
                           nodes with an edge to it.";
        KernelInfo::new("graph/eigenvector-centrality", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &EigenvectorCentralityInput) -> Result<(), InvalidInput> {
        input.graph_input().validate()?;
        Limits::validate(input.max_iterations, input.tolerance)
    }

    fn cost(&self, input: &EigenvectorCentralityInput) -> Cost {
        let graph = input.graph_input();
        Cost {
            bytes: graph.load_bytes(),
            operations: power_iteration::operations(&graph, 1, input.max_iterations),
            device_memory: device_memory(input),
        }
    }

    /// The run that takes the most iterations makes those of all.
    fn batch_cost(&self, inputs: &[&EigenvectorCentralityInput], sum: Cost) -> Cost {
        let costs = inputs.iter().map(|input| self.cost(input));
        costs.max_by_key(|cost| cost.operations).unwrap_or(sum)
    }

    fn footprint(&self, input: &EigenvectorCentralityInput) -> Option<Footprint> {
        let of_iteration = power_iteration::footprint(&input.graph_input());
        // The scores that are iterated, of which the output is a copy.
        let scores = Footprint::of_array::<f64>(input.graph_input().claimed_size().0);
        Some(Footprint { scratch: of_iteration.scratch.saturating_add(scores), ..of_iteration })
    }

    fn operands(&self, input: &EigenvectorCentralityInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &EigenvectorCentralityInput,
        context: &RunContext<'_>,
    ) -> Result<EigenvectorCentralityOutput, KernelError> {
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
        input: &EigenvectorCentralityInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<EigenvectorCentralityOutput, KernelError> {
        let mut outputs = self.run_cuda_batch(&[input], cuda)?;
        Ok(outputs.swap_remove(0))
    }

    /// Requests on one graph share a run, whatever their limits.
    fn batch_key(&self, input: &EigenvectorCentralityInput) -> Option<BatchKey> {
        input.graph_input().batch_key()
    }

    fn shares_run(&self, first: &EigenvectorCentralityInput, other: &EigenvectorCentralityInput) -> bool {
        first.graph_input().is_same(&other.graph_input())
    }

    fn run_cpu_batch(
        &self,
        inputs: &[&EigenvectorCentralityInput],
        context: &RunContext<'_>,
    ) -> Result<Vec<EigenvectorCentralityOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_with_predecessors(context)?;
        scores(&graph, &limits(inputs, &graph), context)
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&EigenvectorCentralityInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<EigenvectorCentralityOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_with_predecessors(cuda.context())?;
        cuda::scores(&graph, first.graph_input().is_stored(), &limits(inputs, &graph), cuda)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &EigenvectorCentralityInput) -> u64 {
    let (nodes, arcs) = input.graph_input().claimed_size();
    cuda::device_memory(nodes, arcs)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &EigenvectorCentralityInput) -> u64 {
    0
}

fn limits(inputs: &[&EigenvectorCentralityInput], graph: &CsrGraph) -> Vec<Limits> {
    inputs.iter().map(|input| input.limits(graph)).collect()
}

/// Iterates on the CPU, and returns the scores at which each of the limits stops. The predecessors of the graph are
/// [made](CsrGraph::make_predecessors).
fn scores(
    graph: &CsrGraph,
    limits: &[Limits],
    context: &RunContext<'_>,
) -> Result<Vec<EigenvectorCentralityOutput>, KernelError> {
    let parts = row_parts(graph.predecessors());
    let start = vec![1.0 / graph.num_nodes() as f64; graph.num_nodes()];
    let (mut values, mut from, mut to) = (start.clone(), start, vec![0.0; graph.num_nodes()]);
    let stopped = repeat_for_all(limits, |limits| {
        let convergence = limits.repeat(|| {
            let vectors = Vectors { from: &from, values: &mut values, to: &mut to };
            let multiply = |_: usize, sum: f64, old: f64| {
                let value = old + sum;
                NodeUpdate { value, contribution: value, sums: [value * value, 0.0] }
            };
            let [squares, _] = iterate(graph.predecessors(), &parts, vectors, context, multiply)?;
            let norm = squares.sqrt();
            let vectors = Vectors { from: &from, values: &mut values, to: &mut to };
            let normalize = |_: usize, last: f64, value: f64| {
                let score = value / norm;
                NodeUpdate { value: score, contribution: score, sums: [(score - last).abs(), 0.0] }
            };
            let [difference, _] = update_each(&parts, vectors, context, normalize)?;
            std::mem::swap(&mut from, &mut to);
            Ok(difference)
        })?;
        Ok((convergence, Buffer::from(values.clone())))
    })?;
    Ok(stopped.into_iter().map(|(scores, convergence)| EigenvectorCentralityOutput::new(scores, convergence)).collect())
}
