//! A kernel that runs for a given time, and ends early when it is cancelled.

use std::time::{Duration, Instant};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "cuda")]
use tower_kernels::cuda::{Launch, Module};
use tower_kernels::service::{Buffer, Cost, InvalidInput, Kernel, KernelError, KernelInfo, LaunchContext, RunContext};

pub(crate) const HOLD: &str = "bench/hold";

#[cfg(feature = "cuda")]
// SAFETY: `hold` is passed what the file says, and writes one number for each block.
static MODULE: Module = unsafe { Module::from_ptx(HOLD, include_str!("hold.ptx")) };

pub(crate) struct Hold;

#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
pub(crate) struct HoldInput {
    /// How long, each block.
    pub(crate) micros: u64,
    /// Two of them fill a multiprocessor.
    pub(crate) blocks: u32,
    /// Whether the download is queued only once the kernel has ended.
    #[serde(default)]
    pub(crate) waits: bool,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct HoldOutput {
    /// How long it was, for each block.
    pub(crate) nanoseconds: Buffer<u64>,
}

impl Kernel for Hold {
    type Input = HoldInput;
    type Output = HoldOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(HOLD, "1", "Passes time.").cuda()
    }

    fn validate(&self, input: &HoldInput) -> Result<(), InvalidInput> {
        match input.micros {
            0..=10_000_000 => Ok(()),
            more => Err(InvalidInput::new("micros", format!("{more} where ten seconds is the most"))),
        }
    }

    fn cost(&self, input: &HoldInput) -> Cost {
        // The CPU backend derives this time from it, and never so short that it runs inline.
        let operations = input.micros.max(50) * 2000;
        Cost { operations, device_memory: u64::from(input.blocks) * 8, ..Cost::default() }
    }

    fn run_cpu(&self, input: &HoldInput, context: &RunContext<'_>) -> Result<HoldOutput, KernelError> {
        let start = Instant::now();
        while start.elapsed() < Duration::from_micros(input.micros) {
            context.check()?;
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(HoldOutput { nanoseconds: vec![start.elapsed().as_nanos() as u64].into() })
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, input: &HoldInput, cuda: &mut LaunchContext<'_>) -> Result<HoldOutput, KernelError> {
        let out = cuda.zeroed::<u64>(input.blocks as usize)?;
        let stop = cuda.cancel_flag();
        cuda.launch(&MODULE, "hold", Launch::new(input.blocks, 1024), &[&(input.micros * 1000), &stop, &out])?;
        if input.waits {
            cuda.wait()?;
        }
        Ok(HoldOutput { nanoseconds: cuda.download(&out)? })
    }
}
