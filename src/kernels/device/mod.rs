//! Algorithms on device arrays that several kernels use. Their device code is in `src/kernels/include`.
//!
//! | module | algorithm |
//! |---|---|
//! | [`cancel`] | tells the blocks of a launch that their request is cancelled |
//! | [`gemm`] | multiplies dense matrices in single precision |
//! | [`radix_sort`] | sorts numbers, alone, with their indices, or with a value of 32 bits each |
//! | [`scan`] | adds up what comes before each element |

pub mod cancel;
pub mod gemm;
pub mod radix_sort;
pub mod scan;
mod shared_memory;

pub use self::shared_memory::shared_memory;
