//! The host side on CUDA. `top_k.cu` describes the algorithm.

use super::long_rows::LongRows;
use super::{TopKInput, TopKOutput};
use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::device::radix_sort::{self, sort_with_indices};
use crate::kernels::ordered_bits::{OrderedBits, OrderedNumber, SortOrder};
use crate::service::{Buffer, KernelError, LaunchContext};

pub(in crate::kernels) static MODULE: Module = Module::embedded(device_code!("core/top-k"));

/// Threads of a block, as in `top_k.cu`.
pub(super) const THREADS: u32 = 512;
/// Blocks that a multiprocessor holds at a time.
pub(super) const BLOCKS_PER_MULTIPROCESSOR: u32 = 2;
/// The largest k that a block can keep, as in `top_k.cu`.
pub(in crate::kernels) const MAX_K: u64 = 1024;
/// Bytes of numbers of a span: what a block reads before its threads agree on what to do.
const SPAN_BYTES: u64 = 8 * 64 * THREADS as u64;
/// Candidates of a span.
const SPAN_CANDIDATES: u64 = 2 * 4 * THREADS as u64;
/// The most blocks that the memory of a run is counted for: those of the largest devices.
pub(super) const MAX_BLOCKS: u64 = 1024;
/// Rows and numbers of one launch, unless a row has more: they bound the time that it takes.
const ROWS_PER_LAUNCH: usize = 1 << 16;
const NUMBERS_PER_LAUNCH: usize = 1 << 28;

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &TopKInput) -> u64 {
    let (len, size, rows) = (input.values.len() as u64, input.values.dtype().size() as u64, input.rows.max(1));
    let outputs = input.claimed_outputs().saturating_mul(size + 4);
    let scratch = if input.k > MAX_K {
        let row_len = len / rows;
        if size == 4 {
            radix_sort::device_memory::<u32>(row_len, true)
        } else {
            radix_sort::device_memory::<u64>(row_len, true)
        }
    } else {
        let (rows, k) = (rows.min(len), input.k.min(len));
        if size == 4 { select_memory::<u32>(rows, k) } else { select_memory::<u64>(rows, k) }
    };
    len.saturating_mul(size).saturating_add(outputs).saturating_add(scratch)
}

/// Selects from these values of the input.
pub(super) fn run<T: OrderedNumber>(
    values: &Buffer<T>,
    row_len: usize,
    input: &TopKInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<TopKOutput, KernelError> {
    let (rows, k) = (input.rows as usize, input.k as usize);
    let on_device = cuda.input(values)?;
    let keys = cuda.alloc::<T>(rows * k)?;
    let indices = cuda.alloc::<u32>(rows * k)?;
    let rows_at_once = if input.k > MAX_K { 1 } else { (NUMBERS_PER_LAUNCH / row_len).clamp(1, ROWS_PER_LAUNCH) };
    for first in (0..rows).step_by(rows_at_once) {
        let some = first..rows.min(first + rows_at_once);
        let numbers = on_device.slice(some.start * row_len..some.end * row_len);
        let output = (keys.slice(some.start * k..some.end * k), indices.slice(some.start * k..some.end * k));
        if input.k > MAX_K {
            let (sorted, sorted_indices) = sort_with_indices(&numbers, input.order(), cuda)?;
            cuda.copy(&sorted.slice(..k), &output.0)?;
            cuda.copy(&sorted_indices.slice(..k), &output.1)?;
        } else {
            Select { rows: some.len(), k, order: input.order() }.run(&numbers, row_len, output, cuda)?;
        }
    }
    Ok(TopKOutput { values: T::array(cuda.download(&keys)?), indices: cuda.download(&indices)? })
}

/// Selects the first `k` of each row of numbers on the device, in order, for kernels that select among what they have
/// computed. `output` has room for `rows * k` numbers and their indices. `k` is at most [`MAX_K`], and each row has at least
/// as many numbers.
///
/// # Errors
/// Those of the [`LaunchContext`].
pub(in crate::kernels) fn select_rows<T: OrderedNumber>(
    numbers: &DeviceBuffer<T>,
    rows: usize,
    k: usize,
    order: SortOrder,
    output: Entries<T>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    Select { rows, k, order }.run(numbers, numbers.len() / rows, output, cuda)
}

/// Bytes of device memory that [`select_rows`] takes besides its output.
pub(in crate::kernels) fn select_memory<T>(rows: u64, k: u64) -> u64 {
    let size = size_of::<T>() as u64;
    let candidates = MAX_BLOCKS.saturating_mul(k).saturating_mul(2 * (size + 4));
    candidates.saturating_add(rows.saturating_mul(size)).max(LongRows::memory::<T>(rows, k))
}

/// A selection from rows of the same length.
pub(super) struct Select {
    pub(super) rows: usize,
    pub(super) k: usize,
    pub(super) order: SortOrder,
}

/// Ordered bits or, in the output, numbers; and their indices.
pub(in crate::kernels) type Entries<T> = (DeviceBuffer<T>, DeviceBuffer<u32>);

impl Select {
    /// Launches blocks for parts of the rows, and again for what these have kept, until each row is one part.
    fn run<T: OrderedNumber>(
        &self,
        numbers: &DeviceBuffer<T>,
        row_len: usize,
        output: Entries<T>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        if let Some(long_rows) = LongRows::new(self, numbers, row_len, cuda) {
            return long_rows.run(self, numbers, row_len, &output, cuda);
        }
        let bounds = cuda.upload(&vec![!T::Bits::ZERO; self.rows])?;
        let bytes = row_len as u64 * size_of::<T>() as u64;
        let mut parts = self.parts(bytes.div_ceil(SPAN_BYTES), cuda);
        let mut kept = self.entries(parts, output, cuda)?;
        let entry = if size_of::<T>() == 4 { "top_k_numbers_u32" } else { "top_k_numbers_u64" };
        self.launch(entry, row_len as u32, parts, &[numbers], &bounds, &kept, cuda)?;
        let entry = if size_of::<T>() == 4 { "top_k_candidates_u32" } else { "top_k_candidates_u64" };
        while parts > 1 {
            let candidates = parts * self.k as u32;
            parts = self.parts(u64::from(candidates).div_ceil(SPAN_CANDIDATES), cuda);
            let from = kept;
            kept = self.entries(parts, output, cuda)?;
            self.launch(entry, candidates, parts, &[&from.0, &from.1], &bounds, &kept, cuda)?;
        }
        Ok(())
    }

    /// The blocks for each row of this many spans: as many as the device holds at a time, and not more than spans.
    fn parts(&self, spans: u64, cuda: &LaunchContext<'_>) -> u32 {
        let blocks = u64::from(cuda.device().multiprocessors * BLOCKS_PER_MULTIPROCESSOR).min(MAX_BLOCKS);
        (blocks / self.rows as u64).min(spans).max(1) as u32
    }

    /// Where the parts of all rows write what they keep.
    fn entries<T: OrderedNumber>(
        &self,
        parts: u32,
        output: Entries<T>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Entries<T>, KernelError> {
        if parts == 1 {
            return Ok(output);
        }
        let len = self.rows * parts as usize * self.k;
        Ok((cuda.alloc(len)?, cuda.alloc(len)?))
    }

    #[expect(clippy::too_many_arguments, reason = "they are those of the device code")]
    fn launch<T: OrderedNumber>(
        &self,
        entry: &'static str,
        len: u32,
        parts: u32,
        from: &[&dyn Arg],
        bounds: &DeviceBuffer<T::Bits>,
        to: &Entries<T>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let (k, kind, descending) = (self.k as u32, T::KIND as u32, u32::from(self.order.is_descending()));
        let mut args: Vec<&dyn Arg> = vec![&len, &k, &parts, &kind, &descending];
        args.extend(from);
        args.extend([bounds as &dyn Arg, &to.0, &to.1]);
        cuda.launch(&MODULE, entry, Launch::new(self.rows as u32 * parts, THREADS), &args)
    }
}
