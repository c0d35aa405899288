//! [`Activation`]: the function that a layer applies to each of its numbers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The function that a layer applies to each of its numbers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// The number itself.
    #[default]
    None,
    /// `max(x, 0)`.
    Relu,
    /// `x`, and `0.01 x` for negative numbers.
    LeakyRelu,
    /// `1 / (1 + exp(-x))`.
    Sigmoid,
    /// The hyperbolic tangent.
    Tanh,
    /// `x`, and `exp(x) - 1` for negative numbers.
    Elu,
}

/// The slope of [`Activation::LeakyRelu`] for negative numbers.
pub(in crate::kernels::graph) const LEAKY_SLOPE: f32 = 0.01;

impl Activation {
    /// Replaces each number by the function of it. NaN stays NaN.
    pub(in crate::kernels::graph) fn apply(self, numbers: &mut [f32]) {
        let mut each = |of: fn(f32) -> f32| numbers.iter_mut().for_each(|number| *number = of(*number));
        match self {
            Self::None => {}
            Self::Relu => each(|x| if x < 0.0 { 0.0 } else { x }),
            Self::LeakyRelu => each(|x| leaky(x, LEAKY_SLOPE)),
            Self::Sigmoid => each(|x| 1.0 / (1.0 + (-x).exp())),
            Self::Tanh => each(f32::tanh),
            Self::Elu => each(|x| if x < 0.0 { x.exp_m1() } else { x }),
        }
    }

    /// The number of the function in `activation.cuh`.
    #[cfg(feature = "cuda")]
    pub(in crate::kernels::graph) const fn code(self) -> u32 {
        self as u32
    }
}

/// `x`, and `slope * x` for negative numbers.
pub(in crate::kernels::graph) fn leaky(x: f32, slope: f32) -> f32 {
    if x < 0.0 { slope * x } else { x }
}
