//! `core/top-k`: the largest or smallest numbers of each row, and their indices.
//!
//! | field | type | |
//! |---|---|---|
//! | `values` | `u32`, `i32`, `u64`, `i64`, `f32` or `f64`, `[rows * n]` | the numbers, row after row |
//! | `rows` | integer, default 1 | the number of rows; each has fewer than 2^32 numbers |
//! | `k` | integer, 1 to n | how many numbers of each row |
//! | `largest` | bool, default true | whether the largest are wanted, or the smallest |
//! | out: `values` | as the input, `[rows * k]` | the first k of each row, best first |
//! | out: `indices` | `u32`, `[rows * k]` | the index that each has in its row |
//!
//! The output is the beginning of what [`core/sort`](super::sort) returns for each row, `descending` if `largest`: of equal
//! numbers the one with the lowest index comes first, and NaN come last in both directions, so that one is in the output only
//! where a row has fewer than k other numbers.
//!
//! On the CPU each thread reads a part of a row and keeps its first k by quickselect whenever it has collected some
//! thousand candidates; what comes after the last of these is no candidate from then on. On CUDA the blocks do the same with
//! a radix select, and share their bounds; it is close to GridSelect of Zhang, Naruse, Li and Wang, *Parallel top-K
//! algorithms on GPU: a comprehensive study and new methods* (2023). Both read the input once; numbers in random order take
//! O(n + k log k) a row. Those in the worst order, in which each is better than the one before, take several times as long.
//!
//! Rows of 4 MiB and more, where k is at most 512, are read by all blocks of a CUDA device at a time for the minima of groups,
//! which bound the first k, and then only few groups are read again: Gaihre et al., *Dr. Top-k: delegate-centric top-k on
//! GPUs* (2021). The order of the numbers matters little there. On CUDA, each row is sorted where k is above 1024.
//!
//! Errors: no `rows`, or not as many for each row; `k` of 0, or larger than a row; a row of 2^32 numbers or more.

mod cases;
#[cfg(feature = "cuda")]
pub(in crate::kernels) mod cuda;
#[cfg(feature = "cuda")]
mod long_rows;
pub mod select;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::kernels::ordered_bits::SortOrder;
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, NumberArray, RunContext};

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct TopK;

/// The input of `core/top-k`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [
    { "values": [3, 1, 2], "k": 2 },
    { "values": [0.5, 2.5, 0.5, 7.5, 1.5, 1.0], "rows": 2, "k": 1, "largest": false },
]))]
pub struct TopKInput {
    /// The numbers, row after row.
    pub values: NumberArray,
    /// The number of rows.
    #[serde(default = "one")]
    pub rows: u64,
    /// How many numbers of each row are returned.
    pub k: u64,
    /// Whether the largest numbers are returned, or the smallest.
    #[serde(default = "yes")]
    pub largest: bool,
}

fn one() -> u64 {
    1
}

fn yes() -> bool {
    true
}

/// The output of `core/top-k`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TopKOutput {
    /// The first `k` numbers of each row, row after row.
    pub values: NumberArray,
    /// The index that each has in its row.
    pub indices: Buffer<u32>,
}

impl TopKInput {
    /// Which numbers come first.
    pub fn order(&self) -> SortOrder {
        SortOrder::new(self.largest)
    }

    /// Returns the numbers of a row.
    ///
    /// # Errors
    /// The first field that is wrong.
    pub fn row_len(&self) -> Result<usize, InvalidInput> {
        let (len, rows) = (self.values.len(), self.rows);
        let invalid = |field, reason| Err(InvalidInput::new(field, reason));
        if rows == 0 {
            return invalid("rows", "0 where at least 1 is expected".to_owned());
        }
        if !(len as u64).is_multiple_of(rows) {
            return invalid("rows", format!("{rows}, and there are {len} values, not as many in each row"));
        }
        let row_len = len as u64 / rows;
        if u32::try_from(row_len).is_err() {
            return invalid("values", format!("{row_len} in a row where fewer than 2^32 are expected"));
        }
        if self.k == 0 || self.k > row_len {
            return invalid("k", format!("{} where 1 to {row_len}, the length of a row, is expected", self.k));
        }
        Ok(row_len as usize)
    }

    /// The number of elements of the output, as the input claims it, but no more than its values.
    fn claimed_outputs(&self) -> u64 {
        self.rows.saturating_mul(self.k).min(self.values.len() as u64)
    }
}

impl Kernel for TopK {
    type Input = TopKInput;
    type Output = TopKOutput;

    fn info(&self) -> KernelInfo {
        let description = "The largest or smallest numbers of each row, and their indices.";
        KernelInfo::new("core/top-k", "1.0.0", description).cuda().pure()
    }

    fn validate(&self, input: &TopKInput) -> Result<(), InvalidInput> {
        input.row_len().map(drop)
    }

    fn cost(&self, input: &TopKInput) -> Cost {
        let (len, size) = (input.values.len() as u64, input.values.dtype().size() as u64);
        let outputs = input.claimed_outputs();
        Cost {
            bytes: len.saturating_mul(size).saturating_add(outputs.saturating_mul(size + 4)),
            operations: len.saturating_mul(4).saturating_add(outputs.saturating_mul(64)),
            device_memory: device_memory(input),
        }
    }

    fn footprint(&self, input: &TopKInput) -> Option<Footprint> {
        let output = input.claimed_outputs().saturating_mul(input.values.dtype().size() as u64 + 4);
        Some(Footprint { output, scratch: select::scratch_bytes(input.k, input.values.len() as u64) })
    }

    fn run_cpu(&self, input: &TopKInput, context: &RunContext<'_>) -> Result<TopKOutput, KernelError> {
        let (row_len, k) = (input.row_len()?, input.k as usize);
        with_numbers!(&input.values, values => {
            let (values, indices) = select::first_of_rows(values, row_len, k, input.order(), context)?;
            Ok(TopKOutput { values: values.into(), indices })
        })
    }

    #[cfg(feature = "cuda")]
    fn modules(&self) -> Vec<&'static crate::cuda::Module> {
        vec![&cuda::MODULE, &crate::kernels::device::radix_sort::MODULE]
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &TopKInput, cuda: &mut LaunchContext<'_>) -> Result<TopKOutput, KernelError> {
        let row_len = input.row_len()?;
        with_numbers!(&input.values, values => cuda::run(values, row_len, input, cuda))
    }
}

#[cfg(feature = "cuda")]
fn device_memory(input: &TopKInput) -> u64 {
    cuda::device_memory(input)
}

#[cfg(not(feature = "cuda"))]
fn device_memory(_: &TopKInput) -> u64 {
    0
}
