//! Kernels from the code of a row: elementwise kernels and reductions, on the CPU and on CUDA.
//!
//! [`elementwise!`], [`elementwise_floats!`] and [`reduction!`] implement [`Kernel`](crate::service::Kernel) for a unit
//! struct. The author writes
//! the input and output structs, the CPU code and the CUDA code of a row, and an `f64` reference. Derived are the checks of
//! lengths, the cost and the footprint, the batch key and shared runs, the transfers and the launch, the loop on the CPU
//! (SIMD, and rayon for large inputs), and the tests ([`check_cpu`], [`check_cuda`]). The [guide](crate::guide) explains
//! both; `linalg/saxpy` and `linalg/dot` are the smallest examples.
//!
//! | macro | rows | example |
//! |---|---|---|
//! | [`elementwise!`] | numbers of fixed types | `linalg/saxpy` |
//! | [`elementwise_floats!`] | `f32` or `f64`, each field one number or an array | `risk/option-pricing` |
//! | [`reduction!`] | all rows to a few `f64` | `linalg/dot`, `stats/moments` |
//!
//! A kernel that needs more implements `Kernel` by hand, and can still use the parts: [`map_rows`], [`reduce_rows`],
//! their twins for CUDA, and [`Cases`].

mod cases;
#[cfg(feature = "cuda")]
mod cases_cuda;
mod choice;
mod column;
#[cfg(feature = "cuda")]
mod device;
pub(crate) mod elementary;
mod elementwise;
mod field;
mod float_kernel;
mod floats;
mod macros;
mod reduction;
mod source;

#[cfg(feature = "cuda")]
pub use cases::check_cuda;
pub use cases::{Cases, ErasedCases, Expected, Random, RunOnCpu, SIZES, check_cpu, expected};
pub use choice::{Choice, Choices, choice_facts};
pub use column::{BLOCK, Column, Operand, Uniform, UniformValue};
#[cfg(feature = "cuda")]
pub use device::{Arguments, Entry, map_rows_cuda, reduce_cuda};
pub use elementary::Elementary;
pub use elementwise::{BlockFunction, Granularity, RowFunction, map_rows};
pub use field::{Field, FieldFacts, batch_key, check_lengths, cost, rows, shares_run};
pub use float_kernel::{
    CheckValues, FloatColumns, FloatFields, float_values, generate_floats, put_nan_floats, share_floats,
};
pub use floats::{Converted, Float, Precision};
pub use reduction::{reduce_rows, sum, sum_pairs};

#[doc(hidden)]
pub use source::{ELEMENTWISE_HEADER, REDUCE_HEADER, join};

#[doc(inline)]
pub use crate::{
    __elementwise as elementwise, __elementwise_floats as elementwise_floats, __reduction as reduction,
    __with_device_headers as with_device_headers,
};
