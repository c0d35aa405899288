//! `graph/k-clique`, also `graph/k-clique-detection`: the number of cliques of `k` nodes, and some of them.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input) |
//! | `k` | `u32`, default 3, from 3 to 8 | nodes of a clique |
//! | `limit` | `u32`, default 0, at most 1048576 | how many cliques to list |
//! | out: `count` | integer | cliques of `k` nodes in the graph |
//! | out: `cliques` | `u32`, `[c * k]` | the nodes of `c` cliques, c being the lower of `count` and `limit` |
//!
//! A clique is a set of nodes between any two of which there is an edge, whether or not it is part of a larger one. The
//! counts are those of `enumerate_all_cliques` of networkx 3.6. The nodes of a listed clique ascend, and which cliques
//! are listed depends on the graph alone. Self-loops and repeated edges change nothing, and edges of a directed graph
//! count without direction.
//!
//! The algorithm extends cliques along the arcs of the [`OrientedGraph`](super::oriented), as in
//! Danisch, Balalau and Sozio, *Listing k-cliques in sparse real-world graphs* (2018). For m edges, of which a node has
//! at most d there, it takes O(m * d^(k - 2) / 64) time. On CUDA cliques are counted as in Almasri et al., *Parallel k-clique
//! counting on GPUs* (2022), and listed on the CPU.
//!
//! # Errors
//! An invalid graph, or `k` or `limit` out of its range; the error names the field.

mod cases;
#[cfg(feature = "cuda")]
mod cuda;
pub(super) mod enumerate;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use super::csr::Direction;
use super::fields::graph_input;
use super::input::GraphInput;
#[cfg(feature = "cuda")]
use super::oriented::OrientedGraph;
use super::triangles;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The cliques that can be asked for.
const MIN_K: u32 = 3;
const MAX_K: u32 = 8;
/// The most cliques that are listed.
const MAX_LIMIT: u32 = 1 << 20;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct KClique;

graph_input! {
    examples = [
        { "num_nodes": 4, "edges": [[0, 1], [1, 2], [0, 2], [2, 3]] },
        { "num_nodes": 4, "edges": [[0, 1], [1, 2], [0, 2], [2, 3]], "k": 3, "limit": 1 },
    ];
    /// The input of `graph/k-clique`.
    pub struct KCliqueInput {
        /// How many nodes a clique has, from 3 to 8.
        pub k: u32 = 3,
        /// How many cliques to list, at most 1048576.
        pub limit: u32 = 0,
    }
}

/// The output of `graph/k-clique`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KCliqueOutput {
    /// How many cliques of `k` nodes the graph has.
    pub count: u64,
    /// The nodes of the listed cliques, ascending, one clique after the other.
    pub cliques: Buffer<u32>,
}

impl Kernel for KClique {
    type Input = KCliqueInput;
    type Output = KCliqueOutput;

    fn info(&self) -> KernelInfo {
        let description = "Number of cliques of 3 to 8 nodes, and a list of some of them.";
        KernelInfo::new("graph/k-clique", "1.0.0", description).alias("graph/k-clique-detection").cuda().pure()
    }

    fn validate(&self, input: &KCliqueInput) -> Result<(), InvalidInput> {
        input.graph_input().validate()?;
        if !(MIN_K..=MAX_K).contains(&input.k) {
            return Err(InvalidInput::new("k", format!("{}, and it is from {MIN_K} to {MAX_K}", input.k)));
        }
        if input.limit > MAX_LIMIT {
            return Err(InvalidInput::new("limit", format!("{}, and {MAX_LIMIT} is the most", input.limit)));
        }
        Ok(())
    }

    fn cost(&self, input: &KCliqueInput) -> Cost {
        // The factor for each further node depends on the graph, and is seldom large.
        let triangles = triangles::cost(&input.graph_input());
        let operations = triangles.operations.saturating_mul(u64::from(input.k).saturating_sub(2));
        Cost { operations, device_memory: device_memory(&input.graph_input()), ..triangles }
    }

    fn footprint(&self, input: &KCliqueInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (_, arcs) = graph.claimed_size();
        let listed = u64::from(input.limit.min(MAX_LIMIT)).saturating_mul(input.k.into());
        let scratch = triangles::scratch(&graph).saturating_add(enumerate::scratch(arcs));
        // The count and the list.
        Some(Footprint { output: Footprint::of_array::<u32>(listed.saturating_add(2)), scratch })
    }

    fn operands(&self, input: &KCliqueInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &KCliqueInput, context: &RunContext<'_>) -> Result<KCliqueOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        let k = input.k as usize;
        let count = enumerate::count(oriented.arcs(), k, context)?;
        let cliques = enumerate::list(oriented.arcs(), k, input.listed(count), context)?;
        Ok(KCliqueOutput { count, cliques: cliques.into() })
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &KCliqueInput, cuda: &mut LaunchContext<'_>) -> Result<KCliqueOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let count = cuda::count(oriented, input.k, cuda)?;
        let cliques = enumerate::list(oriented.arcs(), input.k as usize, input.listed(count), cuda.context())?;
        Ok(KCliqueOutput { count, cliques: cliques.into() })
    }
}

impl KCliqueInput {
    /// Returns how many of `count` cliques are listed.
    fn listed(&self, count: u64) -> usize {
        count.min(self.limit.into()) as usize
    }
}

#[cfg(feature = "cuda")]
fn device_memory(graph: &GraphInput<'_>) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    let edges = match graph.direction() {
        Direction::Directed => arcs,
        Direction::Undirected => arcs / 2,
    };
    cuda::device_memory(nodes, edges, OrientedGraph::bytes(nodes, arcs, graph.direction()))
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GraphInput<'_>) -> u64 {
    0
}
