//! `graph/motif-detection`: the census of the connected subgraphs of three and four nodes.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`] |
//! | out: `path_3` | integer | three nodes with two edges |
//! | out: `triangle` | integer | three nodes with three edges |
//! | out: `path_4` | integer | four nodes in a row |
//! | out: `star_4` | integer | a node with three neighbours that have no edge between them |
//! | out: `cycle_4` | integer | a cycle of four nodes without a chord |
//! | out: `tailed_triangle` | integer | a triangle, and a node with an edge to one of its corners |
//! | out: `diamond` | integer | four nodes with all edges but one |
//! | out: `clique_4` | integer | four nodes with all edges |
//! | out: `triads` | `u64`, `[13]`, if the graph is directed | connected subgraphs of three nodes by their arcs |
//!
//! Each set of nodes is counted once, as the subgraph with all edges between them. The counts of 3 and 4 nodes are
//! those of `motifs_randesu` of igraph 1.0. Edges of a directed graph count without direction in them, and in `triads`
//! with it. That has the classes of Holland and Leinhardt in the order 021D, 021U, 021C, 111D, 111U, 030T, 030C, 201,
//! 120D, 120U, 120C, 210, 300, as in `triadic_census` of networkx 3.6; 003, 012 and 102, which are not connected, are
//! left out. Self-loops and repeated edges change nothing.
//!
//! Triangles, cliques and cycles are found, and the other counts follow from them and from the degrees: Ahmed, Neville,
//! Rossi and Duffield, *Efficient graphlet counting for large networks* (2015); for triads, the wedges at each node
//! less those that triangles close, of the classes of Batagelj and Mrvar, *A subquadratic triad census algorithm for
//! large sparse networks with small maximum degree* (2001). For m edges it takes O(m^1.5) time, and that of
//! [`k_clique`](super::k_clique) for cliques of four.
//!
//! # Errors
//! An invalid graph; the error names the field. A count that 64 bits do not hold.

mod cases;
#[cfg(feature = "cuda")]
mod cuda;
mod subgraphs;
mod triads;
mod triangle_census;

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::subgraphs::Subgraphs;
use super::csr::Direction;
use super::cycles;
use super::fields::graph_input;
use super::input::GraphInput;
use super::k_clique::enumerate;
use super::triangles;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct MotifDetection;

graph_input! {
    /// The input of `graph/motif-detection`.
    pub struct MotifDetectionInput {}
}

/// The output of `graph/motif-detection`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct MotifDetectionOutput {
    /// Three nodes with two edges.
    pub path_3: u64,
    /// Three nodes with three edges.
    pub triangle: u64,
    /// Four nodes in a row.
    pub path_4: u64,
    /// A node with three neighbours that have no edge between them.
    pub star_4: u64,
    /// A cycle of four nodes without a chord.
    pub cycle_4: u64,
    /// A triangle, and a node with an edge to one of its corners.
    pub tailed_triangle: u64,
    /// Four nodes with all edges but one.
    pub diamond: u64,
    /// Four nodes with all edges.
    pub clique_4: u64,
    /// Connected triads of a directed graph: 021D, 021U, 021C, 111D, 111U, 030T, 030C, 201, 120D, 120U, 120C, 210, 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub triads: Option<Buffer<u64>>,
}

impl Kernel for MotifDetection {
    type Input = MotifDetectionInput;
    type Output = MotifDetectionOutput;

    fn info(&self) -> KernelInfo {
        let description = "Census of the connected subgraphs of three and four nodes.";
        KernelInfo::new("graph/motif-detection", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &MotifDetectionInput) -> Result<(), InvalidInput> {
        input.graph_input().validate().map(drop)
    }

    fn cost(&self, input: &MotifDetectionInput) -> Cost {
        // Triangles, cliques, and each wedge twice.
        let triangles = triangles::cost(&input.graph_input());
        Cost {
            operations: triangles.operations.saturating_mul(8),
            device_memory: device_memory(&input.graph_input()),
            ..triangles
        }
    }

    fn footprint(&self, input: &MotifDetectionInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let triads = if graph.direction() == Direction::Directed { triads::CLASSES as u64 } else { 0 };
        let scratch = [
            triangles::scratch(&graph),
            cycles::scratch(nodes, arcs).max(triangle_census::scratch(nodes)),
            // Triangles of each edge, and its arcs.
            arcs.saturating_mul(5),
            enumerate::scratch(arcs),
        ];
        Some(Footprint {
            output: Footprint::of_array::<u64>(8 + triads),
            scratch: scratch.into_iter().fold(0, u64::saturating_add),
        })
    }

    fn operands(&self, input: &MotifDetectionInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(
        &self,
        input: &MotifDetectionInput,
        context: &RunContext<'_>,
    ) -> Result<MotifDetectionOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        let is_directed = graph.direction() == Direction::Directed;
        let dyads = if is_directed { Some(triads::dyads(&graph, oriented, context)?) } else { None };
        let census = triangle_census::count(oriented, dyads.as_deref(), context)?;
        let squares = cycles::count_four(&graph, context)?;
        let cliques = enumerate::count(oriented.arcs(), 4, context)?;
        let triads = if is_directed {
            let mutual = triads::mutual_degrees(&graph, context)?;
            Some(triads::census(&graph, oriented, &mutual, &census.of_dyads, context)?)
        } else {
            None
        };
        let counts = Subgraphs::new(oriented, &census.of_arcs, squares, cliques.into(), context)?;
        output(counts.induced(), triads)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        [&cuda::MODULE].into_iter().chain(cycles::cuda::modules()).collect()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &MotifDetectionInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<MotifDetectionOutput, KernelError> {
        // Each edge of the oriented form is two arcs of the graph whose cycles are counted.
        if !cycles::cuda::supports(input.graph_input().claimed_size().1.saturating_mul(2)) {
            return Err(KernelError::UnsupportedBackend { id: self.info().id, backend: "CUDA" });
        }
        let graph = input.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let is_directed = graph.direction() == Direction::Directed;
        let cuda::Census { triangles, cliques, mutual } = cuda::census(&graph, oriented, cuda)?;
        let squares = match is_directed {
            true => cycles::cuda::count_four(oriented.arcs(), false, cuda)?,
            false => cycles::cuda::count_four(graph.successors(), true, cuda)?,
        };
        let triads = match mutual {
            Some(mutual) => Some(triads::census(&graph, oriented, &mutual, &triangles.of_dyads, cuda.context())?),
            None => None,
        };
        let counts = Subgraphs::new(oriented, &triangles.of_arcs, squares.into(), cliques.into(), cuda.context())?;
        output(counts.induced(), triads)
    }
}

#[cfg(feature = "cuda")]
fn device_memory(graph: &GraphInput<'_>) -> u64 {
    let (nodes, arcs) = graph.claimed_size();
    cuda::device_memory(nodes, arcs).saturating_add(cycles::device_memory(nodes, arcs))
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &GraphInput<'_>) -> u64 {
    0
}

fn output(counts: Subgraphs, triads: Option<Buffer<u64>>) -> Result<MotifDetectionOutput, KernelError> {
    let count = |name: &str, count: u128| {
        u64::try_from(count).map_err(|_| KernelError::kernel(format!("{name} is {count}, which 64 bits do not hold")))
    };
    Ok(MotifDetectionOutput {
        path_3: count("path_3", counts.paths_3)?,
        triangle: count("triangle", counts.triangles)?,
        path_4: count("path_4", counts.paths_4)?,
        star_4: count("star_4", counts.stars)?,
        cycle_4: count("cycle_4", counts.cycles)?,
        tailed_triangle: count("tailed_triangle", counts.tailed_triangles)?,
        diamond: count("diamond", counts.diamonds)?,
        clique_4: count("clique_4", counts.cliques)?,
        triads,
    })
}
