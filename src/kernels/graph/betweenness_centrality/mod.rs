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
//! The algorithm and its papers are in [`brandes`] and [`pivots`].

pub mod brandes;
mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod lanes;
pub mod pivots;
mod traversal;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::brandes::{pair_dependencies, workspace};
use self::pivots::Pivots;
use crate::kernels::graph::csr::{CsrGraph, Direction};
use crate::kernels::graph::input::{GraphInput, to_usize};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, Operand, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct BetweennessCentrality;

/// The input of `graph/betweenness-centrality`: a graph as edges or as CSR arrays.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "num_nodes": 4, "edges": [[0, 1], [1, 2], [2, 3], [0, 3]] },
    { "row_offsets": [0, 2, 4, 6, 8], "column_indices": [1, 3, 0, 2, 1, 3, 0, 2] },
]))]
pub struct BetweennessInput {
    /// A graph that is an operand, or one as an object of the following fields up to `directed`.
    #[serde(default)]
    pub graph: Option<Operand<CsrGraph>>,
    /// How many nodes there are. May be left out with CSR arrays, which say so themselves.
    #[serde(default)]
    pub num_nodes: Option<u64>,
    /// The edges, as pairs of nodes; or the graph as CSR arrays, `row_offsets` and `column_indices`.
    #[serde(default, deserialize_with = "crate::kernels::graph::input::edges")]
    #[schemars(with = "Option<Vec<[u32; 2]>>")]
    pub edges: Option<Vec<[u32; 2]>>,
    /// CSR: where each node's neighbours start in `column_indices`, and at the end its length.
    #[serde(default)]
    pub row_offsets: Option<Buffer<u32>>,
    /// CSR: the neighbours of all nodes, one node after the other.
    #[serde(default)]
    pub column_indices: Option<Buffer<u32>>,
    /// Whether edges lead one way only.
    #[serde(default)]
    pub directed: bool,
    /// Whether scores are fractions of the node pairs.
    #[serde(default = "yes")]
    pub normalized: bool,
    /// The sources to estimate from, two or more different nodes.
    #[serde(default)]
    pub sources: Option<Buffer<u32>>,
    /// How many sources to draw and estimate from.
    #[serde(default)]
    pub samples: Option<u64>,
    /// What the draw of `samples` depends on; 0 where it is left out.
    #[serde(default)]
    pub seed: Option<u64>,
}

fn yes() -> bool {
    true
}

/// The output of `graph/betweenness-centrality`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct BetweennessOutput {
    /// The score of each node.
    pub scores: Buffer<f64>,
}

impl BetweennessInput {
    /// An undirected graph from an edge list; exact, normalized scores.
    pub fn from_edges(num_nodes: u64, edges: Vec<[u32; 2]>) -> Self {
        Self { num_nodes: Some(num_nodes), edges: Some(edges), ..Self::empty() }
    }

    /// A stored graph; exact, normalized scores.
    pub fn from_operand(graph: Operand<CsrGraph>) -> Self {
        Self { graph: Some(graph), ..Self::empty() }
    }

    /// An undirected graph from CSR arrays; exact, normalized scores.
    pub fn from_csr(row_offsets: impl Into<Buffer<u32>>, column_indices: impl Into<Buffer<u32>>) -> Self {
        let (row_offsets, column_indices) = (Some(row_offsets.into()), Some(column_indices.into()));
        Self { row_offsets, column_indices, ..Self::empty() }
    }

    fn empty() -> Self {
        Self {
            graph: None,
            num_nodes: None,
            edges: None,
            row_offsets: None,
            column_indices: None,
            directed: false,
            normalized: true,
            sources: None,
            samples: None,
            seed: None,
        }
    }

    /// Which way edges lead.
    pub fn direction(&self) -> Direction {
        self.graph_input().direction()
    }

    /// The fields that describe the graph.
    pub fn graph_input(&self) -> GraphInput<'_> {
        GraphInput {
            operand: self.graph.as_ref(),
            num_nodes: self.num_nodes,
            edges: self.edges.as_deref(),
            row_offsets: self.row_offsets.as_deref(),
            column_indices: self.column_indices.as_deref(),
            directed: self.directed,
        }
    }

    /// The graph that the input describes.
    ///
    /// # Errors
    /// The first field that is wrong, as [`validate`](Kernel::validate) finds it.
    pub fn graph(&self) -> Result<CsrGraph, InvalidInput> {
        self.graph_input().build()
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
        let directed = input.direction() == Direction::Directed;
        let edges = if directed { arcs } else { arcs / 2 };
        let chosen = input.sources.as_ref().map(|sources| sources.len() as u64).or(input.samples);
        let sources = chosen.unwrap_or(nodes);
        // Each source visits each arc forward and backward; the constant is the cost of the smallest run.
        let visits = arcs.saturating_add(nodes).saturating_mul(2).saturating_mul(sources);
        #[cfg(feature = "cuda")]
        let device_memory = cuda::device_memory(nodes, arcs, sources, directed);
        #[cfg(not(feature = "cuda"))]
        let device_memory = 0;
        Cost {
            // Sources that are chosen are sorted or drawn, which touches each several times, when they are checked as well.
            bytes: edges
                .saturating_mul(8)
                .saturating_add(nodes.saturating_mul(12))
                .saturating_add(chosen.unwrap_or(0).saturating_mul(64)),
            operations: visits.saturating_add(2_000),
            device_memory,
        }
    }

    fn footprint(&self, input: &BetweennessInput) -> Option<Footprint> {
        let (nodes, arcs) = input.graph_input().claimed_size();
        let sources = input.sources.as_ref().map(|sources| sources.len() as u64).or(input.samples).unwrap_or(0);
        // While the graph is made there are its arcs as they came, sorted by one end, and by the other.
        // A stored graph is there already.
        let is_stored = input.graph.as_ref().is_some_and(|graph| graph.value().is_some());
        let copies = if is_stored { 0 } else { 3 };
        let graph = Footprint::of_array::<u32>(arcs.saturating_add(nodes)).saturating_mul(copies);
        // The chosen sources, the set that they are looked up in, and the order that duplicates are found by.
        let pivots = sources.saturating_mul(64);
        Some(Footprint {
            output: Footprint::of_array::<f64>(nodes),
            scratch: graph.saturating_add(pivots).saturating_add(workspace(nodes)),
        })
    }

    fn run_cpu(&self, input: &BetweennessInput, context: &RunContext<'_>) -> Result<BetweennessOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
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
        each(inputs, graph.num_nodes(), |pivots| Ok(pair_dependencies(&graph, pivots, context)?.into()))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&BetweennessInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<BetweennessOutput>, KernelError> {
        let Some(first) = inputs.first() else { return Ok(Vec::new()) };
        let graph = first.graph_input().load_in(cuda.context())?;
        let on_device = cuda::DeviceGraph::new(&graph, cuda)?;
        let nodes = graph.num_nodes();
        // The device has a copy. Freeing it takes the host milliseconds, which should not follow the computation.
        drop(graph);
        each(inputs, nodes, |pivots| cuda::pair_dependencies(&on_device, pivots, cuda))
    }
}

/// The outputs of requests on one graph of this many nodes, which is built, and on CUDA uploaded, once for all of them. Those
/// that start from the same sources share their sums. Requests with different sources run one after the other: a single
/// pass over all sources would need a row of sums for each request, and the order of its additions, and so the last bits of
/// an output, would depend on which other requests share the run.
fn each(
    inputs: &[&BetweennessInput],
    num_nodes: usize,
    mut sums: impl FnMut(&Pivots) -> Result<Buffer<f64>, KernelError>,
) -> Result<Vec<BetweennessOutput>, KernelError> {
    let mut known: Vec<(Pivots, Buffer<f64>)> = Vec::new();
    let mut outputs = Vec::with_capacity(inputs.len());
    for input in inputs {
        let pivots = input.pivots(num_nodes)?;
        let mut scores = match known.iter().find(|(of, _)| *of == pivots) {
            Some((_, sums)) => sums.clone(),
            None => {
                let sums = sums(&pivots)?;
                if inputs.len() > 1 {
                    known.push((pivots.clone(), sums.clone()));
                }
                sums
            }
        };
        pivots.rescale(&mut scores, input.normalized, input.direction());
        outputs.push(BetweennessOutput { scores });
    }
    Ok(outputs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

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
