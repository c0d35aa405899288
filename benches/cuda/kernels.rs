//! The smallest kernels there are.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::backends::cuda::{Lane, Launch, Module};
use tower_kernels::service::{BackendKind, Cost, Invalid, Kernel, KernelError, KernelInfo};

// SAFETY: it takes nothing and touches nothing.
static EMPTY: Module = unsafe { Module::from_ptx("bench/empty", crate::EMPTY_PTX) };

pub(crate) struct Empty;

#[derive(Clone, Debug, Deserialize, JsonSchema)]
pub(crate) struct Nothing {}

#[derive(Debug, Serialize, JsonSchema)]
pub(crate) struct Done {}

impl Kernel for Empty {
    type Input = Nothing;
    type Output = Done;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("bench/empty", "1", "Nothing.").backends([BackendKind::Cuda])
    }

    fn validate(&self, _: &Nothing) -> Result<(), Invalid> {
        Ok(())
    }

    fn cost(&self, _: &Nothing) -> Cost {
        Cost::default()
    }

    fn run_cuda(&self, _: &Nothing, lane: &mut Lane<'_>) -> Result<Done, KernelError> {
        lane.launch(&EMPTY, "empty", Launch::new(1, 32), &[])?;
        lane.wait()?;
        Ok(Done {})
    }
}
