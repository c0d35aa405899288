//! Label propagation on CUDA. `label_propagation.cu` describes the algorithm and what its entries take.

use super::{LabelPropagationInput, LabelPropagationOutput, output};
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::radix_sort;
use crate::kernels::graph::connected_components;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::modularity_score;
use crate::kernels::graph::modularity_score::cuda::DeviceGraph;
use crate::kernels::ordered_bits::SortOrder;
use crate::service::{Buffer, KernelError, LaunchContext};

static MODULE: Module = Module::embedded(device_code!("graph/label-propagation"));

/// Blocks of the launch that colours the nodes, for each multiprocessor: fewer wait less at the barrier of each round.
const COLOR_BLOCKS: u32 = 2;
/// Rounds of such a launch, of some microseconds each.
const COLOR_ROUNDS: u32 = 256;
/// Blocks for each multiprocessor of the launch that balances its load by itself.
const BALANCED_BLOCKS: u32 = 6;
/// `SIZES`, `WARPS` and `BLOCK_ROW` of `label_propagation.cu`.
const SIZES: usize = 4;
const WARPS: u32 = 8;
const BLOCK_ROW: u32 = 2048;
/// The 32-bit words of its `Control`, and where some of them are.
const CONTROL_WORDS: usize = 11;
const BEGIN: usize = 0;
const END: usize = 1;
const TAIL: usize = 2;
const NUM_COLORS: usize = 4;
const CHANGED: usize = 9;

/// The device code that a run uses.
pub(super) fn modules() -> Vec<&'static Module> {
    vec![&MODULE, &radix_sort::MODULE, &modularity_score::cuda::MODULE, &connected_components::cuda::MODULE]
}

/// Returns the bytes that a run holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64) -> u64 {
    // The offsets; labels, flags, colours, what nodes wait for, the list, and the lowest nodes; the parents, numbers and
    // sizes; where the colours begin.
    let arrays = nodes.saturating_mul(4 * 14);
    let tables = if nodes > u64::from(BLOCK_ROW) { arcs.saturating_mul(6) } else { 0 };
    arrays
        .saturating_add(arcs.saturating_mul(4))
        .saturating_add(tables)
        .saturating_add(radix_sort::device_memory::<u32>(nodes, true))
        .saturating_add(modularity_score::cuda::device_memory(nodes, false, false))
        .saturating_add(1 << 16)
}

/// Finds the communities.
///
/// # Errors
/// Those of the launch context.
pub(super) fn communities(
    graph: &CsrGraph,
    input: &LabelPropagationInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<LabelPropagationOutput, KernelError> {
    let tables = table_slots(graph);
    let graph = DeviceGraph::new(graph, cuda)?;
    let propagation = Propagation::new(graph, input.seed, cuda)?;
    let classes = propagation.color(cuda)?;
    let (iterations, converged) = propagation.sweep(&classes, tables, input.max_iterations, cuda)?;
    let counts = modularity_score::cuda::count(&graph, None, &propagation.labels, cuda)?;
    let parents = propagation.lowest_nodes(cuda)?;
    let numbered = connected_components::cuda::number_components(&parents, cuda)?;
    Ok(output(numbered, &counts, iterations, converged))
}

/// Returns the slots of the tables in global memory: 1.5 for each neighbour of the large nodes of a colour. No edges join
/// nodes of a colour, so these have at most half of the arcs.
fn table_slots(graph: &CsrGraph) -> usize {
    let offsets = graph.successors().row_offsets();
    let degrees = offsets.windows(2).map(|row| row[1] - row[0]);
    let of_large: usize = degrees.filter(|&degree| degree > BLOCK_ROW).map(|degree| degree as usize).sum();
    let of_color = of_large.min(graph.num_arcs() / 2);
    of_color + of_color / 2
}

/// The nodes by colour, and for each colour by the size of their rows.
struct ColorClasses {
    nodes: DeviceBuffer<u32>,
    /// Where the nodes of each colour and size begin, and at the end their number.
    begins: Buffer<u32>,
}

impl ColorClasses {
    /// Returns where the nodes of each size begin, and where they end, of each colour.
    fn iter(&self) -> impl Iterator<Item = &[u32]> {
        self.begins.windows(SIZES + 1).step_by(SIZES)
    }
}

/// The state of a run on the device.
struct Propagation {
    graph: DeviceGraph,
    seed: [u32; 2],
    labels: DeviceBuffer<u32>,
    is_active: DeviceBuffer<u32>,
    waits_for: DeviceBuffer<u32>,
    control: DeviceBuffer<u32>,
    by_node: Launch,
    cancel: CancelFlag,
}

impl Propagation {
    /// Gives each node a label of its own, and counts the neighbours before it.
    fn new(graph: DeviceGraph, seed: u64, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let nodes = graph.nodes as usize;
        let seed = [seed as u32, (seed >> 32) as u32];
        let (labels, is_active, waits_for) = (cuda.alloc(nodes)?, cuda.alloc(nodes)?, cuda.zeroed(nodes)?);
        let (control, cancel) = (cuda.zeroed(CONTROL_WORDS)?, cuda.cancel_flag());
        let DeviceGraph { nodes: n, offsets, columns, .. } = &graph;
        let [low, high] = &seed;
        let args: [&dyn Arg; 10] = [n, offsets, columns, low, high, &labels, &is_active, &waits_for, &control, &cancel];
        let balanced = Launch::elements(nodes, BALANCED_BLOCKS * cuda.device().multiprocessors);
        cuda.launch(&MODULE, "labels_start", balanced, &args)?;
        let by_node = Launch::elements(nodes, u32::MAX);
        Ok(Self { graph, seed, labels, is_active, waits_for, control, by_node, cancel })
    }

    fn color(&self, cuda: &mut LaunchContext<'_>) -> Result<ColorClasses, KernelError> {
        let Self { graph, seed: [low, high], waits_for, control, by_node, cancel, .. } = self;
        let DeviceGraph { nodes: n, offsets, columns, .. } = graph;
        let nodes = *n as usize;
        let (colors, list) = (cuda.alloc::<u32>(nodes)?, cuda.alloc::<u32>(nodes)?);
        cuda.launch(&MODULE, "labels_list_ready", *by_node, &[n, waits_for, &list, control])?;
        cuda.copy(&control.slice(TAIL..=TAIL), &control.slice(END..=END))?;
        let blocks = COLOR_BLOCKS * cuda.device().multiprocessors;
        let rounds = Launch::cooperative(self.graph.nodes.div_ceil(WARPS).min(blocks), 256);
        let args: [&dyn Arg; 11] =
            [n, offsets, columns, low, high, waits_for, &colors, &list, control, cancel, &COLOR_ROUNDS];
        let num_colors = loop {
            cuda.launch(&MODULE, "labels_color", rounds, &args)?;
            let progress = cuda.download(control)?;
            if progress[BEGIN] == progress[END] {
                break progress[NUM_COLORS];
            }
        };
        cuda.launch(&MODULE, "labels_class_keys", *by_node, &[n, offsets, &colors])?;
        let (keys, nodes_by_color) = radix_sort::sort_with_indices(&colors, SortOrder::Ascending, cuda)?;
        let num_keys = SIZES as u32 * num_colors;
        let begins = cuda.alloc::<u32>(num_keys as usize + 1)?;
        let by_end = Launch::elements(nodes + 1, u32::MAX);
        cuda.launch(&MODULE, "labels_class_begins", by_end, &[n, &num_keys, &keys, &begins])?;
        Ok(ColorClasses { nodes: nodes_by_color, begins: cuda.download(&begins)? })
    }

    /// Updates all nodes, colour by colour, until no label changes. Returns the number of sweeps, and whether the last one
    /// changed no label.
    fn sweep(
        &self,
        classes: &ColorClasses,
        table_slots: usize,
        max_iterations: u32,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(u32, bool), KernelError> {
        let Self { graph, seed: [low, high], labels, is_active, control, cancel, .. } = self;
        let DeviceGraph { offsets, columns, .. } = graph;
        let (table_keys, table_counts) = (cuda.alloc::<u32>(table_slots)?, cuda.alloc::<u32>(table_slots)?);
        let table_used = cuda.alloc::<u32>(1)?;
        let has_changed = control.slice(CHANGED..=CHANGED);
        for iteration in 1..=max_iterations {
            cuda.zero(&has_changed)?;
            for begins in classes.iter() {
                let [begin, warps, blocks, large, end] = begins else { unreachable!("a colour has {SIZES} sizes") };
                if large < end {
                    cuda.zero(&table_used)?;
                }
                let args: [&dyn Arg; 17] = [
                    begin,
                    warps,
                    blocks,
                    large,
                    end,
                    offsets,
                    columns,
                    &classes.nodes,
                    low,
                    high,
                    labels,
                    is_active,
                    &table_keys,
                    &table_counts,
                    &table_used,
                    control,
                    cancel,
                ];
                let grid = (warps - begin).div_ceil(256) + (blocks - warps).div_ceil(WARPS) + (end - blocks);
                cuda.launch(&MODULE, "labels_update", Launch::new(grid, 256), &args)?;
            }
            if cuda.download(&has_changed)?[0] == 0 {
                return Ok((iteration, true));
            }
        }
        Ok((max_iterations, false))
    }

    /// Returns the lowest node with the label of each node.
    fn lowest_nodes(&self, cuda: &mut LaunchContext<'_>) -> Result<DeviceBuffer<u32>, KernelError> {
        let Self { graph: DeviceGraph { nodes: n, .. }, labels, by_node, .. } = self;
        let lowest = cuda.zeroed::<u32>(*n as usize)?;
        let parents = cuda.alloc::<u32>(*n as usize)?;
        cuda.launch(&MODULE, "labels_lowest", *by_node, &[n, labels, &lowest])?;
        cuda.launch(&MODULE, "labels_parents", *by_node, &[n, labels, &lowest, &parents])?;
        Ok(parents)
    }
}
