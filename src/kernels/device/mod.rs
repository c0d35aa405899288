//! Algorithms on device arrays that several kernels use. Their device code is in `src/kernels/include`.
//!
//! | module | algorithm |
//! |---|---|
//! | [`radix_sort`] | sorts numbers, alone, with their indices, or with a value of 32 bits each |

pub mod radix_sort;
