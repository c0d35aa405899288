//! Numbers of components and communities by their lowest nodes.

use std::sync::atomic::{AtomicU32, Ordering};

use super::ConnectedComponentsOutput;
use crate::kernels::graph::cancel_check::CancelCheck;
use crate::kernels::graph::degree::map_nodes;
use crate::kernels::graph::node_ranges::{for_each_range, into_values};
use crate::service::{KernelError, RunContext};

/// Returns the lowest node that has the same label, for each node. Labels are below the number of nodes.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(in crate::kernels::graph) fn lowest_nodes(
    labels: &[u32],
    context: &RunContext<'_>,
) -> Result<Vec<u32>, KernelError> {
    let mut cancel_check = CancelCheck::new(context);
    let mut lowest = vec![u32::MAX; labels.len()];
    for (node, &label) in (0..).zip(labels) {
        cancel_check.spend(1)?;
        let lowest = &mut lowest[label as usize];
        *lowest = node.min(*lowest);
    }
    map_nodes(labels.len(), context, |node| lowest[labels[node as usize] as usize])
}

/// Numbers the components, given the lowest node of the component of each node.
///
/// # Errors
/// Those of [`RunContext::check`].
pub(in crate::kernels::graph) fn number(
    lowest: Vec<u32>,
    context: &RunContext<'_>,
) -> Result<ConnectedComponentsOutput, KernelError> {
    let nodes = lowest.len();
    let mut cancel_check = CancelCheck::new(context);
    let mut numbers = vec![0; nodes];
    let mut num_components = 0;
    for (node, number) in numbers.iter_mut().enumerate() {
        cancel_check.spend(1)?;
        if lowest[node] == node as u32 {
            *number = num_components;
            num_components += 1;
        }
    }
    let zeros = |len: usize| -> Vec<AtomicU32> { std::iter::repeat_with(AtomicU32::default).take(len).collect() };
    let components = zeros(nodes);
    let sizes = zeros(num_components as usize);
    for_each_range(nodes, context, |range, _| {
        // Neighbouring nodes are often in one component, which is counted once.
        let (mut run_of, mut run) = (0, 0);
        for node in range {
            let component = numbers[lowest[node as usize] as usize];
            components[node as usize].store(component, Ordering::Relaxed);
            if component != run_of {
                sizes[run_of as usize].fetch_add(run, Ordering::Relaxed);
                (run_of, run) = (component, 0);
            }
            run += 1;
        }
        sizes[run_of as usize].fetch_add(run, Ordering::Relaxed);
        Ok(())
    })?;
    Ok(ConnectedComponentsOutput {
        components: into_values(components).into(),
        sizes: into_values(sizes).into(),
        num_components,
    })
}
