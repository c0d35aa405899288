//! The test's inputs, and every pair of spokes looked up among the edges as the reference.

use super::{StarTopology, StarTopologyInput, StarTopologyOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for StarTopology {
    fn case(&self, nodes: usize, random: &mut Random) -> Option<StarTopologyInput> {
        // The reference takes too long for large graphs.
        if nodes > 1_000 {
            return None;
        }
        let edges = random_edges(nodes, random);
        let (directed, min_degree) = (random.below(2) == 1, 2 + random.below(3) as u32);
        Some(StarTopologyInput { directed, min_degree, ..StarTopologyInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut StarTopologyInput, _: &StarTopologyInput) {}

    fn put_nan(&self, _: &mut StarTopologyInput, _: usize) {}

    fn reference(&self, input: &StarTopologyInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [spokes, _] = neighbours(nodes, edges, false);
        let between = |node: usize| {
            let is_edge = |a: usize, b: usize| spokes[a].binary_search(&b).is_ok();
            let with_later =
                |(index, &a): (usize, &usize)| spokes[node][index + 1..].iter().filter(|&&b| is_edge(a, b)).count();
            spokes[node].iter().enumerate().map(with_later).sum::<usize>() as f64
        };
        let edges: Vec<f64> = (0..nodes).map(between).collect();
        let score = |node: usize| {
            let count = spokes[node].len() as f64;
            let is_hub = spokes[node].len() >= input.min_degree as usize;
            (if is_hub { 1.0 - 2.0 * edges[node] / (count * (count - 1.0)) } else { 0.0 }, 1e-15)
        };
        let exact = |number: f64| (number, 0.0);
        vec![
            Expected { name: "scores", values: (0..nodes).map(score).collect() },
            Expected { name: "spoke_counts", values: spokes.iter().map(|spokes| exact(spokes.len() as f64)).collect() },
            Expected { name: "inter_spoke_edges", values: edges.into_iter().map(exact).collect() },
        ]
    }

    fn values(&self, output: &StarTopologyOutput) -> Vec<Vec<f64>> {
        let spokes = output.spoke_counts.iter().map(|&count| count.into()).collect();
        let edges = output.inter_spoke_edges.iter().map(|&count| count as f64).collect();
        vec![output.scores.to_vec(), spokes, edges]
    }
}
