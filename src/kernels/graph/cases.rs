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
