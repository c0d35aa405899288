//! `linalg/saxpy`: y := a x + y on `f32` vectors, rounded once.
//!
//! The smallest kernel there is: what the service costs is measured with it, and it shows how a kernel is written.
//! Lawson, Hanson, Kincaid and Krogh, *Basic linear algebra subprograms for Fortran usage* (1979).
//!
//! | field | type | |
//! |---|---|---|
//! | `a` | `f32` | the factor |
//! | `x`, `y` | `f32`, `[n]` | the vectors, of equal length, n at least 1 |
//! | out: `y` | `f32`, `[n]` | a x + y |
//!
//! NaN and infinities are numbers like others here and pass through as IEEE 754 says.

use rayon::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[cfg(feature = "cuda")]
use crate::cuda::{DeviceBuffer, Launch, Module, built_in};
#[cfg(feature = "cuda")]
use crate::service::LaunchContext;
use crate::service::{BatchKey, Buffer, Cost, Footprint, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

/// Elements between two looks at whether to stop, and what one task of the pool takes.
const CHUNK: usize = 1 << 15;

/// Below so many elements, memory moves them faster than tasks are handed out.
const PARALLEL: usize = 1 << 17;

#[cfg(feature = "cuda")]
static MODULE: Module = built_in!("linalg/saxpy", "saxpy");

/// The kernel.
#[derive(Debug, Clone, Copy, Default)]
pub struct Saxpy;

/// The input of `linalg/saxpy`.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
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
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct SaxpyOutput {
    /// a x + y.
    pub y: Buffer<f32>,
}

impl Kernel for Saxpy {
    type Input = SaxpyInput;
    type Output = SaxpyOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("linalg/saxpy", "1.0.0", "a x + y of two f32 vectors, each element rounded once.").cuda().pure()
    }

    fn validate(&self, input: &SaxpyInput) -> Result<(), InvalidInput> {
        if input.x.is_empty() {
            return Err(InvalidInput::new("x", "empty"));
        }
        if input.y.len() != input.x.len() {
            let reason = format!("{} elements, and x has {}", input.y.len(), input.x.len());
            return Err(InvalidInput::new("y", reason));
        }
        Ok(())
    }

    fn cost(&self, input: &SaxpyInput) -> Cost {
        let elements = input.x.len() as u64;
        Cost {
            bytes: elements.saturating_mul(12),
            operations: elements.saturating_mul(2),
            device_memory: elements.saturating_mul(8),
        }
    }

    fn footprint(&self, input: &SaxpyInput) -> Option<Footprint> {
        Some(Footprint { output: Footprint::of_array::<f32>(input.x.len() as u64), scratch: 0 })
    }

    fn run_cpu(&self, input: &SaxpyInput, context: &RunContext<'_>) -> Result<SaxpyOutput, KernelError> {
        let SaxpyInput { a, x, y } = input;
        // The fused operation is what CUDA does too, so both give the same bits. Where the processor has it, pulp sees
        // to it that it is one instruction.
        let arch = pulp::Arch::new();
        let fill = |out: &mut [f32], x: &[f32], y: &[f32]| {
            arch.dispatch(
                #[inline(always)]
                || {
                    for ((out, x), y) in out.iter_mut().zip(x).zip(y) {
                        *out = a.mul_add(*x, *y);
                    }
                },
            );
        };
        let mut out = Buffer::zeroed(x.len());
        if out.len() < PARALLEL {
            fill(&mut out, x, y);
        } else {
            (out.par_chunks_mut(CHUNK), x.par_chunks(CHUNK), y.par_chunks(CHUNK)).into_par_iter().try_for_each(
                |(out, x, y)| {
                    context.check()?;
                    fill(out, x, y);
                    Ok::<(), KernelError>(())
                },
            )?;
        }
        Ok(SaxpyOutput { y: out })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &SaxpyInput, cuda: &mut LaunchContext<'_>) -> Result<SaxpyOutput, KernelError> {
        let (x, y) = (cuda.upload(&input.x)?, cuda.upload(&input.y)?);
        launch(input.a, &x, &y, cuda)?;
        Ok(SaxpyOutput { y: cuda.download(&y)? })
    }

    fn batch_key(&self, input: &SaxpyInput) -> Option<BatchKey> {
        Some(BatchKey::exact(input.a.to_bits().into()))
    }

    #[cfg(feature = "cuda")]
    fn run_cuda_batch(
        &self,
        inputs: &[&SaxpyInput],
        cuda: &mut LaunchContext<'_>,
    ) -> Result<Vec<SaxpyOutput>, KernelError> {
        let Some(SaxpyInput { a, .. }) = inputs.first() else { return Ok(Vec::new()) };
        let x = cuda.upload_parts(inputs.iter().map(|input| &input.x[..]))?;
        let y = cuda.upload_parts(inputs.iter().map(|input| &input.y[..]))?;
        launch(*a, &x, &y, cuda)?;
        let lengths: Vec<usize> = inputs.iter().map(|input| input.y.len()).collect();
        Ok(cuda.download_parts(&y, &lengths)?.into_iter().map(|y| SaxpyOutput { y }).collect())
    }
}

/// y := a x + y.
#[cfg(feature = "cuda")]
fn launch(
    a: f32,
    x: &DeviceBuffer<f32>,
    y: &DeviceBuffer<f32>,
    cuda: &mut LaunchContext<'_>,
) -> Result<(), KernelError> {
    // A thread does four elements at a time.
    let launch = Launch::elements(x.len().div_ceil(4), 1 << 20);
    cuda.launch(&MODULE, "saxpy_f32", launch, &[&(x.len() as u64), &a, x, y, y])
}
