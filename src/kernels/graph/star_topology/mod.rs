//! `graph/star-topology`: how much each node is the hub of a star, whose spokes have no edges between them.
//!
//! | field | type | |
//! |---|---|---|
//! | the graph | | as in [`GraphInput`](super::input::GraphInput) |
//! | `min_degree` | `u32`, default 2, at least 2 | nodes with fewer spokes have the score 0 |
//! | out: `scores` | `f64`, `[num_nodes]` | from 0 to 1, which is the hub of a pure star |
//! | out: `spoke_counts` | `u32`, `[num_nodes]` | neighbours in either direction |
//! | out: `inter_spoke_edges` | `u64`, `[num_nodes]` | pairs of neighbours with an edge between them |
//!
//! With k spokes and e edges between them the score is `1 - 2 e / (k (k - 1))`: one less the local clustering
//! coefficient of Watts and Strogatz, *Collective dynamics of 'small-world' networks* (1998), which is `clustering` of
//! networkx 3.6. Edges count without direction, and self-loops and repeats not at all.
//!
//! Edges between spokes are triangles, which [`triangles`] counts in time O(m^1.5) for m edges. There is no CUDA code.
//!
//! # Errors
//! An invalid graph, or `min_degree` below 2; the error names the field.

mod cases;
pub mod triangles;

use schemars::JsonSchema;
use serde::Serialize;

use self::triangles::{OrientedGraph, memory};
use super::csr::Direction;
use super::degree::map_nodes;
use super::fields::graph_input;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct StarTopology;

graph_input! {
    /// The input of `graph/star-topology`.
    pub struct StarTopologyInput {
        /// The fewest spokes of a hub, at least 2. Nodes with fewer have the score 0.
        pub min_degree: u32 = 2,
    }
}

/// The output of `graph/star-topology`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct StarTopologyOutput {
    /// How much each node is the hub of a star, from 0 to 1.
    pub scores: Buffer<f64>,
    /// How many neighbours each node has, in either direction.
    pub spoke_counts: Buffer<u32>,
    /// How many pairs of each node's neighbours have an edge between them.
    pub inter_spoke_edges: Buffer<u64>,
}

impl Kernel for StarTopology {
    type Input = StarTopologyInput;
    type Output = StarTopologyOutput;

    fn info(&self) -> KernelInfo {
        let description = "Score of each node as the hub of a star: 1 where its neighbours have no edges between them, \
                           0 where all of them are connected. Has CPU code only.";
        KernelInfo::new("graph/star-topology", "1.0.0", description).pure()
    }

    fn validate(&self, input: &StarTopologyInput) -> Result<(), InvalidInput> {
        input.graph_input().validate()?;
        if input.min_degree < 2 {
            return Err(InvalidInput::new("min_degree", format!("{}, and 2 is the least", input.min_degree)));
        }
        Ok(())
    }

    fn cost(&self, input: &StarTopologyInput) -> Cost {
        let (nodes, arcs) = input.graph_input().claimed_size();
        let bytes = input.graph_input().load_bytes().saturating_add(nodes.saturating_add(arcs).saturating_mul(16));
        // The bound is seldom reached: a mean degree of d takes about m * d steps.
        let mean_degree = arcs / nodes.max(1) + 1;
        Cost { bytes, operations: arcs.saturating_mul(mean_degree).saturating_add(nodes), device_memory: 0 }
    }

    fn footprint(&self, input: &StarTopologyInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, arcs) = graph.claimed_size();
        let output = Footprint::of_array::<[u64; 2]>(nodes).saturating_add(Footprint::of_array::<u32>(nodes));
        let is_directed = graph.direction() == Direction::Directed;
        Some(Footprint { output, scratch: graph.load_memory().saturating_add(memory(nodes, arcs, is_directed)) })
    }

    fn run_cpu(&self, input: &StarTopologyInput, context: &RunContext<'_>) -> Result<StarTopologyOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        graph.make_predecessors(context)?;
        let oriented = OrientedGraph::new(&graph, context)?;
        let edges = oriented.triangles(context)?;
        let spokes = oriented.into_degrees();
        let score = |node: u32| {
            let (count, edges) = (spokes[node as usize], edges[node as usize]);
            if count < input.min_degree {
                return 0.0;
            }
            let pairs = u64::from(count) * u64::from(count - 1) / 2;
            1.0 - edges as f64 / pairs as f64
        };
        let scores = map_nodes(graph.num_nodes(), context, score)?;
        Ok(StarTopologyOutput { scores: scores.into(), spoke_counts: spokes.into(), inter_spoke_edges: edges.into() })
    }
}
