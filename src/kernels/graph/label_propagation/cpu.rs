//! Label propagation on the CPU: the nodes of a colour in parallel.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::coloring::ColorClasses;
use super::{LabelPropagationInput, LabelPropagationOutput, output};
use crate::kernels::graph::arc_units::ArcUnits;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::connected_components::numbering;
use crate::kernels::graph::csr::{Adjacency, CsrGraph};
use crate::kernels::graph::modularity_score::CommunityCounts;
use crate::kernels::graph::node_chunks::map_chunks;
use crate::kernels::graph::node_order::NodeOrder;
use crate::kernels::graph::node_ranges::into_values;
use crate::kernels::graph::weight_table::WeightTable;
use crate::service::{Footprint, KernelError, RunContext};

/// Returns the host memory of a run: six words for each node, a flag, and the tables of the rows that are worked on.
pub(super) fn workspace(nodes: u64) -> u64 {
    Footprint::of_array::<[u32; 16]>(nodes).saturating_add(CommunityCounts::workspace(nodes))
}

/// Finds the communities.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(super) fn communities(
    graph: &CsrGraph,
    input: &LabelPropagationInput,
    context: &RunContext<'_>,
) -> Result<LabelPropagationOutput, KernelError> {
    let order = NodeOrder { seed: input.seed };
    let classes = ColorClasses::new(graph.successors(), order, context)?;
    let propagation = Propagation::new(graph.successors(), order);
    let (mut iterations, mut converged) = (0, false);
    while iterations < input.max_iterations && !converged {
        let mut has_changed = false;
        for class in classes.iter() {
            let of_chunks = map_chunks(graph.successors().row_offsets(), class, context, |nodes, cancel_check| {
                propagation.update_all(nodes, cancel_check)
            })?;
            has_changed |= of_chunks.contains(&true);
        }
        iterations += 1;
        converged = !has_changed;
    }
    let labels = into_values(propagation.labels);
    let counts = CommunityCounts::count(graph, ArcUnits::new(graph, false), &labels, context)?;
    let numbered = numbering::number(numbering::lowest_nodes(&labels, context)?, context)?;
    Ok(output(numbered, &counts, iterations, converged))
}

/// The labels, which threads change. Those of neighbours are never changed at the same time.
struct Propagation<'a> {
    graph: &'a Adjacency,
    order: NodeOrder,
    /// The node whose label each node has.
    labels: Vec<AtomicU32>,
    /// Whether a neighbour's label has changed since the node was updated.
    is_active: Vec<AtomicBool>,
}

impl<'a> Propagation<'a> {
    fn new(graph: &'a Adjacency, order: NodeOrder) -> Self {
        let nodes = graph.row_offsets().len() as u32 - 1;
        let labels = (0..nodes).map(AtomicU32::new).collect();
        Self { graph, order, labels, is_active: (0..nodes).map(|_| AtomicBool::new(true)).collect() }
    }

    fn label(&self, node: u32) -> u32 {
        self.labels[node as usize].load(Ordering::Relaxed)
    }

    /// Updates nodes; returns whether any has another label now.
    fn update_all(&self, nodes: &[u32], cancel_check: &mut CancelCheck<'_>) -> Result<bool, KernelError> {
        let mut counts = WeightTable::default();
        let mut has_changed = false;
        for &node in nodes {
            // Without a change among its neighbours, a node keeps its label.
            if self.is_active[node as usize].swap(false, Ordering::Relaxed) {
                cancel_check.spend(2 * self.graph.degree(node))?;
                has_changed |= self.update(node, &mut counts);
            }
        }
        Ok(has_changed)
    }

    /// Gives a node the label that most neighbours have: its own if that is among them, and otherwise the last in the order.
    fn update(&self, node: u32, counts: &mut WeightTable<u32>) -> bool {
        let row = self.graph.row(node);
        let own = self.label(node);
        counts.clear(row.len());
        let (mut best, mut best_label, mut own_count) = ((0, 0), own, 0);
        for &other in row {
            let label = self.label(other);
            let count = counts.add(label, 1);
            if label == own {
                own_count = count;
            }
            // Of the counts of a label on the way the last is the largest.
            if count >= best.0 {
                let candidate = (count, self.order.key(label));
                if candidate > best {
                    (best, best_label) = (candidate, label);
                }
            }
        }
        if own_count == best.0 {
            return false;
        }
        self.labels[node as usize].store(best_label, Ordering::Relaxed);
        for &other in row {
            self.is_active[other as usize].store(true, Ordering::Relaxed);
        }
        true
    }
}
