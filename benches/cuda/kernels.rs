//! The smallest kernels there are.

use std::sync::LazyLock;
use std::time::Instant;

use crate::embedded::{OPTION_PRICING, ptx};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::cuda::{Arg, Launch, Module};
use tower_kernels::service::{BackendKind, Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, LaunchContext};

// SAFETY: it takes nothing and touches nothing.
static EMPTY: Module = unsafe { Module::from_ptx("bench/empty", crate::EMPTY_PTX) };

pub(crate) struct Empty;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Done {}

impl Kernel for Empty {
    type Input = Nothing;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/empty", "1", "Nothing.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Done, KernelError> {
        cuda.launch(&EMPTY, "empty", Launch::new(1, 32), &[])?;
        cuda.wait()?;
        Ok(Done {})
    }
}

// SAFETY: `Phases` passes what `option_pricing.cu` says.
static PRICING: LazyLock<Module> =
    LazyLock::new(|| unsafe { Module::from_ptx("bench/pricing", ptx(OPTION_PRICING).leak()) });

/// Option pricing in double precision, with a wait between its phases: how long each takes by itself.
pub(crate) struct Phases;

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PhasesInput {
    pub(crate) inputs: Vec<Buffer<f64>>,
    pub(crate) kinds: Buffer<u8>,
}

/// Milliseconds.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct PhasesOutput {
    pub(crate) upload: f64,
    pub(crate) kernel: f64,
    pub(crate) download: f64,
}

impl Kernel for Phases {
    type Input = PhasesInput;
    type Output = PhasesOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/phases", "1", "Option pricing, phase by phase.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &PhasesInput) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &PhasesInput) -> Cost {
        Cost { device_memory: input.kinds.len() as u64 * 97, ..Cost::default() }
    }

    fn run_cuda(&self, input: &PhasesInput, cuda: &mut LaunchContext<'_>) -> Result<PhasesOutput, KernelError> {
        let start = Instant::now();
        let count = input.kinds.len() as u64;
        let inputs = input.inputs.iter().map(|array| cuda.upload(array)).collect::<Result<Vec<_>, _>>()?;
        let kinds = cuda.upload(&input.kinds)?;
        cuda.wait()?;
        let uploaded = Instant::now();
        let outputs = (0..6).map(|_| cuda.alloc::<f64>(count as usize)).collect::<Result<Vec<_>, _>>()?;
        let mut args: Vec<&dyn Arg> = vec![&count];
        for array in &inputs {
            args.extend([array as &dyn Arg, &1_u32]);
        }
        args.extend([&kinds as &dyn Arg, &1_u32]);
        args.extend(outputs.iter().map(|array| array as &dyn Arg));
        cuda.launch(&PRICING, "black_scholes_f64", Launch::elements(count.div_ceil(2) as usize, 1 << 20), &args)?;
        cuda.wait()?;
        let priced = Instant::now();
        let mut first = 0.0;
        for output in &outputs {
            first += cuda.download(output)?[0];
        }
        assert!(first.is_finite());
        let downloaded = Instant::now();
        let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
        Ok(PhasesOutput { upload: ms(start, uploaded), kernel: ms(uploaded, priced), download: ms(priced, downloaded) })
    }
}
