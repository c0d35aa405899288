//! The search on CUDA, from many sources at once, and the predecessors, whose entry `shortest_path.cu` describes.

use super::targets::Targets;
use super::targets_cuda::TargetsOnDevice;
use super::{ShortestPathOutput, UNREACHABLE, predecessors_at_hand};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::breadth_first_search::{self, Arcs, BreadthFirstSearch};
use crate::kernels::graph::csr::CsrGraph;
use crate::service::{KernelError, LaunchContext};

pub(super) static SHORTEST_PATH: Module = Module::embedded(device_code!("graph/shortest-path"));

/// Blocks for each multiprocessor of the launch that finds predecessors.
const BLOCKS_PER_MULTIPROCESSOR: u32 = 6;

/// Returns the modules that the search launches entries of.
pub(super) fn modules() -> Vec<&'static Module> {
    vec![&breadth_first_search::MODULE, &SHORTEST_PATH]
}

/// Bytes that a run holds on the device: the graph, and the distances, the list and the predecessors of a batch.
pub(super) fn device_memory(nodes: u64, arcs: u64, sources: u64, with_predecessors: bool, directed: bool) -> u64 {
    let items = breadth_first_search::batch(nodes, sources).saturating_mul(nodes);
    let predecessors = if with_predecessors { items.saturating_mul(4) } else { 0 };
    let graph = nodes.saturating_add(arcs).saturating_mul(if directed { 8 } else { 4 });
    graph.saturating_add(predecessors).saturating_add(breadth_first_search::state_memory(nodes, sources))
}

/// Returns the distances and, if requested, the predecessors from each source.
///
/// # Errors
/// Those of the launch context.
pub(super) fn search(
    graph: &CsrGraph,
    sources: &[u32],
    with_predecessors: bool,
    cuda: &mut LaunchContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let batch = breadth_first_search::batch(nodes as u64, sources.len() as u64) as usize;
    let arcs = Arcs::new(graph.successors(), predecessors_at_hand(graph), cuda)?;
    let search = BreadthFirstSearch::new(arcs, batch, cuda)?;
    let predecessors = if with_predecessors { Some(cuda.alloc(nodes * batch)?) } else { None };
    cuda.context().set_steps(sources.len() as u64);
    let mut output = (Vec::new(), Vec::new());
    for sources in sources.chunks(batch) {
        search.run(sources, cuda)?;
        let items = nodes * sources.len();
        if let Some(predecessors) = &predecessors {
            find_predecessors(&search, sources.len() as u32, predecessors, cuda)?;
            output.1.push(cuda.download(&predecessors.slice(..items))?);
        }
        output.0.push(cuda.download(&search.distances.slice(..items))?);
        cuda.context().advance(sources.len() as u64);
    }
    Ok(ShortestPathOutput {
        distances: super::joined(output.0),
        predecessors: super::joined(output.1),
        ..ShortestPathOutput::default()
    })
}

/// Returns the distances and, if requested, the paths from each source to each target.
///
/// # Errors
/// The paths have more nodes than the input allows; those of the launch context.
pub(super) fn search_to(
    graph: &CsrGraph,
    sources: &[u32],
    targets: Targets<'_>,
    cuda: &mut LaunchContext<'_>,
) -> Result<ShortestPathOutput, KernelError> {
    let nodes = graph.num_nodes();
    let batch = breadth_first_search::batch(nodes as u64, sources.len() as u64) as usize;
    let arcs = Arcs::new(graph.successors(), predecessors_at_hand(graph), cuda)?;
    let search = BreadthFirstSearch::new(arcs, batch, cuda)?;
    let predecessors = if targets.with_paths { Some(cuda.alloc(nodes * batch)?) } else { None };
    let mut targets = TargetsOnDevice::new(targets, nodes, batch, cuda)?;
    let gathered = targets.gathered::<u32>(cuda)?;
    cuda.context().set_steps(sources.len() as u64);
    let mut distances = Vec::new();
    for sources in sources.chunks(batch) {
        let to_targets =
            |cuda: &mut LaunchContext<'_>| targets.gather(&search.distances, sources.len(), &gathered, cuda);
        if targets.are_checked(sources.len()) {
            let all_reached = |cuda: &mut LaunchContext<'_>| Ok(!to_targets(cuda)?.contains(&UNREACHABLE));
            search.run_until(sources, all_reached, cuda)?;
        } else {
            search.run(sources, cuda)?;
        }
        let found = to_targets(cuda)?;
        if let Some(predecessors) = &predecessors {
            find_predecessors(&search, sources.len() as u32, predecessors, cuda)?;
            targets.find_paths(&found, predecessors, cuda)?;
        }
        distances.push(found);
        cuda.context().advance(sources.len() as u64);
    }
    Ok(targets.finish(ShortestPathOutput { distances: super::joined(distances), ..ShortestPathOutput::default() }))
}

/// Finds the predecessors of the items of a search that has ended.
fn find_predecessors(
    search: &BreadthFirstSearch,
    num_sources: u32,
    predecessors: &DeviceBuffer<u32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    let BreadthFirstSearch { arcs, distances, frontier, .. } = search;
    let Arcs { out_row, out_column, .. } = arcs;
    let nodes = out_row.len() as u32 - 1;
    let items = nodes * num_sources;
    BreadthFirstSearch::clear(items, predecessors, cuda)?;
    let cancel = cuda.cancel_flag();
    let args: [&dyn Arg; 8] = [&nodes, &num_sources, out_row, out_column, distances, predecessors, frontier, &cancel];
    let balanced = Launch::elements(items as usize, BLOCKS_PER_MULTIPROCESSOR * cuda.device().multiprocessors);
    cuda.launch(&SHORTEST_PATH, "shortest_path_predecessors", balanced, &args)
}
