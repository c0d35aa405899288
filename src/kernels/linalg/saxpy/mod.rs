//! `linalg/saxpy`: y := a x + y on `f32` vectors, rounded once.
//!
//! The smallest kernel of the catalogue: the service's own overhead is measured with it, and it shows how a kernel is
//! written. Lawson, Hanson, Kincaid and Krogh, *Basic linear algebra subprograms for Fortran usage* (1979).
//!
//! | field | type | |
//! |---|---|---|
//! | `a` | `f32` | the factor |
//! | `x`, `y` | `f32`, `[n]` | the vectors, of equal length, n at least 1 |
//! | out: `y` | `f32`, `[n]` | a x + y |
//!
//! NaN and infinities pass through as IEEE 754 says. The result has the same bits on every backend.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::cuda::{Module, device_code};
use crate::kernels::authoring::elementwise;
use crate::service::Buffer;

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saxpy;

/// The input of `linalg/saxpy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(extend("examples" = [{ "a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0] }]))]
pub struct SaxpyInput {
    /// The factor.
    pub a: f32,
    /// The vector that is scaled.
    pub x: Buffer<f32>,
    /// The vector that is added, as long as `x`.
    pub y: Buffer<f32>,
}

/// The output of `linalg/saxpy`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct SaxpyOutput {
    /// a x + y.
    pub y: Buffer<f32>,
}

elementwise! {
    impl Kernel for Saxpy {
        info: KernelInfo::new("linalg/saxpy", "1.0.0", "a x + y of two f32 vectors, each element rounded once."),
        input: SaxpyInput { a, x, y },
        output: SaxpyOutput { y } of f32,
        operations: 2,
        cpu: |a: f32, x: f32, y: f32| [a.mul_add(x, y)],
        cuda: Module::embedded(device_code!("linalg/saxpy")), "saxpy_f32",
        reference: |a, x, y| [(a * x + y, 6e-8 * (a * x + y).abs())],
    }
}
