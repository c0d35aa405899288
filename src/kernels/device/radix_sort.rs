//! A stable radix sort of a device array, and the arrays that it needs. `include/radix_sort.cuh` has the algorithm and its
//! paper; a sort reads its input twice, and reads and writes each number once for each 8 bits in which any two differ.

use crate::cuda::{Arg, DeviceBuffer, Launch, Module, device_code};
use crate::kernels::ordered_bits::{OrderedBits, OrderedNumber, SortOrder};
use crate::service::{Element, KernelError, LaunchContext};

/// The device code of the sort, for the `modules` of kernels that use it.
pub static MODULE: Module = Module::embedded(device_code!("device/radix-sort"));

/// The number of values of a digit.
const DIGITS: usize = 256;
/// Threads of a block that moves keys, as in `radix_sort.cuh`.
const PASS_THREADS: u32 = 384;
/// The most keys that one launch moves, so that a launch takes some milliseconds on slow devices. A multiple of all tiles.
const PORTION: usize = 4_370 * 30_720;
/// The most numbers that can be sorted: places are 32-bit words.
pub const MAX_LEN: usize = u32::MAX as usize;

/// Sorts numbers. The input stays as it is.
///
/// # Errors
/// Those of the launch context.
///
/// # Panics
/// If there are more than [`MAX_LEN`].
pub fn sort<T: OrderedNumber>(
    numbers: &DeviceBuffer<T>,
    order: SortOrder,
    cuda: &mut LaunchContext<'_>,
) -> Result<DeviceBuffer<T>, KernelError> {
    Ok(RadixSort::new(numbers, order, cuda)?.run(numbers, Values::<u32>::None, cuda)?.0)
}

/// Sorts numbers; returns them and the index that each had in the input.
///
/// # Errors
/// Those of the launch context.
///
/// # Panics
/// If there are more than [`MAX_LEN`].
pub fn sort_with_indices<T: OrderedNumber>(
    numbers: &DeviceBuffer<T>,
    order: SortOrder,
    cuda: &mut LaunchContext<'_>,
) -> Result<(DeviceBuffer<T>, DeviceBuffer<u32>), KernelError> {
    RadixSort::new(numbers, order, cuda)?.run(numbers, Values::Indices, cuda)
}

/// Sorts numbers, and moves a value of 32 bits with each. Values of equal numbers stay in order.
///
/// # Errors
/// Those of the launch context.
///
/// # Panics
/// If there are more than [`MAX_LEN`], or another number of values.
pub fn sort_by_key<T: OrderedNumber, V: Element>(
    keys: &DeviceBuffer<T>,
    values: &DeviceBuffer<V>,
    order: SortOrder,
    cuda: &mut LaunchContext<'_>,
) -> Result<(DeviceBuffer<T>, DeviceBuffer<V>), KernelError> {
    const { assert!(size_of::<V>() == 4, "a value has 32 bits") };
    assert_eq!(keys.len(), values.len(), "there is a value for each key");
    RadixSort::new(keys, order, cuda)?.run(keys, Values::Given(values), cuda)
}

/// Returns the bytes of device memory that a sort allocates, its output included and its input not.
pub const fn device_memory<T>(len: u64, with_values: bool) -> u64 {
    let pair = size_of::<T>() as u64 + if with_values { 4 } else { 0 };
    let portion = if len < PORTION as u64 { len } else { PORTION as u64 };
    let tiles = (portion / tile_len::<T>() as u64 + 1).saturating_mul(4 * DIGITS as u64);
    len.saturating_mul(2 * pair).saturating_add(tiles).saturating_add(16 << 10)
}

/// Keys of a tile, as in `radix_sort.cuh`.
const fn tile_len<T>() -> usize {
    PASS_THREADS as usize * if size_of::<T>() == 4 { 16 } else { 10 }
}

/// The values that are moved with the keys.
#[derive(Clone, Copy)]
enum Values<'a, V> {
    None,
    Indices,
    Given(&'a DeviceBuffer<V>),
}

/// The state of a sort on the device.
struct RadixSort {
    order: SortOrder,
    /// For each digit and value of it, how many keys are before the first with this value.
    begin: DeviceBuffer<u32>,
    /// The same for the next portion of a pass, in two halves by turns.
    next_begin: DeviceBuffer<u32>,
    /// What the tiles of a launch publish, and at the end the number of the next tile.
    tiles: DeviceBuffer<u32>,
    /// The digits to sort by, the lowest first.
    digits: Vec<u32>,
}

impl RadixSort {
    /// Counts the digits of the keys.
    fn new<T: OrderedNumber>(
        keys: &DeviceBuffer<T>,
        order: SortOrder,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Self, KernelError> {
        assert!(keys.len() <= MAX_LEN, "{} numbers are too many to sort", keys.len());
        let digits = T::Bits::DIGITS;
        let begin = cuda.zeroed::<u32>(digits as usize * DIGITS)?;
        let is_uniform = cuda.alloc::<u32>(digits as usize)?;
        let (kind, descending) = (T::KIND as u32, u32::from(order.is_descending()));
        let blocks = 8 * cuda.device().multiprocessors;
        let count = if size_of::<T>() == 4 { "sort_count_u32" } else { "sort_count_u64" };
        for start in (0..keys.len()).step_by(PORTION) {
            let keys = keys.slice(start..keys.len().min(start + PORTION));
            let launch = Launch::elements(keys.len().div_ceil(8), blocks);
            cuda.launch(&MODULE, count, launch, &[&(keys.len() as u64), &keys, &kind, &descending, &begin])?;
        }
        let len = keys.len() as u64;
        cuda.launch(&MODULE, "sort_begin", Launch::new(digits, DIGITS as u32), &[&len, &begin, &is_uniform])?;
        let is_uniform = cuda.download(&is_uniform)?;
        let mut digits: Vec<u32> = (0..digits).filter(|&digit| is_uniform[digit as usize] == 0).collect();
        if digits.is_empty() {
            // All keys are equal; a pass makes the copy.
            digits.push(0);
        }
        let tiles = keys.len().min(PORTION).div_ceil(tile_len::<T>());
        Ok(Self { order, begin, next_begin: cuda.alloc(2 * DIGITS)?, tiles: cuda.alloc(tiles * DIGITS + 1)?, digits })
    }

    /// Sorts by each digit, from the input to one of two arrays and between these by turns.
    fn run<T: OrderedNumber, V: Element>(
        &self,
        keys: &DeviceBuffer<T>,
        values: Values<'_, V>,
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(DeviceBuffer<T>, DeviceBuffer<V>), KernelError> {
        let values_len = if matches!(values, Values::None) { 0 } else { keys.len() };
        let passes = self.digits.len();
        // One pass writes one array, and the values of no pass are never read.
        let (mut key_arrays, mut value_arrays) = (Vec::new(), Vec::new());
        for _ in 0..passes.min(2) {
            key_arrays.push(cuda.alloc::<T>(keys.len())?);
            value_arrays.push(cuda.alloc::<V>(values_len)?);
        }
        let mut from = (*keys, if let Values::Given(values) = values { *values } else { value_arrays[0] });
        for (pass, &digit) in self.digits.iter().enumerate() {
            let to = (key_arrays[pass % 2], value_arrays[pass % 2]);
            let shape = Pass {
                digit,
                is_first: pass == 0,
                is_last: pass + 1 == passes,
                has_values: values_len > 0,
                values_are_indices: pass == 0 && matches!(values, Values::Indices),
            };
            self.pass(&shape, from, to, cuda)?;
            from = to;
        }
        Ok(from)
    }

    /// Sorts by one digit, portion by portion.
    fn pass<T: OrderedNumber, V: Element>(
        &self,
        pass: &Pass,
        (keys, values): (DeviceBuffer<T>, DeviceBuffer<V>),
        (keys_out, values_out): (DeviceBuffer<T>, DeviceBuffer<V>),
        cuda: &mut LaunchContext<'_>,
    ) -> Result<(), KernelError> {
        let entry = if size_of::<T>() == 4 { "sort_pass_u32" } else { "sort_pass_u64" };
        let (kind, descending) = (T::KIND as u32, u32::from(self.order.is_descending()));
        let [is_first, is_last, has_values, values_are_indices] =
            [pass.is_first, pass.is_last, pass.has_values, pass.values_are_indices].map(u32::from);
        let shift = 8 * pass.digit;
        let next_tile = self.tiles.slice(self.tiles.len() - 1..);
        let mut begin = self.begin.slice(pass.digit as usize * DIGITS..(pass.digit as usize + 1) * DIGITS);
        for (portion, start) in (0..keys.len()).step_by(PORTION).enumerate() {
            let end = keys.len().min(start + PORTION);
            let (len, first_index) = ((end - start) as u32, start as u32);
            let next_begin = self.next_begin.slice(portion % 2 * DIGITS..(portion % 2 + 1) * DIGITS);
            let keys = keys.slice(start..end);
            let values = if pass.has_values && !pass.values_are_indices { values.slice(start..end) } else { values };
            cuda.zero(&self.tiles)?;
            let args: [&dyn Arg; 17] = [
                &len,
                &first_index,
                &shift,
                &kind,
                &descending,
                &is_first,
                &is_last,
                &has_values,
                &values_are_indices,
                &keys,
                &keys_out,
                &values,
                &values_out,
                &begin,
                &next_begin,
                &self.tiles,
                &next_tile,
            ];
            let tiles = (end - start).div_ceil(tile_len::<T>()) as u32;
            cuda.launch(&MODULE, entry, Launch::new(tiles, PASS_THREADS), &args)?;
            begin = next_begin;
        }
        Ok(())
    }
}

/// What a pass does.
struct Pass {
    digit: u32,
    /// Numbers become ordered bits.
    is_first: bool,
    /// Ordered bits become numbers again.
    is_last: bool,
    has_values: bool,
    values_are_indices: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_whole_tiles() {
        assert!(PORTION.is_multiple_of(tile_len::<u32>()) && PORTION.is_multiple_of(tile_len::<u64>()));
    }

    #[test]
    fn device_memory_is_little_more_than_two_copies() {
        let (keys, pairs) = (device_memory::<u32>(1 << 27, false), device_memory::<u64>(1 << 27, true));
        assert!((8 << 27..9 << 27).contains(&keys), "{keys}");
        assert!((24 << 27..25 << 27).contains(&pairs), "{pairs}");
        assert_eq!(device_memory::<u64>(u64::MAX, true), u64::MAX);
    }
}
