//! The host side on CUDA. `segmented_aggregate.cu` describes the algorithm.

use rayon::prelude::*;

use super::output::{Groups, Sum, Total};
use super::rows::integers;
use super::{Aggregate, SegmentedAggregateInput, SegmentedAggregateOutput};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::radix_sort::{self, sort_by_key, sort_with_indices};
use crate::kernels::ordered_bits::{NumberKind, OrderedNumber, SortOrder};
use crate::service::{Buffer, DType, Element, InvalidInput, KernelError, LaunchContext, NumberArray, RunContext};

static MODULE: Module = Module::embedded(device_code!("core/segmented-aggregate"));

/// The modules of a run.
pub(super) fn modules() -> Vec<&'static Module> {
    vec![&MODULE, &radix_sort::MODULE]
}

/// Threads of a block, and rows of a tile, as in `segmented_reduce.cuh`.
const THREADS: u32 = 256;
const TILE: usize = 2048;
/// Rows that a block of the scan takes, as in `scan.cuh`.
const SCAN_TILE: usize = 4096;
/// The most rows of one launch, which bound the time that it takes.
const ROWS_PER_LAUNCH: usize = 1 << 27;
/// What is in place of the index of a descent where there is none.
const NO_DESCENT: u32 = u32::MAX;

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &SegmentedAggregateInput) -> u64 {
    let rows = input.keys.len() as u64;
    let sort = match (input.sorted, input.keys.dtype().size()) {
        (true, _) => 0,
        (false, 4) => radix_sort::device_memory::<u32>(rows, true),
        (false, _) => radix_sort::device_memory::<u64>(rows, true),
    };
    // Where the groups begin; what the tiles have of two groups; and the sums have two words.
    let groups = rows.saturating_mul(4 + 8).saturating_add(rows / TILE as u64 * (2 * 32 + 8)).saturating_add(1 << 10);
    let arrays = [sort, input.input_bytes(), input.output_bytes(rows), groups];
    arrays.into_iter().fold(0, u64::saturating_add)
}

/// Aggregates the rows of the input.
pub(super) fn run(
    input: &SegmentedAggregateInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<SegmentedAggregateOutput, KernelError> {
    match &input.keys {
        NumberArray::U32(keys) => run_with_keys(keys, input, cuda),
        NumberArray::I32(keys) => run_with_keys(keys, input, cuda),
        NumberArray::U64(keys) => run_with_keys(keys, input, cuda),
        NumberArray::I64(keys) => run_with_keys(keys, input, cuda),
        keys => Err(InvalidInput::new("keys", format!("unexpected dtype {}", keys.dtype())).into()),
    }
}

fn run_with_keys<K: OrderedNumber>(
    keys: &Buffer<K>,
    input: &SegmentedAggregateInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<SegmentedAggregateOutput, KernelError> {
    let Some(values) = input.read_values() else {
        let keys = cuda.input(keys)?;
        let keys = if input.sorted { keys } else { radix_sort::sort(&keys, SortOrder::Ascending, cuda)? };
        let groups = KeyGroups::new(&keys, input, cuda)?;
        let (keys, count) = groups.download(&keys, cuda)?;
        return Ok(SegmentedAggregateOutput { keys, count, sum: None, min: None, max: None, mean: None });
    };
    match values {
        NumberArray::U32(values) => sorted_words(keys, values, input, cuda)?.aggregate(input, cuda),
        NumberArray::I32(values) => sorted_words(keys, values, input, cuda)?.aggregate(input, cuda),
        NumberArray::F32(values) => sorted_words(keys, values, input, cuda)?.aggregate(input, cuda),
        NumberArray::U64(values) => sorted_long_words(keys, values, input, cuda)?.aggregate(input, cuda),
        NumberArray::I64(values) => sorted_long_words(keys, values, input, cuda)?.aggregate(input, cuda),
        NumberArray::F64(values) => sorted_long_words(keys, values, input, cuda)?.aggregate(input, cuda),
    }
}

/// Rows whose keys ascend.
struct SortedRows<K, V> {
    keys: DeviceBuffer<K>,
    values: DeviceBuffer<V>,
    /// Which value belongs to each key, where the values are not in the order of the keys.
    indices: Option<DeviceBuffer<u32>>,
}

/// Sorts the rows, with values of 32 bits: they are moved with the keys.
fn sorted_words<K: OrderedNumber, V: OrderedNumber<Bits = u32>>(
    keys: &Buffer<K>,
    values: &Buffer<V>,
    input: &SegmentedAggregateInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<SortedRows<K, V>, KernelError> {
    let (mut keys, mut values) = (cuda.input(keys)?, cuda.input(values)?);
    if !input.sorted && !keys.is_empty() {
        (keys, values) = sort_by_key(&keys, &values, SortOrder::Ascending, cuda)?;
    }
    Ok(SortedRows { keys, values, indices: None })
}

/// Sorts the rows, with values of 64 bits: only their indices are moved with the keys.
fn sorted_long_words<K: OrderedNumber, V: OrderedNumber<Bits = u64>>(
    keys: &Buffer<K>,
    values: &Buffer<V>,
    input: &SegmentedAggregateInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<SortedRows<K, V>, KernelError> {
    let (mut keys, values) = (cuda.input(keys)?, cuda.input(values)?);
    let mut indices = None;
    if !input.sorted && !keys.is_empty() {
        let (sorted, sorted_indices) = sort_with_indices(&keys, SortOrder::Ascending, cuda)?;
        (keys, indices) = (sorted, Some(sorted_indices));
    }
    Ok(SortedRows { keys, values, indices })
}

/// Where the rows of each key are among the sorted ones.
struct KeyGroups {
    rows: usize,
    count: usize,
    begins: DeviceBuffer<u32>,
    /// How many groups begin before each tile, and at the end how many there are.
    tile_begins: DeviceBuffer<u32>,
}

impl KeyGroups {
    /// Finds the groups of sorted keys.
    fn new<K: OrderedNumber>(
        keys: &DeviceBuffer<K>,
        input: &SegmentedAggregateInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        let rows = keys.len();
        let begins = cuda.alloc::<u32>(rows)?;
        let tile_begins = cuda.zeroed::<u32>(rows.div_ceil(TILE) + 1)?;
        let descent = cuda.upload(&[NO_DESCENT])?;
        let scan_tiles = rows.div_ceil(SCAN_TILE);
        let words = cuda.zeroed::<u64>(scan_tiles + 1)?;
        let (of_tiles, next_tile) = (words.slice(..scan_tiles), words.slice(scan_tiles..));
        let entry = if size_of::<K>() == 4 { "aggregate_begins_u32" } else { "aggregate_begins_u64" };
        let (len, kind) = (rows as u64, K::KIND as u32);
        for first in (0..scan_tiles).step_by(ROWS_PER_LAUNCH / SCAN_TILE) {
            // The blocks of a launch take up the tiles after those of the launch before.
            let blocks = (scan_tiles - first).min(ROWS_PER_LAUNCH / SCAN_TILE) as u32;
            let args: [&dyn Arg; 8] = [&len, &kind, keys, &of_tiles, &next_tile, &begins, &tile_begins, &descent];
            cuda.launch(&MODULE, entry, Launch::new(blocks, THREADS), &args)?;
        }
        let last = tile_begins.slice(tile_begins.len() - 1..);
        let [count, descent] = cuda.download_all([&last, &descent])?;
        if descent[0] != NO_DESCENT {
            return Err(input.descent(descent[0] as usize).into());
        }
        Ok(Self { rows, count: count[0] as usize, begins, tile_begins })
    }

    /// Returns the key and the number of rows of each group.
    fn download<K: OrderedNumber>(
        &self,
        keys: &DeviceBuffer<K>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(NumberArray, Buffer<u32>), KernelError> {
        let (keys_out, counts) = (cuda.alloc::<K>(self.count)?, cuda.alloc::<u32>(self.count)?);
        let entry = if size_of::<K>() == 4 { "aggregate_keys_u32" } else { "aggregate_keys_u64" };
        let launch = Launch::elements(self.count, 16 * cuda.device().multiprocessors);
        let args: [&dyn Arg; 6] = [&(self.rows as u64), &(self.count as u32), keys, &self.begins, &keys_out, &counts];
        cuda.launch(&MODULE, entry, launch, &args)?;
        Ok((K::array(cuda.download(&keys_out)?), cuda.download(&counts)?))
    }
}

/// The entries for values of a type, and the bytes of a state.
fn entries(dtype: DType) -> (&'static str, &'static str, usize) {
    match dtype {
        DType::F64 => ("aggregate_tiles_f64", "aggregate_spans_f64", 24),
        DType::F32 => ("aggregate_tiles_f32", "aggregate_spans_f32", 16),
        dtype if dtype.size() == 8 => ("aggregate_tiles_u64", "aggregate_spans_u64", 32),
        _ => ("aggregate_tiles_u32", "aggregate_spans_u32", 16),
    }
}

impl<K: OrderedNumber, V: OrderedNumber> SortedRows<K, V> {
    /// Aggregates the values of each key.
    fn aggregate(
        &self,
        input: &SegmentedAggregateInput,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<SegmentedAggregateOutput, KernelError> {
        let groups = KeyGroups::new(&self.keys, input, cuda)?;
        let columns = Columns::<V>::new(groups.count, input, cuda)?;
        self.reduce(&groups, &columns, cuda)?;
        let (keys, count) = groups.download(&self.keys, cuda)?;
        let lows = columns.lows.map(|lows| cuda.download(&lows)).transpose()?;
        let highs = columns.highs.map(|highs| cuda.download(&highs)).transpose()?;
        let mut extreme =
            |column: Option<DeviceBuffer<V>>| column.map(|column| cuda.download(&column).map(V::array)).transpose();
        let (min, max) = (extreme(columns.min)?, extreme(columns.max)?);
        // Sums are expected of the ordered bits of 64-bit integers, and 32-bit ones have been added by their own.
        let offset = if V::KIND == NumberKind::Signed && size_of::<V>() == 4 { (1 << 63) - (1 << 31) } else { 0 };
        let totals = lows.map(|lows| Totals { keys: &keys, counts: &count, lows, highs, offset });
        let [sum, mean] = match &totals {
            None => [None, None],
            Some(totals) if V::KIND == NumberKind::Float => totals.columns::<f64>(input, cuda.context())?,
            Some(totals) => totals.columns::<u128>(input, cuda.context())?,
        };
        Ok(SegmentedAggregateOutput { sum, mean, min, max, keys, count })
    }

    /// Launches the reduction: of each tile, and then of what goes beyond a tile.
    fn reduce(
        &self,
        groups: &KeyGroups,
        columns: &Columns<V>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let rows = self.keys.len();
        let tiles = rows.div_ceil(TILE);
        let (tiles_entry, spans_entry, state) = entries(V::DTYPE);
        let (leads, tails) = (cuda.alloc::<u64>(tiles * state / 8)?, cuda.alloc::<u64>(tiles * state / 8)?);
        let (len, kind, null) = (rows as u64, V::KIND as u32, 0_u64);
        let outputs: [&dyn Arg; 4] = [
            columns.lows.as_ref().map_or(&null, |column| column),
            columns.highs.as_ref().map_or(&null, |column| column),
            columns.min.as_ref().map_or(&null, |column| column),
            columns.max.as_ref().map_or(&null, |column| column),
        ];
        let indices: &dyn Arg = self.indices.as_ref().map_or(&null, |indices| indices);
        for first in (0..tiles).step_by(ROWS_PER_LAUNCH / TILE) {
            let blocks = (tiles - first).min(ROWS_PER_LAUNCH / TILE) as u32;
            let first = first as u32;
            let mut args: Vec<&dyn Arg> = vec![&len, &first, &kind, &self.values, indices];
            args.extend([&groups.begins as &dyn Arg, &groups.tile_begins, &leads, &tails]);
            args.extend(outputs);
            cuda.launch(&MODULE, tiles_entry, Launch::new(blocks, THREADS), &args)?;
        }
        let (all_tiles, all_groups) = (tiles as u32, groups.count as u32);
        let mut args: Vec<&dyn Arg> = vec![&len, &all_tiles, &all_groups, &kind];
        args.extend([&groups.begins as &dyn Arg, &groups.tile_begins, &leads, &tails]);
        args.extend(outputs);
        cuda.launch(&MODULE, spans_entry, Launch::new(all_tiles.div_ceil(THREADS), THREADS), &args)
    }
}

/// The columns that are asked for, on the device.
struct Columns<V> {
    /// The low words of sums of integers, or sums of floating-point numbers.
    lows: Option<DeviceBuffer<u64>>,
    /// The high words of sums of 64-bit integers.
    highs: Option<DeviceBuffer<u64>>,
    min: Option<DeviceBuffer<V>>,
    max: Option<DeviceBuffer<V>>,
}

impl<V: OrderedNumber> Columns<V> {
    fn new(groups: usize, input: &SegmentedAggregateInput, cuda: &mut LaunchContext<'_>) -> Result<Self, KernelError> {
        let has_highs = V::KIND != NumberKind::Float && size_of::<V>() == 8;
        let mut words = |is_needed: bool| is_needed.then(|| cuda.alloc::<u64>(groups)).transpose();
        let (lows, highs) = (words(input.needs_sum())?, words(input.needs_sum() && has_highs)?);
        let mut column = |aggregate| input.has(aggregate).then(|| cuda.alloc::<V>(groups)).transpose();
        Ok(Self { lows, highs, min: column(Aggregate::Min)?, max: column(Aggregate::Max)? })
    }
}

/// The sums of all groups as the device has added them.
struct Totals<'a> {
    keys: &'a NumberArray,
    counts: &'a [u32],
    lows: Buffer<u64>,
    highs: Option<Buffer<u64>>,
    /// What is to be added to a sum of integers for each row.
    offset: u64,
}

impl Totals<'_> {
    /// Returns the sums and the means that are asked for.
    fn columns<S: Sum>(
        &self,
        input: &SegmentedAggregateInput,
        context: &RunContext<'_>,
    ) -> Result<[Option<NumberArray>; 2], KernelError>
    where
        Self: Groups<S>,
    {
        Ok([
            if input.has(Aggregate::Sum) { S::sums(self, input, context)? } else { None },
            if input.has(Aggregate::Mean) { S::means(self, input, context)? } else { None },
        ])
    }

    fn column_of<T: Element, S>(
        &self,
        sum: impl Fn(usize) -> S + Sync,
        element: impl Fn(&Total<S>) -> Result<T, InvalidInput> + Sync,
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        const CHUNK: usize = 1 << 16;
        let Some(keys) = integers(self.keys) else { return Ok(Buffer::default()) };
        let mut column = Buffer::zeroed_with_others(self.counts.len());
        column.par_chunks_mut(CHUNK).enumerate().try_for_each(|(chunk, to)| {
            context.check()?;
            let start = chunk * CHUNK;
            let mut of_chunk = vec![0; to.len()];
            keys.read(start, &mut of_chunk);
            for ((index, to), key) in (start..).zip(to).zip(of_chunk) {
                *to = element(&Total { key, count: self.counts[index], sum: sum(index) })?;
            }
            Ok::<_, KernelError>(())
        })?;
        Ok(column)
    }
}

impl Groups<f64> for Totals<'_> {
    fn column<T: Element>(
        &self,
        element: impl Fn(&Total<f64>) -> Result<T, InvalidInput> + Sync,
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        self.column_of(|index| f64::from_bits(self.lows[index]), element, context)
    }
}

impl Groups<u128> for Totals<'_> {
    fn column<T: Element>(
        &self,
        element: impl Fn(&Total<u128>) -> Result<T, InvalidInput> + Sync,
        context: &RunContext<'_>,
    ) -> Result<Buffer<T>, KernelError> {
        let sum = |index: usize| {
            let high = self.highs.as_ref().map_or(0, |highs| highs[index]);
            let sum = u128::from(high) << 64 | u128::from(self.lows[index]);
            sum + u128::from(self.offset) * u128::from(self.counts[index])
        };
        self.column_of(sum, element, context)
    }
}
