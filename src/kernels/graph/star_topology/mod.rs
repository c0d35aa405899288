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
//! Edges between spokes are triangles, which are counted as by [`graph/triangle-counting`](super::triangle_counting) in time
//! O(m^1.5) for m edges.
//!
//! # Errors
//! An invalid graph, or `min_degree` below 2; the error names the field.

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
    Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, OperandVersion, RunContext,
};

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
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
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
        let description = "Score of each node as the hub of a star: 1 where its neighbours have no edges between them, 0 \
                           where all of them are connected.";
        KernelInfo::new("graph/star-topology", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &StarTopologyInput) -> Result<(), InvalidInput> {
        input.graph_input().validate()?;
        if input.min_degree < 2 {
            return Err(InvalidInput::new("min_degree", format!("{}, and 2 is the least", input.min_degree)));
        }
        Ok(())
    }

    fn cost(&self, input: &StarTopologyInput) -> Cost {
        triangles::cost(&input.graph_input())
    }

    fn footprint(&self, input: &StarTopologyInput) -> Option<Footprint> {
        let graph = input.graph_input();
        let (nodes, _) = graph.claimed_size();
        let output = Footprint::of_array::<[u64; 2]>(nodes).saturating_add(Footprint::of_array::<u32>(nodes));
        Some(Footprint { output, scratch: triangles::scratch(&graph) })
    }

    fn operands(&self, input: &StarTopologyInput) -> Vec<Arc<OperandVersion>> {
        input.graph_input().operands()
    }

    fn run_cpu(&self, input: &StarTopologyInput, context: &RunContext<'_>) -> Result<StarTopologyOutput, KernelError> {
        let graph = input.graph_input().load_in(context)?;
        let oriented = graph.oriented(context)?;
        output(input, oriented, triangles::count(oriented, context)?.into(), context)
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&triangles::cuda::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(
        &self,
        input: &StarTopologyInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<StarTopologyOutput, KernelError> {
        let graph = input.graph_input().load_in(cuda.context())?;
        let oriented = graph.oriented(cuda.context())?;
        let edges = triangles::cuda::count(oriented, cuda)?;
        output(input, oriented, edges, cuda.context())
    }
}

/// Returns the output that follows from the triangles of each node.
fn output(
    input: &StarTopologyInput,
    graph: &OrientedGraph,
    inter_spoke_edges: Buffer<u64>,
    context: &RunContext<'_>,
) -> Result<StarTopologyOutput, KernelError> {
    let (spokes, edges) = (&graph.degrees()[..], &inter_spoke_edges[..]);
    let score = |node: u32| {
        let (count, edges) = (spokes[node as usize], edges[node as usize]);
        if count < input.min_degree {
            return 0.0;
        }
        let pairs = u64::from(count) * u64::from(count - 1) / 2;
        1.0 - edges as f64 / pairs as f64
    };
    let scores = map_nodes(graph.num_nodes(), context, score)?;
    Ok(StarTopologyOutput { scores: scores.into(), spoke_counts: graph.degrees().clone(), inter_spoke_edges })
}
