//! The test's inputs, and a search from every node as the reference.

use super::{ConnectedComponents, ConnectedComponentsInput, ConnectedComponentsOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for ConnectedComponents {
    /// Weak components, which both backends have: many small ones, one large one, or a long path with its nodes mixed.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ConnectedComponentsInput> {
        let mut edges = random_edges(nodes, random);
        match random.below(3) {
            0 => edges.truncate(nodes / 2),
            1 => {
                let mut order: Vec<u32> = (0..nodes as u32).collect();
                (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
                edges = order.windows(2).map(|pair| [pair[0], pair[1]]).collect();
            }
            _ => {}
        }
        let directed = random.below(2) == 1;
        Some(ConnectedComponentsInput { directed, ..ConnectedComponentsInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut ConnectedComponentsInput, _: &ConnectedComponentsInput) {}

    fn put_nan(&self, _: &mut ConnectedComponentsInput, _: usize) {}

    fn reference(&self, input: &ConnectedComponentsInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let [neighbours, _] = neighbours(nodes, edges, false);
        let mut components = vec![usize::MAX; nodes];
        let mut sizes = Vec::new();
        for start in 0..nodes {
            if components[start] != usize::MAX {
                continue;
            }
            let component = sizes.len();
            components[start] = component;
            let mut found = vec![start];
            let mut next = 0;
            while let Some(&node) = found.get(next) {
                next += 1;
                for &other in &neighbours[node] {
                    if components[other] == usize::MAX {
                        components[other] = component;
                        found.push(other);
                    }
                }
            }
            sizes.push(found.len());
        }
        let exact = |values: &[usize]| values.iter().map(|&value| (value as f64, 0.0)).collect();
        vec![
            Expected { name: "components", values: exact(&components) },
            Expected { name: "sizes", values: exact(&sizes) },
            Expected { name: "num_components", values: exact(&[sizes.len()]) },
        ]
    }

    fn values(&self, output: &ConnectedComponentsOutput) -> Vec<Vec<f64>> {
        let values = |values: &[u32]| values.iter().map(|&value| value.into()).collect();
        vec![values(&output.components), values(&output.sizes), vec![output.num_components.into()]]
    }
}
