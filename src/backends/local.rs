//! [`Local`]: what this machine has.

use std::task::{Context, Poll};

use tower::load::Load;
use tower_service::Service;

use super::cpu::CpuBackend;
use super::{LaneLoad, RunFuture};
use crate::service::{Job, KernelError, KernelResponse};

/// The backends of this machine as one.
#[derive(Clone, Debug)]
pub struct Local {
    cpu: CpuBackend,
}

impl Local {
    /// Opens what there is.
    pub fn detect() -> Self {
        Self { cpu: CpuBackend::new() }
    }
}

impl Service<Job> for Local {
    type Response = KernelResponse;
    type Error = KernelError;
    type Future = RunFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), KernelError>> {
        self.cpu.poll_ready(cx)
    }

    fn call(&mut self, job: Job) -> RunFuture {
        self.cpu.call(job)
    }
}

impl Load for Local {
    type Metric = LaneLoad;

    fn load(&self) -> LaneLoad {
        self.cpu.load()
    }
}
