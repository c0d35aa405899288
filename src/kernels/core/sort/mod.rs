//! `core/sort`: sorts numbers, and tells where each came from.
//!
//! | field | type | |
//! |---|---|---|
//! | `values` | `u32`, `i32`, `u64`, `i64`, `f32` or `f64`, `[n]` | the numbers; fewer than 2^32 |
//! | `descending` | bool, default false | whether the largest come first |
//! | `return_indices` | bool, default false | whether the output has `indices` |
//! | out: `values` | as the input, `[n]` | the numbers in order |
//! | out: `indices` | `u32`, `[n]` | the index that each had in the input |
//!
//! The sort is stable in both directions: equal numbers stay in the order of the input. Integers compare as such.
//! Floating-point numbers are in the total order of IEEE 754, -0 before +0, but for NaN, which come last in both directions,
//! all of them equal, and come out as the quiet NaN. So an ascending sort is numpy's `sort(kind="stable")` and `argsort`
//! but for zeros of either sign, which numpy takes as equal.
//!
//! The algorithm is a radix sort by 8 bits at a time, the lowest first: O(n) for each 8 bits in which any two numbers
//! differ. On the CPU the threads count the digits of a part each and move it to the places that the counts give ([`radix_sort`]);
//! on CUDA it is that of [`device::radix_sort`](crate::kernels::device). A run takes memory for two more copies of the
//! numbers, and of the indices if there are any.
//!
//! Errors: `values` of 2^32 numbers or more.

mod cases;
#[cfg(feature = "cuda")]
mod cuda;
pub mod radix_sort;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::radix_sort::{sort, sort_with_indices};
use crate::kernels::ordered_bits::SortOrder;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, NumberArray, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sort;

/// The input of `core/sort`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "values": [3, 1, 2] },
    { "values": [0.5, 2.5, 0.5], "descending": true, "return_indices": true },
]))]
pub struct SortInput {
    /// The numbers.
    pub values: NumberArray,
    /// Whether the largest come first.
    #[serde(default)]
    pub descending: bool,
    /// Whether the output has the index that each number had in the input.
    #[serde(default)]
    pub return_indices: bool,
}

/// The output of `core/sort`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SortOutput {
    /// The numbers in order.
    pub values: NumberArray,
    /// The index that each number had in the input, if `return_indices` is true.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub indices: Option<Buffer<u32>>,
}

impl SortInput {
    /// Which numbers come first.
    pub fn order(&self) -> SortOrder {
        SortOrder::new(self.descending)
    }

    /// Bytes of the numbers, and of the indices if they are returned.
    fn output_bytes(&self) -> u64 {
        let number = self.values.dtype().size() + if self.return_indices { 4 } else { 0 };
        (self.values.len() as u64).saturating_mul(number as u64)
    }
}

impl Kernel for Sort {
    type Input = SortInput;
    type Output = SortOutput;

    fn info(&self) -> KernelInfo {
        let description = "Sorts numbers of any type, stably, and tells where each came from.";
        KernelInfo::new("core/sort", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &SortInput) -> Result<(), InvalidInput> {
        let count = input.values.len();
        if u32::try_from(count).is_ok() {
            Ok(())
        } else {
            Err(InvalidInput::new("values", format!("{count} numbers where fewer than 2^32 are expected")))
        }
    }

    fn cost(&self, input: &SortInput) -> Cost {
        let passes = input.values.dtype().size() as u64;
        let bytes = input.output_bytes();
        Cost {
            // Each pass reads the numbers twice and writes them once.
            bytes: bytes.saturating_mul(3 * passes),
            operations: (input.values.len() as u64).saturating_mul(10 * passes),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &SortInput) -> Option<Footprint> {
        let output = input.output_bytes();
        let count = input.values.len() as u64;
        // Two arrays of records; an index takes as much as its number.
        let record = input.values.dtype().size() as u64 * if input.return_indices { 2 } else { 1 };
        let scratch = count.saturating_mul(2 * record).saturating_add(radix_sort::scratch_bytes(count));
        Some(Footprint { output, scratch })
    }

    fn run_cpu(&self, input: &SortInput, context: &RunContext<'_>) -> Result<SortOutput, KernelError> {
        with_numbers!(&input.values, values => {
            if input.return_indices {
                let (values, indices) = sort_with_indices(values, input.order(), context)?;
                Ok(SortOutput { values: values.into(), indices: Some(indices) })
            } else {
                Ok(SortOutput { values: sort(values, input.order(), context)?.into(), indices: None })
            }
        })
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&crate::kernels::device::radix_sort::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &SortInput, cuda: &mut LaunchContext<'_>) -> Result<SortOutput, KernelError> {
        with_numbers!(&input.values, values => cuda::run(values, input, cuda))
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &SortInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &SortInput) -> u64 {
    0
}
