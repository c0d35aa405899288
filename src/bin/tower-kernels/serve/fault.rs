//! A kernel by which the device is lost, to see what the whole program does then: `tests/clients/lost_device.py`.

// A module is a promise about device code.
#![allow(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::cuda::{Launch, Module};
use tower_kernels::service::{BackendKind, Cost, InvalidInput, Kernel, KernelError, KernelInfo, LaunchContext};

// SAFETY: the entry takes nothing, touches no memory and ends its context.
static TRAP: Module = unsafe {
    Module::from_ptx(
        "test/fault",
        ".version 8.2\n.target sm_75\n.address_size 64\n.visible .entry fault() { trap; ret; }\n",
    )
};

pub(super) struct Fault;

#[derive(Deserialize, Serialize, JsonSchema)]
pub(super) struct Nothing {}

impl Kernel for Fault {
    type Input = Nothing;
    type Output = Nothing;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/fault", "1", "Executes a trap instruction: the device is lost to the process.")
            .backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &Nothing) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    fn run_cuda(&self, _: &Nothing, cuda: &mut LaunchContext<'_>) -> Result<Nothing, KernelError> {
        cuda.launch(&TRAP, "fault", Launch::new(1, 1), &[])?;
        cuda.wait()?;
        Ok(Nothing {})
    }
}
