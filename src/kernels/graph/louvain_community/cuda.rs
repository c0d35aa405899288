//! Louvain's method on CUDA. `louvain_community.cu` describes the algorithm and what its entries take.

use super::local_moving::Limits;
use super::{LouvainCommunityOutput, MIN_PASS_GAIN, output};
use crate::cuda::{Arg, CancelFlag, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::graph::arc_units::ArcUnits;
use crate::kernels::graph::connected_components;
use crate::kernels::graph::csr::CsrGraph;
use crate::kernels::graph::modularity_score::CommunityCounts;
use crate::kernels::graph::modularity_score::cuda::{self as modularity, DeviceGraph, DeviceWeights};
use crate::random::SplitMix64;
use crate::service::{KernelError, LaunchContext};

static MODULE: Module = Module::embedded(device_code!("graph/louvain-community"));

/// Blocks for each multiprocessor of the launch that moves nodes, of arcs that count and of those with weights: as many as
/// fit.
const MOVE_BLOCKS: [u32; 2] = [3, 2];
/// Blocks for each multiprocessor of the launches that balance their load by themselves.
const BALANCED_BLOCKS: u32 = 6;
/// Nodes for each block of the launches that list the active ones, and the most blocks for each multiprocessor.
const LISTED_NODES: u32 = 2048;
const LIST_BLOCKS: u32 = 2;
/// Threads of a block, and warps.
const THREADS: u32 = 256;
const WARPS: u32 = 8;
/// `NODES_PER_BLOCK` of `louvain_community.cu`, and `SCAN_TILE` of `scan.cuh`.
const NODES_PER_BLOCK: u32 = 1024;
const SCAN_TILE: usize = 4096;
/// The 64-bit words of `Control`, the first of them that the host reads, and the one with `taken`.
const CONTROL_WORDS: usize = 425;
const READ_WORDS: usize = 5;
const TAKEN: usize = 7;

/// The device code that a run uses.
pub(super) fn modules() -> Vec<&'static Module> {
    vec![&MODULE, &modularity::MODULE, &connected_components::cuda::MODULE]
}

/// Returns the bytes that a run holds on the device.
pub(super) fn device_memory(nodes: u64, arcs: u64, is_weighted: bool) -> u64 {
    // The offsets, the arrays of `Louvain`, and those of the numbering at the end.
    let by_node = nodes.saturating_mul(4 + 84 + 12 + 20);
    // The columns, those of two merged graphs, and 1.5 slots of tables, all but the first with weights.
    let by_arc = arcs.saturating_mul(if is_weighted { 8 + 24 + 18 } else { 4 + 16 + 12 });
    by_node
        .saturating_add(by_arc)
        .saturating_add(modularity::device_memory(nodes, false, is_weighted))
        .saturating_add(1 << 16)
}

/// Finds the communities.
///
/// # Errors
/// Those of the launch context.
pub(super) fn communities(
    graph: &CsrGraph,
    units: ArcUnits<'_>,
    limits: &Limits,
    cuda: &mut LaunchContext<'_>,
) -> Result<LouvainCommunityOutput, KernelError> {
    let graph = DeviceGraph::new(graph, cuda)?;
    let weights = DeviceWeights::new(units, cuda)?;
    let mut louvain = Louvain::new(&graph, weights.as_ref(), limits, cuda)?;
    while louvain.run_pass(cuda)? >= MIN_PASS_GAIN {}
    let counts = modularity::count(&graph, weights.as_ref(), &louvain.partition, cuda)?;
    let numbered = connected_components::cuda::number_components(&louvain.parents(cuda)?, cuda)?;
    Ok(output(numbered, &counts, limits.resolution, louvain.levels, louvain.sweeps))
}

/// The entries for arcs that count, or for those with weights.
struct Entries {
    degrees: &'static str,
    r#move: &'static str,
    compare: &'static str,
    insert: &'static str,
    rows: &'static str,
}

const FOR_COUNTS: Entries = Entries {
    degrees: "louvain_degrees_counts",
    r#move: "louvain_move_counts",
    compare: "louvain_compare_counts",
    insert: "louvain_insert_counts",
    rows: "louvain_rows_counts",
};

const FOR_WEIGHTS: Entries = Entries {
    degrees: "louvain_degrees_weights",
    r#move: "louvain_move_weights",
    compare: "louvain_compare_weights",
    insert: "louvain_insert_weights",
    rows: "louvain_rows_weights",
};

/// A level's graph.
#[derive(Clone, Copy)]
struct Level {
    nodes: u32,
    row: DeviceBuffer<u32>,
    column: DeviceBuffer<u32>,
    degrees: DeviceBuffer<u64>,
    /// The weights of the first graph, if they are used.
    weights: DeviceBuffer<f32>,
    /// The weights of a merged graph, in units: one word, or two if the first graph has weights.
    merged: Option<DeviceBuffer<u32>>,
    /// Slots of the tables of its rows, or more.
    slots: usize,
}

impl Level {
    fn weights(&self) -> &dyn Arg {
        match &self.merged {
            Some(merged) => merged,
            None => &self.weights,
        }
    }

    /// One thread for each node.
    fn by_node(&self) -> Launch {
        Launch::elements(self.nodes as usize, u32::MAX)
    }
}

/// Room for a merged graph.
struct MergedGraph {
    row: DeviceBuffer<u32>,
    column: DeviceBuffer<u32>,
    weights: DeviceBuffer<u32>,
    degrees: DeviceBuffer<u64>,
}

/// Tables of units by community: `keys`, and the low and the high words of the sums.
struct Tables {
    keys: DeviceBuffer<u32>,
    low: DeviceBuffer<u32>,
    high: DeviceBuffer<u32>,
    begins: DeviceBuffer<u64>,
}

/// What a sweep has done.
struct Sweep {
    has_moved: bool,
    /// By how much the units of the arcs within communities have risen, modulo 2^64.
    internal_change: u64,
    degree_products: u128,
}

/// The state of a run on the device. Arrays have an element for each node of the first level.
struct Louvain<'a> {
    limits: &'a Limits,
    entries: &'static Entries,
    is_weighted: u32,
    scale: f64,
    first: Level,
    /// In turn the graph of a level and of the next one.
    merged: [MergedGraph; 2],
    tables: Tables,
    community: DeviceBuffer<u32>,
    target: DeviceBuffer<u32>,
    /// The communities before the sweep, and those that a level ends with.
    saved: DeviceBuffer<u32>,
    is_active: DeviceBuffer<u32>,
    degree_sum: DeviceBuffer<u64>,
    /// The active nodes by group; the numbers of communities.
    list: DeviceBuffer<u32>,
    /// The lowest nodes of communities; what the blocks that take a hub tell one another.
    lowest: DeviceBuffer<u32>,
    /// The arcs of communities.
    counts: DeviceBuffer<u32>,
    tiles: DeviceBuffer<u64>,
    control: DeviceBuffer<u64>,
    cancel: CancelFlag,
    multiprocessors: u32,
    /// The communities of the nodes of the first level.
    partition: DeviceBuffer<u32>,
    all_units: u64,
    /// The units of the arcs within communities.
    internal_units: u64,
    levels: u32,
    sweeps: u32,
}

impl<'a> Louvain<'a> {
    fn new(
        graph: &DeviceGraph,
        weights: Option<&DeviceWeights>,
        limits: &'a Limits,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let (nodes, arcs) = (graph.nodes as usize, graph.columns.len());
        let is_weighted = u32::from(weights.is_some());
        let (weights, scale) = match weights {
            Some(&DeviceWeights { weights, scale }) => (weights, scale),
            None => (cuda.alloc(0)?, 1.0),
        };
        let first = Level {
            nodes: graph.nodes,
            row: graph.offsets,
            column: graph.columns,
            degrees: cuda.zeroed(nodes)?,
            weights,
            merged: None,
            slots: arcs + arcs / 2,
        };
        let words = 1 + is_weighted as usize;
        let mut merged_graph = || {
            Ok::<_, KernelError>(MergedGraph {
                row: cuda.alloc(nodes + 1)?,
                column: cuda.alloc(arcs)?,
                weights: cuda.alloc(words * arcs)?,
                degrees: cuda.alloc(nodes)?,
            })
        };
        let merged = [merged_graph()?, merged_graph()?];
        // Those of communities have a header.
        let slots = first.slots + nodes;
        let tables = Tables {
            keys: cuda.alloc(slots)?,
            low: cuda.alloc(slots)?,
            high: cuda.alloc(is_weighted as usize * slots)?,
            begins: cuda.alloc(nodes + 1)?,
        };
        let mut louvain = Self {
            limits,
            entries: if is_weighted == 1 { &FOR_WEIGHTS } else { &FOR_COUNTS },
            is_weighted,
            scale,
            first,
            merged,
            tables,
            community: cuda.alloc(nodes)?,
            target: cuda.alloc(nodes)?,
            saved: cuda.alloc(nodes)?,
            is_active: cuda.alloc(nodes)?,
            degree_sum: cuda.alloc(nodes)?,
            list: cuda.alloc(nodes)?,
            lowest: cuda.alloc(nodes)?,
            counts: cuda.alloc(nodes)?,
            // With a word behind them for the number of the next tile.
            tiles: cuda.alloc(slots.div_ceil(SCAN_TILE) + 1)?,
            control: cuda.zeroed(CONTROL_WORDS)?,
            cancel: cuda.cancel_flag(),
            multiprocessors: cuda.device().multiprocessors,
            partition: cuda.alloc(nodes)?,
            all_units: 0,
            internal_units: 0,
            levels: 0,
            sweeps: 0,
        };
        let Self { entries, first, scale, control, cancel, .. } = &louvain;
        let Level { nodes: n, row, degrees, weights, .. } = first;
        let args: [&dyn Arg; 7] = [n, row, weights, scale, degrees, control, cancel];
        cuda.launch(&MODULE, entries.degrees, louvain.balanced(*n), &args)?;
        louvain.all_units = cuda.download(&louvain.control.slice(3..=3))?[0];
        Ok(louvain)
    }

    /// A launch that balances its load by itself: each of few items may be work for a warp or more.
    fn balanced(&self, items: u32) -> Launch {
        Launch::new(items.div_ceil(WARPS).min(BALANCED_BLOCKS * self.multiprocessors), THREADS)
    }

    /// Moves nodes, and then merged communities, level by level. Returns by how much the modularity has risen.
    fn run_pass(&mut self, cuda: &mut LaunchContext<'_>) -> Result<f64, KernelError> {
        let mut gain_of_pass = 0.0;
        let mut level = self.first;
        loop {
            self.start(&level, cuda)?;
            let gain = self.move_nodes(&level, cuda)?;
            gain_of_pass += gain;
            if gain <= 0.0 {
                return Ok(gain_of_pass);
            }
            let num_communities = self.number(&level, cuda)?;
            if gain < self.limits.min_gain {
                return Ok(gain_of_pass);
            }
            level = self.aggregate(&level, num_communities, cuda)?;
        }
    }

    /// Sets the communities with which a level begins: the partition in the first level of all passes but the first one, and
    /// otherwise a community for each node.
    fn start(&self, level: &Level, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Self { community, target, saved, is_active, partition, .. } = self;
        let Level { nodes: n, row, degrees, .. } = level;
        self.clear_tables(level.slots, cuda)?;
        let is_single = level.merged.is_some() || self.levels == 0;
        let args: [&dyn Arg; 8] = [n, row, &u32::from(is_single), partition, community, target, saved, is_active];
        cuda.launch(&MODULE, "louvain_start", level.by_node(), &args)?;
        let nodes = *n as usize;
        if self.levels == 0 {
            cuda.copy(community, partition)?;
        }
        let sums = self.degree_sum.slice(..nodes);
        match is_single {
            true => cuda.copy(&degrees.slice(..nodes), &sums),
            false => modularity::add_degrees(degrees, &community.slice(..nodes), &sums, cuda),
        }
    }

    /// Moves the nodes of a level in sweeps until a sweep gains too little, and puts their communities into `saved`. Returns
    /// by how much the modularity has risen.
    fn move_nodes(&mut self, level: &Level, cuda: &mut LaunchContext<'_>) -> Result<f64, KernelError> {
        let Limits { resolution, max_sweeps, min_gain, seed } = *self.limits;
        let nodes = level.nodes as usize;
        let random = SplitMix64::new(seed ^ u64::from(self.levels) << 32);
        cuda.zero(&self.control)?;
        self.add_products(level, cuda)?;
        let modularity_before =
            self.counts(self.internal_units, self.read_sweep(cuda)?.degree_products).modularity(resolution);
        let (mut modularity, mut sweeps) = (modularity_before, 0);
        while sweeps < max_sweeps {
            let Sweep { has_moved, internal_change, degree_products } = self.sweep(level, random.next(), cuda)?;
            sweeps += 1;
            let internal_units = self.internal_units.wrapping_add(internal_change);
            let gain = self.counts(internal_units, degree_products).modularity(resolution) - modularity;
            if !has_moved || gain <= 0.0 {
                break;
            }
            modularity += gain;
            self.internal_units = internal_units;
            cuda.copy(&self.community.slice(..nodes), &self.saved.slice(..nodes))?;
            if gain < min_gain {
                break;
            }
        }
        self.levels += 1;
        self.sweeps += sweeps;
        Ok(modularity - modularity_before)
    }

    fn counts(&self, internal_units: u64, degree_products: u128) -> CommunityCounts {
        CommunityCounts { arcs: self.all_units, internal_arcs: internal_units, degree_products }
    }

    /// Moves the active nodes, group by group.
    fn sweep(&self, level: &Level, seed: u64, cuda: &mut LaunchContext<'_>) -> Result<Sweep, KernelError> {
        let Self { community, target, saved, is_active, degree_sum, list, tables, control, cancel, scale, .. } = self;
        let hub_state = &self.lowest;
        let Level { nodes: n, row, column, degrees, .. } = level;
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        let is_merged = u32::from(level.merged.is_some());
        cuda.zero(control)?;
        let by_range = Launch::new(n.div_ceil(LISTED_NODES).min(LIST_BLOCKS * self.multiprocessors), THREADS);
        cuda.launch(&MODULE, "louvain_count_active", by_range, &[n, row, &low, &high, is_active, control])?;
        cuda.launch(&MODULE, "louvain_list_active", by_range, &[n, row, &low, &high, is_active, list, control])?;
        let args: [&dyn Arg; 20] = [
            n,
            row,
            column,
            level.weights(),
            scale,
            &is_merged,
            community,
            target,
            is_active,
            hub_state,
            degrees,
            degree_sum,
            &self.limits.resolution,
            &self.all_units,
            &tables.keys,
            &tables.low,
            &tables.high,
            list,
            control,
            cancel,
        ];
        let blocks = MOVE_BLOCKS[self.is_weighted as usize] * self.multiprocessors;
        let by_group = Launch::cooperative(n.div_ceil(WARPS).min(blocks), THREADS);
        cuda.launch(&MODULE, self.entries.r#move, by_group, &args)?;
        cuda.zero(&control.slice(TAKEN..=TAKEN))?;
        let args: [&dyn Arg; 10] =
            [n, row, column, level.weights(), scale, &is_merged, community, saved, control, cancel];
        cuda.launch(&MODULE, self.entries.compare, self.balanced(*n), &args)?;
        self.add_products(level, cuda)?;
        self.read_sweep(cuda)
    }

    fn add_products(&self, level: &Level, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let args: [&dyn Arg; 3] = [&level.nodes, &self.degree_sum, &self.control];
        cuda.launch(&MODULE, "louvain_products", self.balanced(level.nodes), &args)
    }

    fn read_sweep(&self, cuda: &mut LaunchContext<'_>) -> Result<Sweep, KernelError> {
        let mut words = [0; READ_WORDS];
        cuda.download_into(&self.control.slice(..READ_WORDS), &mut words)?;
        let [internal_change, products_low, products_high, _, flags] = words;
        let degree_products = u128::from(products_high) << 64 | u128::from(products_low);
        Ok(Sweep { has_moved: flags as u32 != 0, internal_change, degree_products })
    }

    /// Numbers the saved communities from 0 in the order of their lowest nodes, and makes them those of the partition.
    /// Returns how many there are.
    fn number(&self, level: &Level, cuda: &mut LaunchContext<'_>) -> Result<u32, KernelError> {
        let Self { saved, list: numbers, lowest, control, partition, .. } = self;
        let n = &level.nodes;
        self.find_lowest(*n, saved, cuda)?;
        self.scan("louvain_number", n, *n as usize, &[saved, lowest, numbers, control], cuda)?;
        cuda.launch(&MODULE, "louvain_relabel", level.by_node(), &[n, lowest, numbers, saved])?;
        match level.merged {
            None => cuda.copy(saved, partition)?,
            Some(_) => {
                let args: [&dyn Arg; 3] = [&self.first.nodes, saved, partition];
                cuda.launch(&MODULE, "louvain_compose", self.first.by_node(), &args)?;
            }
        }
        let flags = cuda.download(&control.slice(READ_WORDS - 1..READ_WORDS))?[0];
        Ok((flags >> 32) as u32)
    }

    /// Finds the lowest node of each community.
    fn find_lowest(
        &self,
        nodes: u32,
        communities: &DeviceBuffer<u32>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        cuda.zero(&self.lowest.slice(..nodes as usize))?;
        let by_node = Launch::elements(nodes as usize, u32::MAX);
        cuda.launch(&MODULE, "louvain_lowest", by_node, &[&nodes, communities, &self.lowest])
    }

    /// Launches an entry that scans `len` elements, with this number of them as its first argument. `args` follow those of
    /// the tiles.
    fn scan(
        &self,
        entry: &'static str,
        len_arg: &dyn Arg,
        len: usize,
        args: &[&dyn Arg],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let tiles = len.div_ceil(SCAN_TILE);
        cuda.zero(&self.tiles.slice(..=tiles))?;
        let (of_tiles, next_tile) = (self.tiles.slice(..tiles), self.tiles.slice(tiles..=tiles));
        let of_scan: [&dyn Arg; 3] = [len_arg, &of_tiles, &next_tile];
        let args: Vec<&dyn Arg> = of_scan.into_iter().chain(args.iter().copied()).collect();
        cuda.launch(&MODULE, entry, Launch::new(tiles as u32, THREADS), &args)
    }

    /// Empties all tables up to a slot.
    fn clear_tables(&self, slots: usize, cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let Tables { keys, low, high, .. } = &self.tables;
        let by_slot = Launch::elements(slots, BALANCED_BLOCKS * self.multiprocessors);
        let args: [&dyn Arg; 5] = [&(slots as u64), keys, low, high, &self.is_weighted];
        cuda.launch(&MODULE, "louvain_clear_tables", by_slot, &args)
    }

    /// Returns the graph whose nodes are the saved communities, which are numbered from 0.
    fn aggregate(&self, level: &Level, count: u32, cuda: &mut LaunchContext<'_>) -> Result<Level, KernelError> {
        let Self { saved, counts, control, cancel, scale, .. } = self;
        let Tables { keys, low, high, begins } = &self.tables;
        let Level { nodes: n, row, column, .. } = level;
        let communities = count as usize;
        let next = &self.merged[self.levels as usize % 2];
        let of_nodes = saved.slice(..*n as usize);
        modularity::add_degrees(&level.degrees, &of_nodes, &next.degrees.slice(..communities), cuda)?;

        cuda.zero(&counts.slice(..communities))?;
        let by_block = Launch::new(n.div_ceil(NODES_PER_BLOCK), THREADS);
        cuda.launch(&MODULE, "louvain_row_bounds", by_block, &[n, row, saved, counts])?;
        self.scan("louvain_tables", &count, communities, &[counts, begins], cuda)?;
        let slots = cuda.download(&begins.slice(communities..=communities))?[0];
        self.clear_tables(slots as usize, cuda)?;
        let by_community = Launch::elements(communities, u32::MAX);
        cuda.launch(&MODULE, "louvain_headers", by_community, &[&count, begins, keys])?;

        cuda.zero(control)?;
        let is_merged = u32::from(level.merged.is_some());
        let args: [&dyn Arg; 13] =
            [n, row, column, level.weights(), scale, &is_merged, saved, begins, keys, low, high, control, cancel];
        cuda.launch(&MODULE, self.entries.insert, self.balanced(*n), &args)?;
        let args: [&dyn Arg; 7] = [keys, low, high, &count, &next.row, &next.column, &next.weights];
        self.scan(self.entries.rows, &slots, slots as usize, &args, cuda)?;
        Ok(Level {
            nodes: count,
            row: next.row,
            column: next.column,
            degrees: next.degrees,
            weights: level.weights,
            merged: Some(next.weights),
            slots: slots as usize,
        })
    }

    /// Returns the lowest node of the community of each node.
    fn parents(&self, cuda: &mut LaunchContext<'_>) -> Result<DeviceBuffer<u32>, KernelError> {
        let Self { partition, lowest, first, .. } = self;
        self.find_lowest(first.nodes, partition, cuda)?;
        let parents = cuda.alloc::<u32>(first.nodes as usize)?;
        cuda.launch(&MODULE, "louvain_parents", first.by_node(), &[&first.nodes, partition, lowest, &parents])?;
        Ok(parents)
    }
}
