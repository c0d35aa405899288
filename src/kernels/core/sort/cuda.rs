//! The host side on CUDA.

use super::{SortInput, SortOutput};
use crate::kernels::device::radix_sort::{self, sort, sort_with_indices};
use crate::kernels::ordered_bits::OrderedNumber;
use crate::service::{Buffer, KernelError, LaunchContext};

/// Bytes that a run holds on the device.
pub(super) fn device_memory(input: &SortInput) -> u64 {
    let (count, size) = (input.values.len() as u64, input.values.dtype().size());
    let sort = match size {
        4 => radix_sort::device_memory::<u32>(count, input.return_indices),
        _ => radix_sort::device_memory::<u64>(count, input.return_indices),
    };
    sort.saturating_add(count.saturating_mul(size as u64))
}

/// Sorts these values of the input.
pub(super) fn run<T: OrderedNumber>(
    values: &Buffer<T>,
    input: &SortInput,
    cuda: &mut LaunchContext<'_>,
) -> Result<SortOutput, KernelError> {
    if values.is_empty() {
        let indices = input.return_indices.then(Buffer::default);
        return Ok(SortOutput { values: T::array(Buffer::default()), indices });
    }
    let on_device = cuda.input(values)?;
    if !input.return_indices {
        let sorted = sort(&on_device, input.order(), cuda)?;
        return Ok(SortOutput { values: T::array(cuda.download(&sorted)?), indices: None });
    }
    let (sorted, indices) = sort_with_indices(&on_device, input.order(), cuda)?;
    Ok(SortOutput { values: T::array(cuda.download(&sorted)?), indices: Some(cuda.download(&indices)?) })
}
