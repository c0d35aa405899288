//! The host side on CUDA. `semantic_similarity.cu` describes the algorithm and what its entries take.

use super::plan::{MAX_COLUMNS, Plan};
use super::score::{Key, Metric, VectorElement};
use super::{SemanticSimilarityInput, SemanticSimilarityOutput};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::core::top_k::cuda::{self as top_k, MAX_K, select_memory, select_rows};
use crate::kernels::device::cancel::CancelSignal;
use crate::kernels::ordered_bits::SortOrder;
use crate::service::{Buffer, DType, KernelError, LaunchContext, VectorElements, VectorNorms, Vectors};

static MODULE: Module = Module::embedded(device_code!("ml/semantic-similarity"));

/// The modules of a run.
pub(super) const MODULES: [&Module; 2] = [&MODULE, &top_k::MODULE];

/// Threads of a block, except in scans.
const THREADS: u32 = 256;
/// Vectors of a group, as in `semantic_similarity.cu`.
const GROUP: usize = 32;
/// Parts of the groups, of which scans keep the best rank too, as in `ranks.cuh`.
const PARTS: usize = 512;
/// Threads of a block that finds the best vectors of a query, as in `semantic_similarity.cu`.
const SELECT_THREADS: u32 = 1024;
/// Groups of a launch of a scan are a multiple of this, and it has a block for as many: those that `ring_scan.cuh` has
/// in a tile.
const GROUPS_OF_TILE: usize = 2;
/// The largest k for which one block finds the best vectors of a query.
const FEW: usize = 32;
/// Products of two numbers of one launch: about a millisecond.
const PRODUCTS_PER_LAUNCH: usize = 1 << 37;
/// Norms outside of these bounds are left to double precision.
const NORMS: std::ops::Range<f32> = 1e-12..1e12;

/// The names of the entries for a type of numbers.
struct Entries {
    prepare: &'static str,
    scans: [&'static str; Plan::ENTRIES],
    exact: &'static str,
    best: &'static str,
    rank: &'static str,
}

macro_rules! entries {
    ($dtype:literal) => {
        Entries {
            prepare: concat!("similarity_prepare_", $dtype),
            scans: [
                concat!("similarity_scan_", $dtype, "_8"),
                concat!("similarity_scan_", $dtype, "_64"),
                concat!("similarity_scan_", $dtype, "_128"),
            ],
            exact: concat!("similarity_exact_", $dtype),
            best: concat!("similarity_best_", $dtype),
            rank: concat!("similarity_rank_", $dtype),
        }
    };
}

fn entries(dtype: DType) -> Entries {
    match dtype {
        DType::F16 => entries!("f16"),
        DType::Bf16 => entries!("bf16"),
        _ => entries!("f32"),
    }
}

/// Groups of a query that there is room for: those of the best k, and some that are almost as good.
fn places(k: usize, groups: usize) -> usize {
    (2 * k + 44).min(MAX_K as usize).max(k).min(groups)
}

/// Bytes that a run of this many queries holds on the device.
pub(super) fn device_memory(input: &SemanticSimilarityInput, queries: u64) -> u64 {
    let (rows, dimension, size) = input.corpus_shape();
    let groups = rows.div_ceil(GROUP as u64);
    let places = places(input.k() as usize, groups as usize) as u64;
    let pass = queries.min(MAX_COLUMNS as u64);
    let corpus = rows.saturating_mul(dimension.saturating_mul(size).saturating_add(4));
    let of_query = dimension.saturating_mul(4).saturating_add(input.k().saturating_mul(8)).saturating_add(32);
    let of_pass = groups
        .saturating_mul(4)
        .saturating_add(places.saturating_mul(8 + 8 * GROUP as u64))
        .saturating_add(dimension.saturating_add(256).saturating_mul(4))
        .saturating_add(4 * PARTS as u64)
        .saturating_add(input.k().saturating_mul(4));
    // Each selection has candidates of its own.
    let selections = queries.div_ceil(8).saturating_mul(select_memory::<u64>(pass, places)).saturating_mul(2);
    corpus
        .saturating_add(queries.saturating_mul(of_query))
        .saturating_add(MAX_COLUMNS.max(pass as usize) as u64 * of_pass)
        .saturating_add(selections.min(1 << 30))
}

/// Returns the outputs of inputs on one corpus with one metric.
pub(super) fn run(
    inputs: &[&SemanticSimilarityInput],
    cuda: &mut LaunchContext<'_>,
) -> Result<Vec<SemanticSimilarityOutput>, KernelError> {
    let Some(first) = inputs.first() else { return Ok(Vec::new()) };
    let corpus = first.corpus.load(cuda.context())?;
    let numbers = cuda.input_parts(inputs.iter().map(|input| &input.queries[..]))?;
    let k = inputs.iter().map(|input| input.k()).max().unwrap_or(1) as usize;
    let norms = corpus.norms(cuda.context())?;
    let keys = match corpus.elements() {
        VectorElements::F32(elements) => {
            Search::new(&corpus, elements, norms, first.metric, k, cuda)?.run(&numbers, cuda)
        }
        VectorElements::F16(elements) => {
            Search::new(&corpus, elements, norms, first.metric, k, cuda)?.run(&numbers, cuda)
        }
        VectorElements::Bf16(elements) => {
            Search::new(&corpus, elements, norms, first.metric, k, cuda)?.run(&numbers, cuda)
        }
    }?;
    Ok(super::outputs(inputs, &keys, k))
}

/// A corpus on the device, and what is searched in it.
struct Search<T> {
    entries: Entries,
    rows: usize,
    dimension: usize,
    groups: usize,
    metric: Metric,
    k: usize,
    /// Groups that are ranked again for each query.
    places: usize,
    /// Whether all norms can be computed with in single precision.
    is_bounded: bool,
    largest_norm: f32,
    elements: DeviceBuffer<T>,
    norms: DeviceBuffer<f32>,
    cancel: CancelSignal,
}

/// The queries of a run on the device, and what is computed of each.
struct Queries {
    numbers: DeviceBuffer<f32>,
    norms: DeviceBuffer<f64>,
    scales: DeviceBuffer<f32>,
    slacks: DeviceBuffer<f32>,
    keys: DeviceBuffer<u64>,
    overflows: DeviceBuffer<u64>,
}

/// Memory that the passes use one after the other.
struct Pass {
    maxima: DeviceBuffer<f32>,
    part_maxima: DeviceBuffer<u32>,
    ranks: DeviceBuffer<f32>,
    selected: DeviceBuffer<u32>,
    candidates: DeviceBuffer<u64>,
    /// Where the selection of keys writes their places.
    key_places: DeviceBuffer<u32>,
}

impl<T: VectorElement> Search<T> {
    fn new(
        corpus: &Vectors,
        elements: &Buffer<T>,
        norms: &VectorNorms,
        metric: Metric,
        k: usize,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let groups = corpus.rows().div_ceil(GROUP);
        Ok(Self {
            entries: entries(T::DTYPE),
            rows: corpus.rows(),
            dimension: corpus.dimension(),
            groups,
            metric,
            k,
            places: places(k, groups),
            is_bounded: norms.smallest() > NORMS.start && norms.largest() < NORMS.end,
            largest_norm: norms.largest(),
            elements: cuda.input(elements)?,
            norms: cuda.input(norms.values())?,
            cancel: CancelSignal::new(cuda)?,
        })
    }

    /// Returns the best `k` keys of each query.
    fn run(&self, numbers: &DeviceBuffer<f32>, cuda: &mut LaunchContext<'_>) -> Result<Vec<Key>, KernelError> {
        let count = numbers.len() / self.dimension;
        // Together, for one download.
        let found = cuda.alloc::<u64>(count * self.k + count)?;
        let queries = Queries {
            numbers: *numbers,
            norms: cuda.alloc(count)?,
            scales: cuda.alloc(count)?,
            slacks: cuda.alloc(count)?,
            keys: found.slice(..count * self.k),
            overflows: found.slice(count * self.k..),
        };
        let plan = Plan::new(count, self.dimension, size_of::<T>(), cuda.device().compute_capability)
            .filter(|_| self.is_bounded && self.dimension.is_multiple_of(8));
        let pass = self.pass(plan.map_or(1, |plan| plan.columns.min(count)), cuda)?;
        let Some(plan) = plan else {
            self.prepare(&queries, 0..count, None, &pass, cuda)?;
            for query in 0..count {
                self.search_exactly(&queries, query, &pass, cuda)?;
            }
            return Ok(keys(&cuda.download(&queries.keys)?));
        };
        let rounded = cuda.alloc::<T16>(plan.terms * plan.columns * plan.padded(self.dimension))?;
        for start in (0..count).step_by(plan.columns) {
            let some = start..count.min(start + plan.columns);
            self.prepare(&queries, some.clone(), Some((plan, &rounded)), &pass, cuda)?;
            self.scan(&queries, some.clone(), plan, &rounded, &pass, cuda)?;
            if self.k <= FEW {
                self.find_best(&queries, some, &pass, cuda)?;
            } else {
                self.select(&queries, some, &pass, cuda)?;
            }
        }
        let found = cuda.download(&found)?;
        let (found, overflows) = found.split_at(count * self.k);
        if overflows.iter().all(|&overflow| overflow == 0) {
            return Ok(keys(found));
        }
        for query in (0..count).filter(|&query| overflows[query] != 0) {
            self.search_exactly(&queries, query, &pass, cuda)?;
        }
        Ok(keys(&cuda.download(&queries.keys)?))
    }

    /// Allocates the memory of passes of this many queries.
    fn pass(&self, queries: usize, cuda: &mut LaunchContext<'_>) -> Result<Pass, KernelError> {
        Ok(Pass {
            maxima: cuda.alloc(queries * self.groups)?,
            part_maxima: cuda.alloc(queries * PARTS)?,
            ranks: cuda.alloc(queries * self.places)?,
            selected: cuda.alloc(queries * self.places)?,
            candidates: cuda.alloc(queries * self.places * GROUP)?,
            key_places: cuda.alloc(queries * self.k)?,
        })
    }

    /// Computes the norms of some queries, and with a plan rounds them to what a scan reads.
    fn prepare(
        &self,
        queries: &Queries,
        some: std::ops::Range<usize>,
        plan: Option<(Plan, &DeviceBuffer<T16>)>,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let count = some.len() as u32;
        let (columns, terms) = plan.map_or((count, 0), |(plan, _)| (plan.columns as u32, plan.terms as u32));
        let nowhere = cuda.alloc::<T16>(0)?;
        let rounded = plan.map_or(&nowhere, |(_, rounded)| rounded);
        let numbers = queries.numbers.slice(some.start * self.dimension..some.end * self.dimension);
        let (norms, scales) = (queries.norms.slice(some.clone()), queries.scales.slice(some.clone()));
        let slacks = queries.slacks.slice(some);
        let padded = plan.map_or(0, |(plan, _)| plan.padded(self.dimension)) as u32;
        let (dimension, metric) = (self.dimension as u32, self.metric as u32);
        let args: [&dyn Arg; 12] = [
            &count,
            &dimension,
            &padded,
            &terms,
            &metric,
            &self.largest_norm,
            &numbers,
            rounded,
            &norms,
            &scales,
            &slacks,
            &pass.part_maxima,
        ];
        cuda.launch(&MODULE, self.entries.prepare, Launch::new(columns, THREADS), &args)
    }

    /// Computes the approximate best rank of each group for some queries.
    fn scan(
        &self,
        queries: &Queries,
        some: std::ops::Range<usize>,
        plan: Plan,
        rounded: &DeviceBuffer<T16>,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let count = some.len() as u32;
        let (scales, slacks) = (queries.scales.slice(some.clone()), queries.slacks.slice(some));
        let padded = plan.padded(self.dimension);
        let (rows, dimension, padded_length) = (self.rows as u32, self.dimension as u32, padded as u32);
        let (metric, blocks) = (self.metric as u32, plan.blocks * cuda.device().multiprocessors);
        let groups_per_launch =
            (PRODUCTS_PER_LAUNCH / (GROUP * padded * plan.columns)).max(1).next_multiple_of(GROUPS_OF_TILE);
        for first in (0..self.groups).step_by(groups_per_launch) {
            let end = self.groups.min(first + groups_per_launch);
            let needed = (end - first).div_ceil(GROUPS_OF_TILE) as u32;
            let launch = Launch {
                shared: plan.shared_memory(self.dimension) as u32,
                ..Launch::new(blocks.min(needed), plan.threads)
            };
            let (first, end) = (first as u32, end as u32);
            let args: [&dyn Arg; 16] = [
                &count,
                &rows,
                &dimension,
                &padded_length,
                &metric,
                &first,
                &end,
                &self.elements,
                &self.norms,
                rounded,
                &scales,
                &slacks,
                &pass.maxima,
                &pass.part_maxima,
                &self.cancel.flag,
                &self.cancel.cancelled,
            ];
            cuda.launch(&MODULE, self.entries.scans[plan.entry], launch, &args)?;
        }
        Ok(())
    }

    /// Finds the best vectors of one query, whose norm is known, with all ranks in double precision.
    fn search_exactly(
        &self,
        queries: &Queries,
        query: usize,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let numbers = queries.numbers.slice(query * self.dimension..(query + 1) * self.dimension);
        let norm = queries.norms.slice(query..query + 1);
        let (rows, dimension, metric) = (self.rows as u32, self.dimension as u32, self.metric as u32);
        let blocks = (8 * cuda.device().multiprocessors).min((self.groups as u32).div_ceil(THREADS / 32));
        let CancelSignal { flag, cancelled } = &self.cancel;
        let args: [&dyn Arg; 9] =
            [&rows, &dimension, &metric, &numbers, &norm, &self.elements, &pass.maxima, flag, cancelled];
        cuda.launch(&MODULE, self.entries.exact, Launch::new(blocks, THREADS), &args)?;
        self.select(queries, query..query + 1, pass, cuda)
    }

    /// Finds the best vectors of some queries, which are few, from the ranks of a scan.
    fn find_best(
        &self,
        queries: &Queries,
        some: std::ops::Range<usize>,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let (rows, dimension, metric, k) = (self.rows as u32, self.dimension as u32, self.metric as u32, self.k as u32);
        let numbers = queries.numbers.slice(some.start * self.dimension..some.end * self.dimension);
        let (norms, slacks) = (queries.norms.slice(some.clone()), queries.slacks.slice(some.clone()));
        let overflows = queries.overflows.slice(some.clone());
        let keys = queries.keys.slice(some.start * self.k..some.end * self.k);
        let args: [&dyn Arg; 12] = [
            &rows,
            &dimension,
            &metric,
            &k,
            &numbers,
            &norms,
            &slacks,
            &self.elements,
            &pass.maxima,
            &pass.part_maxima,
            &overflows,
            &keys,
        ];
        cuda.launch(&MODULE, self.entries.best, Launch::new(some.len() as u32, SELECT_THREADS), &args)
    }

    /// Selects the best groups of some queries, and of their vectors the best.
    fn select(
        &self,
        queries: &Queries,
        some: std::ops::Range<usize>,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let count = some.len();
        let (ranks, selected) = (pass.ranks.slice(..count * self.places), pass.selected.slice(..count * self.places));
        let maxima = pass.maxima.slice(..count * self.groups);
        select_rows(&maxima, count, self.places, SortOrder::Descending, (ranks, selected), cuda)?;
        self.rank(queries, some.clone(), pass, cuda)?;
        let candidates = pass.candidates.slice(..count * self.places * GROUP);
        let keys = queries.keys.slice(some.start * self.k..some.end * self.k);
        let key_places = pass.key_places.slice(..count * self.k);
        select_rows(&candidates, count, self.k, SortOrder::Descending, (keys, key_places), cuda)
    }

    /// Computes the keys of the vectors of the selected groups of some queries.
    fn rank(
        &self,
        queries: &Queries,
        some: std::ops::Range<usize>,
        pass: &Pass,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let (rows, dimension, metric) = (self.rows as u32, self.dimension as u32, self.metric as u32);
        let (k, places) = (self.k as u32, self.places as u32);
        let numbers = queries.numbers.slice(some.start * self.dimension..some.end * self.dimension);
        let (norms, slacks) = (queries.norms.slice(some.clone()), queries.slacks.slice(some.clone()));
        let overflows = queries.overflows.slice(some.clone());
        let args: [&dyn Arg; 13] = [
            &rows,
            &dimension,
            &metric,
            &k,
            &places,
            &numbers,
            &norms,
            &slacks,
            &self.elements,
            &pass.ranks,
            &pass.selected,
            &pass.candidates,
            &overflows,
        ];
        let launch = Launch { grid: [places, some.len() as u32, 1], ..Launch::new(1, THREADS) };
        cuda.launch(&MODULE, self.entries.rank, launch, &args)
    }
}

/// The elements of rounded queries: 16 bits of either format.
type T16 = crate::service::Bf16;

fn keys(bits: &[u64]) -> Vec<Key> {
    bits.iter().map(|&bits| Key::from_bits(bits)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_for_the_groups_of_the_best() {
        assert_eq!(
            [(1, 1), (10, 1 << 20), (1024, 1 << 20), (1024, 3)].map(|(k, groups)| places(k, groups)),
            [1, 64, 1024, 3]
        );
    }
}
