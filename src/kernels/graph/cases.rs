//! Random graphs, and their neighbours by definition, for the tests of the graph kernels.

use crate::kernels::authoring::Random;

/// Returns two random edges for each node, so that some nodes are isolated and some edges are loops or repeats.
pub(super) fn random_edges(nodes: usize, random: &mut Random) -> Vec<[u32; 2]> {
    let bound = nodes as u64;
    (0..2 * nodes).map(|_| [random.below(bound) as u32, random.below(bound) as u32]).collect()
}

/// Returns the successors and the predecessors of each node, from the edges alone.
pub(super) fn neighbours(nodes: usize, edges: &[[u32; 2]], directed: bool) -> [Vec<Vec<usize>>; 2] {
    let mut successors = vec![Vec::new(); nodes];
    let mut predecessors = successors.clone();
    for &[from, to] in edges.iter().filter(|[from, to]| from != to) {
        let (from, to) = (from as usize, to as usize);
        successors[from].push(to);
        predecessors[to].push(from);
        if !directed {
            successors[to].push(from);
            predecessors[from].push(to);
        }
    }
    for neighbours in successors.iter_mut().chain(&mut predecessors) {
        neighbours.sort_unstable();
        neighbours.dedup();
    }
    [successors, predecessors]
}

/// Returns random edges among which there are triangles: [`random_edges`], a clique, and hubs whose neighbours know
/// each other.
pub(super) fn clustered_edges(nodes: usize, random: &mut Random) -> Vec<[u32; 2]> {
    let mut edges = random_edges(nodes, random);
    let clique = nodes.min(300) as u32 / 2;
    edges.extend((0..clique).flat_map(|node| (0..node).map(move |other| [other, node])));
    // Each node has an edge to one of a few hubs, and to the next node.
    edges.extend((1..nodes as u32).flat_map(|node| [[node, node % 3], [node - 1, node]]));
    edges
}

/// Returns how many pairs of each node's neighbours have an edge between them, looking up all pairs.
pub(super) fn triangles(neighbours: &[Vec<usize>]) -> Vec<f64> {
    let is_edge = |a: usize, b: usize| neighbours[a].binary_search(&b).is_ok();
    let of_node = |neighbours: &Vec<usize>| {
        let with_later =
            |(index, &a): (usize, &usize)| neighbours[index + 1..].iter().filter(|&&b| is_edge(a, b)).count();
        neighbours.iter().enumerate().map(with_later).sum::<usize>() as f64
    };
    neighbours.iter().map(of_node).collect()
}

/// Returns the distance from a node to each node that a path leads to, by a search with a queue.
pub(super) fn distances_from(successors: &[Vec<usize>], source: usize) -> Vec<Option<usize>> {
    let mut distances = vec![None; successors.len()];
    distances[source] = Some(0);
    let mut found = vec![source];
    let mut next = 0;
    while let Some(&node) = found.get(next) {
        next += 1;
        for &successor in &successors[node] {
            if distances[successor].is_none() {
                distances[successor] = distances[node].map(|distance| distance + 1);
                found.push(successor);
            }
        }
    }
    distances
}
