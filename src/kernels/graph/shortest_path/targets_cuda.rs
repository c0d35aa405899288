//! Distances and paths to some nodes alone, on CUDA. `shortest_path.cu` describes what its entries take.

use super::cuda::SHORTEST_PATH;
use super::targets::{Paths, Targets, offsets};
use super::{ShortestPathOutput, UNREACHABLE};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::service::{Buffer, Element, KernelError, LaunchContext};

/// The most pairs of a source and a target of which a search looks, between its launches, whether all are reached.
const MAX_CHECKED: usize = 1 << 16;

/// The bytes that the distances and paths to targets of a batch of sources hold on the device, at most.
pub(super) fn device_memory(pairs: u64, path_nodes: u64, with_paths: bool) -> u64 {
    // Of each pair the target and a distance of 8 bytes, and with paths a level and where its path begins.
    let bytes_per_pair = if with_paths { 20 } else { 12 };
    pairs.saturating_mul(bytes_per_pair).saturating_add(path_nodes.saturating_mul(4)).saturating_add(1 << 12)
}

/// The targets on the device, and the paths that were found.
pub(super) struct TargetsOnDevice<'a> {
    targets: Targets<'a>,
    nodes: DeviceBuffer<u32>,
    num_nodes: u32,
    batch: usize,
    paths: Vec<Paths>,
    path_nodes: u64,
}

/// Where the values of the targets are brought together.
pub(super) struct Gathered<T> {
    values: DeviceBuffer<T>,
    entry: &'static str,
}

impl<'a> TargetsOnDevice<'a> {
    /// Uploads the targets, for searches from up to `batch` sources in a graph of `num_nodes`.
    pub(super) fn new(
        targets: Targets<'a>,
        num_nodes: usize,
        batch: usize,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let (nodes, num_nodes) = (cuda.upload(targets.nodes)?, num_nodes as u32);
        Ok(Self { targets, nodes, num_nodes, batch, paths: Vec::new(), path_nodes: 0 })
    }

    /// Allocates what [`gather`](Self::gather) needs for values of one type.
    pub(super) fn gathered<T: Element>(&self, cuda: &mut LaunchContext<'_>) -> Result<Gathered<T>, KernelError> {
        let entry = if size_of::<T>() == 4 { "shortest_path_gather_32" } else { "shortest_path_gather_64" };
        Ok(Gathered { values: cuda.alloc(self.batch * self.nodes.len())?, entry })
    }

    /// Whether a search from so many sources looks between its launches if all targets are reached.
    pub(super) fn are_checked(&self, num_sources: usize) -> bool {
        num_sources * self.nodes.len() <= MAX_CHECKED
    }

    /// Returns the values of the targets, source by source, of those of all items.
    pub(super) fn gather<T: Element>(
        &self,
        items: &DeviceBuffer<T>,
        num_sources: usize,
        Gathered { values, entry }: &Gathered<T>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        let (num_targets, pairs) = (self.nodes.len() as u32, num_sources * self.nodes.len());
        let args: [&dyn Arg; 6] = [&self.num_nodes, &num_targets, &(pairs as u32), &self.nodes, items, values];
        cuda.launch(&SHORTEST_PATH, entry, Launch::elements(pairs, u32::MAX), &args)?;
        cuda.download(&values.slice(..pairs))
    }

    /// Follows the predecessors of all items back from the targets, to which shortest paths have this many edges.
    ///
    /// # Errors
    /// The paths have more nodes than the input allows; those of the launch context.
    pub(super) fn find_paths(
        &mut self,
        edges: &[u32],
        predecessors: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let length = |&edges: &u32| if edges == UNREACHABLE { 0 } else { edges + 1 };
        let lengths: Vec<u32> = edges.iter().map(length).collect();
        let path_nodes: u64 = lengths.iter().map(|&length| u64::from(length)).sum();
        self.path_nodes += path_nodes;
        self.targets.check_path_nodes(self.path_nodes)?;
        if path_nodes == 0 {
            self.paths.push(Paths { lengths, nodes: Vec::new() });
            return Ok(());
        }
        let begins = cuda.upload(&offsets(&lengths))?;
        let nodes = cuda.alloc::<u32>(path_nodes as usize)?;
        let (num_targets, pairs, cancel) = (self.nodes.len() as u32, lengths.len() as u32, cuda.cancel_flag());
        let args: [&dyn Arg; 8] =
            [&self.num_nodes, &num_targets, &pairs, &self.nodes, predecessors, &begins, &nodes, &cancel];
        cuda.launch(&SHORTEST_PATH, "shortest_path_walk", Launch::elements(lengths.len(), u32::MAX), &args)?;
        self.paths.push(Paths { lengths, nodes: cuda.download(&nodes)?.to_vec() });
        Ok(())
    }

    /// Returns the output with the paths, if they are requested.
    pub(super) fn finish(self, output: ShortestPathOutput) -> ShortestPathOutput {
        self.targets.finish(output, self.paths)
    }
}
