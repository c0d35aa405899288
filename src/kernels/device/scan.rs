//! Prefix sums of device arrays in one pass. `include/scan.cuh` has the algorithm and its paper, and parts for scans of other
//! values.

use crate::cuda::{DeviceBuffer, Launch, Module, device_code};
use crate::service::{KernelError, LaunchContext};

/// The device code of the scan, for the `modules` of kernels that use it.
pub static MODULE: Module = Module::embedded(device_code!("device/scan"));

/// Threads of a block, and elements that it scans, as in `scan.cuh`.
const THREADS: u32 = 256;
const TILE: usize = 16 * THREADS as usize;

/// Returns where each group of a sequence begins whose groups have these lengths, and at the end the length of the
/// sequence: element i is the sum of `counts[..i]`, for i from 0 to the number of counts.
///
/// # Errors
/// Those of the launch context.
///
/// # Panics
/// If there are 2^44 counts or more.
pub fn offsets(counts: &DeviceBuffer<u32>, cuda: &mut LaunchContext<'_>) -> Result<DeviceBuffer<u64>, KernelError> {
    if counts.is_empty() {
        return cuda.zeroed(1);
    }
    let tiles = u32::try_from(counts.len().div_ceil(TILE)).expect("fewer than 2^44 counts");
    let offsets = cuda.alloc(counts.len() + 1)?;
    let words = cuda.zeroed::<u64>(tiles as usize + 1)?;
    let (of_tiles, next_tile) = (words.slice(..tiles as usize), words.slice(tiles as usize..));
    let len = counts.len() as u64;
    cuda.launch(
        &MODULE,
        "scan_offsets",
        Launch::new(tiles, THREADS),
        &[&len, &of_tiles, &next_tile, counts, &offsets],
    )?;
    Ok(offsets)
}
