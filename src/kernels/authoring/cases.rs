//! [`Cases`]: the test that every kernel gets, on the CPU and on CUDA.

use std::sync::Arc;

#[cfg(feature = "cuda")]
use super::cases_cuda;
#[cfg(feature = "cuda")]
use crate::backends::cuda::CudaBackend;
#[cfg(feature = "cuda")]
use crate::service::BackendKind;
#[cfg(test)]
use crate::service::Typed;
use crate::service::{Kernel, KernelError, RunContext};

/// The sizes that kernels are tested at: around a warp and a block, and a large one with a remainder.
pub const SIZES: [usize; 8] = [0, 1, 2, 31, 32, 33, 1_000, (1 << 20) + 3];

/// Sizes of requests that share a run in the test.
const SHARED: [usize; 5] = [1_000, 33, 5_000, 31, 1];

/// Inputs and expected outputs of a kernel, from which [`check_cpu`] and [`check_cuda`] are derived.
///
/// The macros implement it. A kernel that implements [`Kernel`] by hand implements this too.
pub trait Cases: Kernel {
    /// A random input of this size: the rows of a table, the nodes of a graph. `None` where there is none to test.
    fn case(&self, size: usize, random: &mut Random) -> Option<Self::Input>;

    /// Changes what `input` must have in common with another input to share its run.
    fn share(&self, input: &mut Self::Input, with: &Self::Input);

    /// Puts NaN into a row of each field that can hold it.
    fn put_nan(&self, input: &mut Self::Input, row: usize);

    /// The outputs that are expected, computed in `f64`.
    fn reference(&self, input: &Self::Input) -> Vec<Expected>;

    /// The outputs, in the order of [`reference`](Self::reference).
    fn values(&self, output: &Self::Output) -> Vec<Vec<f64>>;
}

/// The expected values of one output.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The output's name.
    pub name: &'static str,
    /// Each element's value, and the largest error that is allowed.
    pub values: Vec<(f64, f64)>,
}

/// The expected values by output, from those by row.
pub fn expected<const N: usize>(names: [&'static str; N], rows: &[[(f64, f64); N]]) -> Vec<Expected> {
    let column = |(index, name)| Expected { name, values: rows.iter().map(|row| row[index]).collect() };
    names.into_iter().enumerate().map(column).collect()
}

/// Random numbers, the same for the same seed: Steele, Lea and Flood, *Fast splittable pseudorandom number generators*
/// (2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A generator.
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A random word.
    pub fn word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// An integer from 0 to `bound`, without `bound`, each as likely as the next but for a bias below `bound` / 2^64.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.word()) * u128::from(bound)) >> 64) as u64
    }

    /// A number from `low` to `high`.
    pub fn between(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * (self.word() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// A number of either sign whose size is from 2^-10 to 2^10.
    pub fn number(&mut self) -> f64 {
        let sign = if self.below(2) == 0 { 1.0 } else { -1.0 };
        sign * self.between(-10.0, 10.0).exp2()
    }
}

/// Runs several inputs as one shared run.
type Run<'a, K> = &'a dyn Fn(&[Arc<<K as Kernel>::Input>]) -> Result<Vec<<K as Kernel>::Output>, KernelError>;

/// Tests a kernel's CPU code: against the reference at all [`SIZES`], with NaN, and in a shared run, which must give the
/// same bits as single ones.
///
/// # Errors
/// The first value that is wrong, in words.
pub fn check_cpu<K: Cases>(kernel: &K) -> Result<(), String> {
    check(kernel, &|inputs| {
        let inputs: Vec<&K::Input> = inputs.iter().map(Arc::as_ref).collect();
        kernel.run_cpu_batch(&inputs, &RunContext::detached())
    })
    .map_err(|error| format!("{} on the CPU: {error}", kernel.info().id))
}

/// Tests a kernel's CUDA code, if it has any, as [`check_cpu`] does, and that it agrees with the CPU code.
///
/// # Errors
/// The first value that is wrong, in words.
#[cfg(feature = "cuda")]
pub fn check_cuda<K: Cases + Clone>(kernel: &K, backend: &CudaBackend) -> Result<(), String> {
    if !kernel.info().supports(BackendKind::Cuda) {
        return Ok(());
    }
    let shared = Arc::new(kernel.clone());
    check(kernel, &|inputs| cases_cuda::run(&shared, inputs, backend))
        .map_err(|error| format!("{} on CUDA: {error}", kernel.info().id))
}

fn check<K: Cases>(kernel: &K, run: Run<'_, K>) -> Result<(), String> {
    let mut random = Random::new(1);
    for size in SIZES {
        let Some(input) = kernel.case(size, &mut random) else { continue };
        check_one(kernel, input, size == 0, run).map_err(|error| format!("size {size}: {error}"))?;
        let Some(mut input) = kernel.case(size, &mut random) else { continue };
        if size > 0 {
            kernel.put_nan(&mut input, size / 2);
            check_one(kernel, input, true, run).map_err(|error| format!("size {size} with NaN: {error}"))?;
        }
    }
    check_shared(kernel, &mut random, run).map_err(|error| format!("in a shared run: {error}"))
}

/// Runs an input and compares its outputs with the reference. One that `may_be_invalid` may be rejected instead.
fn check_one<K: Cases>(kernel: &K, input: K::Input, may_be_invalid: bool, run: Run<'_, K>) -> Result<(), String> {
    if let Err(invalid) = kernel.validate(&input) {
        return if may_be_invalid { Ok(()) } else { Err(format!("a valid input is rejected: {invalid}")) };
    }
    let expected = kernel.reference(&input);
    let outputs = run(&[Arc::new(input)]).map_err(|error| error.to_string())?;
    let [output] = &outputs[..] else { return Err(format!("{} outputs for one input", outputs.len())) };
    let values = kernel.values(output);
    if values.len() != expected.len() {
        return Err(format!("{} outputs where {} are expected", values.len(), expected.len()));
    }
    for (Expected { name, values: expected }, values) in expected.iter().zip(&values) {
        if values.len() != expected.len() {
            return Err(format!("{name} has {} elements, not {}", values.len(), expected.len()));
        }
        for (index, (value, (expected, bound))) in values.iter().zip(expected).enumerate() {
            let is_near = value == expected || (value - expected).abs() <= *bound;
            if !(is_near || value.is_nan() && expected.is_nan()) {
                return Err(format!("{name}[{index}] is {value:e}, not {expected:e} within {bound:e}"));
            }
        }
    }
    Ok(())
}

/// Runs inputs of several sizes together and alone.
fn check_shared<K: Cases>(kernel: &K, random: &mut Random, run: Run<'_, K>) -> Result<(), String> {
    let Some(first) = kernel.case(SHARED[0], random) else { return Ok(()) };
    let mut inputs = vec![Arc::new(first)];
    for size in &SHARED[1..] {
        let Some(mut input) = kernel.case(*size, random) else { continue };
        kernel.share(&mut input, &inputs[0]);
        if kernel.batch_key(&input).is_none() {
            return Ok(());
        }
        if kernel.batch_key(&input) != kernel.batch_key(&inputs[0]) {
            return Err("inputs that may share a run have different keys".to_owned());
        }
        inputs.push(Arc::new(input));
    }
    let together = run(&inputs).map_err(|error| error.to_string())?;
    if together.len() != inputs.len() {
        return Err(format!("{} outputs for {} inputs", together.len(), inputs.len()));
    }
    for (index, (input, output)) in inputs.iter().zip(&together).enumerate() {
        let alone = run(std::slice::from_ref(input)).map_err(|error| error.to_string())?;
        let bits = |output: &K::Output| -> Vec<Vec<u64>> {
            kernel.values(output).iter().map(|values| values.iter().map(|value| value.to_bits()).collect()).collect()
        };
        if alone.first().map(bits) != Some(bits(output)) {
            return Err(format!("input {index} has another output than alone"));
        }
    }
    Ok(())
}

/// A run of a kernel's CPU code.
pub type RunOnCpu<'a> = Box<dyn Fn() -> Result<(), KernelError> + 'a>;

/// [`Cases`] with its types erased, for lists of kernels.
pub trait ErasedCases: Send + Sync {
    /// The kernel's id.
    fn id(&self) -> String;
    /// A random input of this size, in one row of which NaN is put if `has_nan`.
    #[cfg(test)]
    fn input(&self, size: usize, has_nan: bool, random: &mut Random) -> Option<Typed>;
    /// A run of the CPU code on a random input of this size, for benchmarks.
    fn run_on_cpu(&self, size: usize, random: &mut Random) -> Option<RunOnCpu<'_>>;
    /// As [`check_cpu`].
    ///
    /// # Errors
    /// As `check_cpu`.
    fn check_cpu(&self) -> Result<(), String>;
    /// As [`check_cuda`].
    ///
    /// # Errors
    /// As `check_cuda`.
    #[cfg(feature = "cuda")]
    fn check_cuda(&self, backend: &CudaBackend) -> Result<(), String>;
}

impl<K: Cases + Clone> ErasedCases for K {
    fn id(&self) -> String {
        self.info().id.into_owned()
    }

    #[cfg(test)]
    fn input(&self, size: usize, has_nan: bool, random: &mut Random) -> Option<Typed> {
        let mut input = self.case(size, random)?;
        if has_nan && size > 0 {
            self.put_nan(&mut input, size / 2);
        }
        Some(Typed::new(input))
    }

    fn run_on_cpu(&self, size: usize, random: &mut Random) -> Option<RunOnCpu<'_>> {
        let input = self.case(size, random)?;
        Some(Box::new(move || self.run_cpu(&input, &RunContext::detached()).map(drop)))
    }

    fn check_cpu(&self) -> Result<(), String> {
        check_cpu(self)
    }

    #[cfg(feature = "cuda")]
    fn check_cuda(&self, backend: &CudaBackend) -> Result<(), String> {
        check_cuda(self, backend)
    }
}
