//! Strong components on the CPU: Tarjan's algorithm, without recursion.

use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{Footprint, KernelError, RunContext};

/// The value of a node that was not visited, or whose component is not complete.
const NONE: u32 = u32::MAX;

/// The memory that [`lowest_nodes`] and the numbering take: two words for each node, a word while it is open, and a [`Step`]
/// while it is on the path.
pub(super) fn workspace(nodes: u64) -> u64 {
    // Vectors that grow take up to twice what is in them.
    Footprint::of_array::<[u32; 2]>(nodes).saturating_add(Footprint::of_array::<[u32; 10]>(nodes))
}

/// A node of the path that the depth-first search is on.
struct Step {
    node: u32,
    /// The number of nodes that were visited before it.
    number: u32,
    /// The index of the arc to follow next.
    next_arc: u32,
    /// The number of nodes that were open before it.
    open_before: u32,
}

/// Returns the lowest node of the strong component of each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn lowest_nodes(graph: &CsrGraph, context: &RunContext<'_>) -> Result<Vec<u32>, KernelError> {
    let nodes = graph.num_nodes();
    let successors = graph.successors();
    let mut cancel_check = CancelCheck::new(context);
    // The lowest number of an open node that each node is known to lead to.
    let mut reached = vec![NONE; nodes];
    let mut lowest = vec![NONE; nodes];
    // Nodes that were visited and whose component is not complete, in the order of their numbers.
    let mut open: Vec<u32> = Vec::new();
    let mut path: Vec<Step> = Vec::new();
    let mut visited = 0;
    for start in 0..nodes as u32 {
        let mut next = (reached[start as usize] == NONE).then_some(start);
        while next.is_some() || !path.is_empty() {
            if let Some(node) = next.take() {
                path.push(Step { node, number: visited, next_arc: 0, open_before: open.len() as u32 });
                reached[node as usize] = visited;
                open.push(node);
                visited += 1;
            }
            let step = path.last_mut().expect("a step was pushed or there was one");
            let node = step.node as usize;
            let row = successors.row(step.node);
            while next.is_none() && (step.next_arc as usize) < row.len() {
                cancel_check.spend(1)?;
                let other = row[step.next_arc as usize];
                step.next_arc += 1;
                if reached[other as usize] == NONE {
                    next = Some(other);
                } else if lowest[other as usize] == NONE {
                    reached[node] = reached[node].min(reached[other as usize]);
                }
            }
            if next.is_some() {
                continue;
            }
            cancel_check.spend(1)?;
            let Some(step) = path.pop() else { break };
            if reached[node] == step.number {
                // No path leads from it to an earlier open node: the nodes since are its component.
                let component = &open[step.open_before as usize..];
                let low = component.iter().copied().min().unwrap_or(step.node);
                component.iter().for_each(|&member| lowest[member as usize] = low);
                open.truncate(step.open_before as usize);
            } else if let Some(before) = path.last() {
                let before = before.node as usize;
                reached[before] = reached[before].min(reached[node]);
            }
        }
    }
    Ok(lowest)
}
