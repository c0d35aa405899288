//! Kernels that misbehave.

use std::sync::Once;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
#[cfg(feature = "cuda")]
use tower_kernels::service::LaunchContext;
use tower_kernels::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, RunContext};

pub(crate) const PANIC: &str = "soak/panic";
pub(crate) const GREEDY: &str = "soak/greedy";

/// What [`Panic`] says.
const WORDS: &str = "as it was told to";

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Never {}

/// Panics, on a device with work under way.
pub(crate) struct Panic;

impl Kernel for Panic {
    type Input = Nothing;
    type Output = Never;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(PANIC, "1", "Panics.").cuda()
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost { device_memory: 8 << 20, ..Cost::default() }
    }

    fn run_cpu(&self, _: &Nothing, _: &RunContext<'_>) -> Result<Never, KernelError> {
        panic!("{WORDS}")
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Never, KernelError> {
        cuda.zeroed::<u8>(4 << 20)?;
        cuda.upload(&vec![1_u8; 2 << 20])?;
        panic!("{WORDS}")
    }
}

/// Keeps what the panics say off the terminal, and nothing else.
pub(crate) fn without_words() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let otherwise = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            let payload = panic.payload();
            let text = payload.downcast_ref::<&str>().copied().or(payload.downcast_ref::<String>().map(String::as_str));
            if text != Some(WORDS) {
                otherwise(panic);
            }
        }));
    });
}

/// Allocates until there is no more, having said that it needs nothing.
pub(crate) struct Greedy;

impl Kernel for Greedy {
    type Input = Nothing;
    type Output = Never;

    fn info(&self) -> KernelInfo {
        KernelInfo::new(GREEDY, "1", "Takes all of the device's memory, and wants more.").cuda()
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    #[cfg(feature = "cuda")]
    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Never, KernelError> {
        loop {
            cuda.alloc::<u8>(4 << 30)?;
        }
    }
}
