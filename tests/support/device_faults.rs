//! A kernel that makes the device fault, in each of the ways that end a CUDA context.

// A module is a promise about device code.
#![allow(unsafe_code)]

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tower_kernels::cuda::{Launch, Module};
use tower_kernels::service::{BackendKind, Cost, InvalidInput, Kernel, KernelError, KernelInfo, LaunchContext};

// SAFETY: every entry ends its context, which is that of a process of its own.
static CODE: Module = unsafe {
    Module::from_ptx(
        "test/device-fault",
        r"
.version 8.2
.target sm_75
.address_size 64
.visible .entry illegal_address() {
    .reg .u64 %p; .reg .u32 %v;
    mov.u64 %p, 4096; mov.u32 %v, 1;
    st.volatile.global.u32 [%p], %v;
    ret;
}
.visible .entry misaligned_address(.param .u64 out) {
    .reg .u64 %p; .reg .u32 %v;
    ld.param.u64 %p, [out]; add.u64 %p, %p, 1; mov.u32 %v, 1;
    st.volatile.global.u32 [%p], %v;
    ret;
}
.visible .entry trapped() { trap; ret; }
.visible .entry endless(.param .u64 out) {
    .reg .u64 %p; .reg .u32 %v; .reg .pred %more;
    ld.param.u64 %p, [out];
again:
    ld.volatile.global.u32 %v, [%p];
    setp.eq.u32 %more, %v, 0;
    @%more bra again;
    ret;
}
",
    )
};

/// What a run does to its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum Fault {
    IllegalAddress,
    MisalignedAddress,
    Trap,
    /// Runs until the memory that it reads is changed, which nobody does.
    Endless,
    /// Aborts the process from the host's side.
    Abort,
}

/// The kernel `test/device-fault`.
pub(crate) struct DeviceFault;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct NoOutput {}

impl Kernel for DeviceFault {
    type Input = Fault;
    type Output = NoOutput;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/device-fault", "1", "A test.").backends([BackendKind::Cuda]).pure()
    }

    fn validate(&self, _: &Fault) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, _: &Fault) -> Cost {
        Cost::default()
    }

    fn run_cuda(&self, fault: &Fault, cuda: &mut LaunchContext<'_>) -> Result<NoOutput, KernelError> {
        let out = cuda.zeroed::<u32>(1)?;
        let one = Launch::new(1, 1);
        match fault {
            Fault::IllegalAddress => cuda.launch(&CODE, "illegal_address", one, &[])?,
            Fault::MisalignedAddress => cuda.launch(&CODE, "misaligned_address", one, &[&out])?,
            Fault::Trap => cuda.launch(&CODE, "trapped", one, &[])?,
            Fault::Endless => cuda.launch(&CODE, "endless", one, &[&out])?,
            Fault::Abort => std::process::abort(),
        }
        cuda.wait()?;
        Ok(NoOutput {})
    }
}
