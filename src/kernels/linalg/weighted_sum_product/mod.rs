//! `linalg/weighted-sum-product`: a x + b y + c z w on `f32` vectors, element by element.
//!
//! | field | type | |
//! |---|---|---|
//! | `a`, `b`, `c` | `f32` | the weights |
//! | `x`, `y`, `z`, `w` | `f32`, `[n]` | the vectors, of equal length, n at least 1 |
//! | out: `out` | `f32`, `[n]` | a x + b y + c z w |
//!
//! It is computed as fma(c z, w, fma(a, x, b y)), with four roundings. NaN and infinities pass through as IEEE 754 says.
//! The result has the same bits on every backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::cuda::{Module, device_code};
use crate::kernels::authoring::elementwise;
use crate::service::Buffer;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedSumProduct;

/// The input of `linalg/weighted-sum-product`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{
    "a": 2.0, "b": 0.5, "c": -1.0, "x": [1.0, 2.0], "y": [10.0, 20.0], "z": [3.0, 4.0], "w": [5.0, 6.0],
}]))]
pub struct WeightedSumProductInput {
    /// The weight of `x`.
    pub a: f32,
    /// The weight of `y`.
    pub b: f32,
    /// The weight of the product.
    pub c: f32,
    /// The first vector of the sum.
    pub x: Buffer<f32>,
    /// The second vector of the sum.
    pub y: Buffer<f32>,
    /// The first factor of the product.
    pub z: Buffer<f32>,
    /// The second factor of the product.
    pub w: Buffer<f32>,
}

/// The output of `linalg/weighted-sum-product`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WeightedSumProductOutput {
    /// a x + b y + c z w.
    pub out: Buffer<f32>,
}

elementwise! {
    impl Kernel for WeightedSumProduct {
        info: KernelInfo::new("linalg/weighted-sum-product", "1.0.0", "a x + b y + c z w of four f32 vectors."),
        input: WeightedSumProductInput { a, b, c, x, y, z, w },
        output: WeightedSumProductOutput { out } of f32,
        operations: 6,
        cpu: |a: f32, b: f32, c: f32, x: f32, y: f32, z: f32, w: f32| [(c * z).mul_add(w, a.mul_add(x, b * y))],
        cuda: Module::embedded(device_code!("linalg/weighted-sum-product")), "weighted_sum_product_f32",
        reference: |a, b, c, x, y, z, w| {
            let terms = [a * x, b * y, c * z * w];
            [(terms.iter().sum(), terms.iter().map(|term| 3e-7 * term.abs()).sum())]
        },
    }
}
