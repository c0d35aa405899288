//! `linalg/dot`: the inner product of two `f32` vectors, accumulated in `f64`.
//!
//! | field | type | |
//! |---|---|---|
//! | `x`, `y` | `f32`, `[n]` | the vectors, of equal length, n at least 1 |
//! | out: `dot` | `f64` | the sum of the `x[i] y[i]` |
//!
//! Each product is exact in `f64`; only the additions round, so the error is at most about n 2^-53 of the sum of the
//! products' sizes. The order of the additions depends on n alone, and differs between the backends. NaN and infinities
//! pass through as IEEE 754 says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::cuda::{Module, device_code};
use crate::kernels::authoring::{reduction, sum_pairs};
use crate::service::Buffer;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Dot;

/// The input of `linalg/dot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "x": [1.0, 2.0], "y": [10.0, 20.0] }]))]
pub struct DotInput {
    /// The first vector.
    pub x: Buffer<f32>,
    /// The second vector, as long as `x`.
    pub y: Buffer<f32>,
}

/// The output of `linalg/dot`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DotOutput {
    /// The sum of the `x[i] y[i]`.
    pub dot: f64,
}

reduction! {
    impl Kernel for Dot {
        info: KernelInfo::new("linalg/dot", "1.0.0", "The inner product of two f32 vectors, accumulated in f64."),
        input: DotInput { x, y },
        output: DotOutput { dot },
        operations: 2,
        state: 1,
        fold: |x: &[f32], y: &[f32]| [sum_pairs(x, y, |x, y| f64::from(x) * f64::from(y))],
        merge: |[one], [other]| [one + other],
        finish: |[dot]| DotOutput { dot },
        cuda: Module::embedded(device_code!("linalg/dot")), "dot_f32",
        reference: |input| {
            let products = input.x.iter().zip(&*input.y).map(|(&x, &y)| f64::from(x) * f64::from(y));
            [(products.clone().sum(), products.map(|product| 1e-12 * product.abs()).sum())]
        },
    }
}
