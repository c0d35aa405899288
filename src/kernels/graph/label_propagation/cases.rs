//! The test's inputs, and one node after the other as the reference.

use super::{LabelPropagation, LabelPropagationInput, LabelPropagationOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{clustered_edges, neighbours, random_edges};
use crate::kernels::graph::node_order::NodeOrder;

impl Cases for LabelPropagation {
    /// A sparse graph, one with a clique and hubs, or one of communities.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<LabelPropagationInput> {
        // The reference takes too long for large graphs.
        if nodes > 5_000 {
            return None;
        }
        let edges = match random.below(3) {
            0 => random_edges(nodes, random),
            1 => clustered_edges(nodes, random),
            _ => {
                // Most edges stay within a group of 16 nodes.
                let mut edges = random_edges(nodes, random);
                let within = |[from, _]: [u32; 2], random: &mut Random| {
                    let other = from / 16 * 16 + random.below(16) as u32;
                    [from, other.min(nodes as u32 - 1)]
                };
                let inner: Vec<_> = edges.iter().chain(&edges).map(|&edge| within(edge, random)).collect();
                edges.truncate(nodes / 4);
                edges.extend(inner);
                edges
            }
        };
        let max_iterations = if random.below(4) == 0 { 1 + random.below(3) as u32 } else { 1_000 };
        let input = LabelPropagationInput::from_edges(nodes as u64, edges);
        Some(LabelPropagationInput { max_iterations, seed: random.word(), ..input })
    }

    fn share(&self, _: &mut LabelPropagationInput, _: &LabelPropagationInput) {}

    fn put_nan(&self, _: &mut LabelPropagationInput, _: usize) {}

    fn reference(&self, input: &LabelPropagationInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let order = NodeOrder { seed: input.seed };
        let mut in_order: Vec<usize> = (0..nodes).collect();
        in_order.sort_by_key(|&node| order.key(node as u32));
        let mut colors = vec![usize::MAX; nodes];
        for &node in &in_order {
            let is_free = |color: &usize| neighbours[node].iter().all(|&other| colors[other] != *color);
            colors[node] = (0..).find(is_free).expect("there is one more colour than neighbours");
        }
        in_order.sort_by_key(|&node| colors[node]);

        let mut labels: Vec<usize> = (0..nodes).collect();
        let (mut iterations, mut converged) = (0, false);
        while iterations < input.max_iterations && !converged {
            converged = true;
            for &node in &in_order {
                let label = most_frequent(&neighbours[node], &labels, labels[node], order);
                converged &= label == labels[node];
                labels[node] = label;
            }
            iterations += 1;
        }
        let mut communities = vec![usize::MAX; nodes];
        let mut sizes: Vec<usize> = Vec::new();
        for node in 0..nodes {
            let earlier = (0..node).find(|&earlier| labels[earlier] == labels[node]);
            let community = earlier.map_or(sizes.len(), |earlier| communities[earlier]);
            communities[node] = community;
            if community == sizes.len() {
                sizes.push(0);
            }
            sizes[community] += 1;
        }
        let modularity = modularity(&neighbours, &communities, sizes.len());
        let exact = |values: &[usize]| values.iter().map(|&value| (value as f64, 0.0)).collect();
        vec![
            Expected { name: "communities", values: exact(&communities) },
            Expected { name: "sizes", values: exact(&sizes) },
            Expected { name: "num_communities", values: exact(&[sizes.len()]) },
            Expected { name: "modularity", values: vec![(modularity, 1e-12)] },
            Expected { name: "iterations", values: exact(&[iterations as usize]) },
            Expected { name: "converged", values: exact(&[usize::from(converged)]) },
        ]
    }

    fn values(&self, output: &LabelPropagationOutput) -> Vec<Vec<f64>> {
        let values = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![
            values(&output.communities),
            values(&output.sizes),
            vec![output.num_communities.into()],
            vec![output.modularity],
            vec![output.iterations.into()],
            vec![f64::from(u8::from(output.converged))],
        ]
    }
}

fn most_frequent(neighbours: &[usize], labels: &[usize], own: usize, order: NodeOrder) -> usize {
    let frequency = |label: usize| neighbours.iter().filter(|&&other| labels[other] == label).count();
    let most = neighbours.iter().map(|&other| frequency(labels[other])).max().unwrap_or(0);
    if frequency(own) == most {
        return own;
    }
    let frequent = neighbours.iter().map(|&other| labels[other]).filter(|&label| frequency(label) == most);
    frequent.max_by_key(|&label| order.key(label as u32)).unwrap_or(own)
}

fn modularity(neighbours: &[Vec<usize>], communities: &[usize], num_communities: usize) -> f64 {
    let arcs = neighbours.iter().map(Vec::len).sum::<usize>().max(1) as f64;
    let of_community = |community: usize| {
        let members = || (0..neighbours.len()).filter(move |&node| communities[node] == community);
        let degrees = members().map(|node| neighbours[node].len()).sum::<usize>() as f64;
        let is_internal = |other: &&usize| communities[**other] == community;
        let internal = members().map(|node| neighbours[node].iter().filter(is_internal).count()).sum::<usize>() as f64;
        internal / arcs - degrees * degrees / (arcs * arcs)
    };
    (0..num_communities).map(of_community).sum()
}
