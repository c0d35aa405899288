//! Runs a kernel's CUDA code on the inputs of a test.

use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};

use tower_service::Service;

use crate::backends::cuda::CudaBackend;
use crate::service::LaunchContext;
use crate::service::{
    BackendKind, Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelRegistry, KernelRequest, KernelService,
    Payload,
};

/// The outputs of these inputs, run together.
pub(super) fn run<K: Kernel>(
    kernel: &Arc<K>,
    inputs: &[Arc<K::Input>],
    backend: &CudaBackend,
) -> Result<Vec<K::Output>, KernelError> {
    let outputs = Arc::new(Mutex::new(Vec::new()));
    let run = SharedRun { kernel: Arc::clone(kernel), inputs: inputs.to_vec(), outputs: Arc::clone(&outputs) };
    let registry = KernelRegistry::new();
    registry.register(run).map_err(|error| KernelError::kernel(error.to_string()))?;
    let mut service = KernelService::with_backend(registry, backend.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| KernelError::kernel(error.to_string()))?;
    runtime.block_on(async {
        poll_fn(|cx| service.poll_ready(cx)).await?;
        service.call(KernelRequest::new(ID, Payload::typed(()))).await
    })?;
    let mut outputs = outputs.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(std::mem::take(&mut *outputs))
}

const ID: &str = "test/shared-run";

/// A kernel that runs another one's inputs, and whose own input is empty.
struct SharedRun<K: Kernel> {
    kernel: Arc<K>,
    inputs: Vec<Arc<K::Input>>,
    outputs: Arc<Mutex<Vec<K::Output>>>,
}

impl<K: Kernel> Kernel for SharedRun<K> {
    type Input = ();
    type Output = ();

    fn info(&self) -> KernelInfo {
        KernelInfo::new(ID, "1.0.0", "Runs the inputs of a test.").backends([BackendKind::Cuda])
    }

    fn validate(&self, (): &()) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, (): &()) -> Cost {
        self.inputs.iter().fold(Cost::default(), |sum, input| {
            let cost = self.kernel.cost(input);
            Cost {
                bytes: sum.bytes.saturating_add(cost.bytes),
                operations: sum.operations.saturating_add(cost.operations),
                device_memory: sum.device_memory.saturating_add(cost.device_memory),
            }
        })
    }

    fn run_cuda(&self, (): &(), cuda: &mut LaunchContext<'_>) -> Result<(), KernelError> {
        let inputs: Vec<&K::Input> = self.inputs.iter().map(Arc::as_ref).collect();
        let outputs = match inputs[..] {
            [input] => vec![self.kernel.run_cuda(input, cuda)?],
            _ => self.kernel.run_cuda_batch(&inputs, cuda)?,
        };
        *self.outputs.lock().unwrap_or_else(PoisonError::into_inner) = outputs;
        Ok(())
    }
}
