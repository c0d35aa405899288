//! The test's inputs, and searches along and against the edges as the reference.

use super::{ConnectedComponents, ConnectedComponentsInput, ConnectedComponentsOutput};
use crate::kernels::authoring::{Cases, Expected, Random};
use crate::kernels::graph::cases::{neighbours, random_edges};

impl Cases for ConnectedComponents {
    /// Many small components, one large one, a long path with its nodes mixed, or that with some of its edges both ways.
    fn case(&self, nodes: usize, random: &mut Random) -> Option<ConnectedComponentsInput> {
        let mut edges = random_edges(nodes, random);
        match random.below(4) {
            0 => edges.truncate(nodes / 2),
            kind @ (1 | 2) => {
                let mut order: Vec<u32> = (0..nodes as u32).collect();
                (1..nodes).for_each(|last| order.swap(last, random.below(last as u64 + 1) as usize));
                edges = order.windows(2).map(|pair| [pair[0], pair[1]]).collect();
                let both_ways = |_: &&[u32; 2]| kind == 2 && random.below(3) > 0;
                let back: Vec<_> = edges.iter().filter(both_ways).map(|&[from, to]| [to, from]).collect();
                edges.extend(back);
            }
            _ => {}
        }
        let (directed, strong) = (random.below(3) > 0, random.below(2) == 1);
        Some(ConnectedComponentsInput { directed, strong, ..ConnectedComponentsInput::from_edges(nodes as u64, edges) })
    }

    fn share(&self, _: &mut ConnectedComponentsInput, _: &ConnectedComponentsInput) {}

    fn put_nan(&self, _: &mut ConnectedComponentsInput, _: usize) {}

    fn reference(&self, input: &ConnectedComponentsInput) -> Vec<Expected> {
        let edges = input.edges.as_deref().expect("the cases have edges");
        let nodes = input.num_nodes.expect("the cases have nodes") as usize;
        let order = if input.is_strong() {
            let [successors, _] = neighbours(nodes, edges, true);
            let mut order = postorder(&successors);
            order.reverse();
            order
        } else {
            (0..nodes).collect()
        };
        let [_, predecessors] = neighbours(nodes, edges, input.is_strong());
        let mut components = reached_together(&order, &predecessors);
        let mut sizes = Vec::new();
        let mut numbers = vec![usize::MAX; nodes];
        for component in &mut components {
            let number = &mut numbers[*component];
            if *number == usize::MAX {
                *number = sizes.len();
                sizes.push(0);
            }
            *component = *number;
            sizes[*component] += 1;
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

/// Returns the nodes in the order in which a depth-first search leaves them.
fn postorder(successors: &[Vec<usize>]) -> Vec<usize> {
    let mut order = Vec::new();
    let mut visited = vec![false; successors.len()];
    for start in 0..successors.len() {
        let mut path = if visited[start] { Vec::new() } else { vec![(start, 0)] };
        visited[start] = true;
        while let Some((node, next)) = path.last_mut() {
            match successors[*node].get(*next) {
                Some(&other) => {
                    *next += 1;
                    if !std::mem::replace(&mut visited[other], true) {
                        path.push((other, 0));
                    }
                }
                None => {
                    order.push(*node);
                    path.pop();
                }
            }
        }
    }
    order
}

/// Returns the node from which each node is first reached, by searches from the nodes in this order that skip what an
/// earlier one has reached. In an undirected graph those reached together are a component. They are a strong component
/// where the order is the reverse of [`postorder`] and the searches follow the edges backwards (Kosaraju and Sharir).
fn reached_together(order: &[usize], neighbours: &[Vec<usize>]) -> Vec<usize> {
    let mut reached_from = vec![usize::MAX; order.len()];
    for &start in order {
        let mut open = vec![start];
        while let Some(node) = open.pop() {
            if reached_from[node] == usize::MAX {
                reached_from[node] = start;
                open.extend(&neighbours[node]);
            }
        }
    }
    reached_from
}
