//! The launch that selects from long rows on CUDA. `long_rows.cuh` describes the algorithm.

use super::cuda::{BLOCKS_PER_MULTIPROCESSOR, Entries, MAX_BLOCKS, MODULE, Select, THREADS};
use crate::cuda::{Arg, DeviceBuffer, Launch};
use crate::kernels::ordered_bits::OrderedNumber;
use crate::service::{KernelError, LaunchContext};

/// Rows of fewer bytes take less time otherwise.
const LEAST_BYTES: u64 = 4 << 20;
/// With a larger k, rows in ascending or descending order take more than twice as long as otherwise.
const MAX_K: usize = 512;
/// Bytes that a warp reads in a step: 8 loads of 16 by each lane, as in `long_rows.cuh`.
const STEP_BYTES: u64 = 8 * 16 * 32;
/// Groups that a block reads at most, as in `long_rows.cuh`.
const MAX_GROUPS: u32 = 1024;
/// Minima that the blocks of a row share at most: what a block can collect, as in `collect.cuh`.
const MAX_MINIMA: u32 = 2048;
/// Words of what the blocks of a row share besides, as in `long_rows.cuh`.
const PROGRESS_WORDS: usize = 3;

/// How the blocks of a launch share long rows.
pub(super) struct LongRows {
    /// Blocks of a row.
    parts: u32,
    steps_of_group: u32,
    /// Minima that each block shares with the others of its row.
    minima_of_block: u32,
}

impl LongRows {
    /// Returns `None` if the rows take less time otherwise.
    pub(super) fn new<T: OrderedNumber>(
        select: &Select,
        numbers: &DeviceBuffer<T>,
        row_len: usize,
        cuda: &LaunchContext<'_>,
    ) -> Option<Self> {
        let row_bytes = row_len as u64 * size_of::<T>() as u64;
        let is_aligned = numbers.is_aligned_to(16) && (select.rows == 1 || row_bytes.is_multiple_of(16));
        let blocks = (cuda.device().multiprocessors * BLOCKS_PER_MULTIPROCESSOR).min(MAX_BLOCKS as u32);
        let parts = blocks / u32::try_from(select.rows).ok()?;
        if parts == 0 || row_bytes < LEAST_BYTES || !is_aligned || select.k > MAX_K {
            return None;
        }
        // The k-th of four times as many minima has few more than k groups before it.
        let k = select.k as u32;
        let minima_of_block = (4 * k.max(256)).div_ceil(parts).min(MAX_MINIMA / parts).min(THREADS);
        if minima_of_block * parts < k + k / 2 {
            return None;
        }
        let steps_of_group = row_bytes.div_ceil(STEP_BYTES).div_ceil(u64::from(parts * MAX_GROUPS)) as u32;
        Some(Self { parts, steps_of_group, minima_of_block })
    }

    /// Bytes of device memory besides the output.
    pub(super) fn memory<T>(rows: u64, k: u64) -> u64 {
        let minima = rows.min(MAX_BLOCKS) * u64::from(MAX_MINIMA);
        MAX_BLOCKS.saturating_mul(k).saturating_add(minima).saturating_mul(size_of::<T>() as u64 + 4)
    }

    /// Selects from all rows.
    pub(super) fn run<T: OrderedNumber>(
        &self,
        select: &Select,
        numbers: &DeviceBuffer<T>,
        row_len: usize,
        output: &Entries<T>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let blocks = select.rows as u32 * self.parts;
        let minima_len = (blocks * self.minima_of_block) as usize;
        let progress = cuda.zeroed::<u32>(select.rows * PROGRESS_WORDS)?;
        let (minima, minima_indices) = (cuda.alloc::<T>(minima_len)?, cuda.alloc::<u32>(minima_len)?);
        let collected_len = blocks as usize * select.k;
        let (collected, collected_indices) = (cuda.alloc::<T>(collected_len)?, cuda.alloc::<u32>(collected_len)?);
        let (n, k, kind) = (row_len as u32, select.k as u32, T::KIND as u32);
        let descending = u32::from(select.order.is_descending());
        let entry = if size_of::<T>() == 4 { "top_k_long_rows_u32" } else { "top_k_long_rows_u64" };
        let args: [&dyn Arg; 15] = [
            &n,
            &k,
            &self.parts,
            &self.steps_of_group,
            &self.minima_of_block,
            &kind,
            &descending,
            numbers,
            &progress,
            &minima,
            &minima_indices,
            &collected,
            &collected_indices,
            &output.0,
            &output.1,
        ];
        cuda.launch(&MODULE, entry, Launch::cooperative(blocks, THREADS), &args)
    }
}
