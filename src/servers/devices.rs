//! Whether the devices of this process can run the registered kernels, and their operands are loaded: one rule for all
//! servers.

use crate::backends::{CudaState, LocalStatus};
#[cfg(feature = "cuda")]
use crate::service::BackendKind;
use crate::service::KernelRegistry;

/// Returns why some kernels cannot run any more: the CPU has no workers, or every CUDA device is lost and a kernel
/// requires one. `None` while all can run, even if more slowly.
pub(crate) fn out_of_service(status: &LocalStatus, registry: &KernelRegistry) -> Option<String> {
    let LocalStatus { cpu, cuda } = status;
    let no_workers = !cpu.pool.up || cpu.pool.alive == 0;
    let problems = || [cpu.problems(), cuda_problems(cuda)].concat().join("; ");
    (no_workers || is_missed(cuda, registry)).then(problems)
}

/// Returns why the devices are not ready for requests: they are [out of service](out_of_service), or the device code of
/// kernels is still being loaded.
pub(crate) fn not_ready(status: &LocalStatus, registry: &KernelRegistry) -> Option<String> {
    let loading = || match status.cuda.modules_loading() {
        0 => None,
        count => Some(format!("the device code of {count} kernels is being loaded")),
    };
    out_of_service(status, registry).or_else(loading)
}

/// Returns why requests that refer to operands cannot run yet.
pub(crate) fn operands_not_ready(registry: &KernelRegistry) -> Option<String> {
    registry.operands().is_loading().then(|| "the stored operands are being loaded".to_owned())
}

/// A CUDA backend that is off is not a problem of a device.
pub(crate) fn cuda_problems(cuda: &CudaState) -> Vec<String> {
    match cuda {
        CudaState::Off { .. } => Vec::new(),
        #[cfg(feature = "cuda")]
        CudaState::On { .. } => cuda.problems(),
    }
}

/// Whether no CUDA device is available and a kernel requires one.
#[cfg_attr(not(feature = "cuda"), expect(unused_variables, reason = "without CUDA nothing can be lost"))]
pub(crate) fn is_missed(cuda: &CudaState, registry: &KernelRegistry) -> bool {
    match cuda {
        CudaState::Off { .. } => false,
        #[cfg(feature = "cuda")]
        CudaState::On { .. } => !cuda.is_up() && needs_cuda(registry),
    }
}

/// Whether a kernel runs on CUDA only.
#[cfg(feature = "cuda")]
fn needs_cuda(registry: &KernelRegistry) -> bool {
    registry.list().iter().any(|kernel| {
        let backends = &kernel.info().backends;
        backends.contains(&BackendKind::Cuda) && !backends.contains(&BackendKind::Cpu)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::Local;

    #[test]
    fn a_cpu_without_workers_is_out_of_service_and_says_so() {
        let registry = KernelRegistry::new();
        let mut status = Local::detect().status();
        assert_eq!(out_of_service(&status, &registry), None);
        status.cpu.pool.alive = 1;
        assert_eq!(out_of_service(&status, &registry), None, "it goes on with fewer");
        status.cpu.pool.alive = 0;
        assert!(out_of_service(&status, &registry).unwrap().contains("workers of the CPU"));
        (status.cpu.pool.up, status.cpu.pool.alive) = (false, 1);
        assert_eq!(out_of_service(&status, &registry).unwrap(), "the CPU takes no jobs any more");
    }

    #[cfg(feature = "cuda")]
    #[test]
    fn devices_are_not_ready_while_they_load_device_code_unless_they_are_lost() {
        use crate::backends::PoolStatus;
        use crate::backends::cuda::{CudaStatus, CudaUsage};
        #[cfg(all(feature = "isolation", target_os = "linux"))]
        use crate::backends::process::ProcessStatus;
        use crate::cuda::DeviceInfo;

        let registry = KernelRegistry::new();
        let mut status = Local::detect().status();
        let mut device = CudaStatus {
            device: DeviceInfo {
                ordinal: 0,
                name: "GPU".into(),
                memory: 1,
                compute_capability: (9, 0),
                multiprocessors: 1,
            },
            lost: None,
            pool: PoolStatus { up: true, ..status.cpu.pool },
            usage: CudaUsage::default(),
            modules_loaded: 1,
            modules_loading: 2,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
        status.cuda = CudaState::On { devices: vec![device.clone()], missing: Vec::new() };
        assert_eq!(not_ready(&status, &registry).unwrap(), "the device code of 2 kernels is being loaded");
        assert_eq!(out_of_service(&status, &registry), None);
        device.lost = Some("a fault".into());
        status.cuda = CudaState::On { devices: vec![device.clone()], missing: Vec::new() };
        assert_eq!(not_ready(&status, &registry), None, "the CPU serves");
        device.lost = None;
        #[cfg(all(feature = "isolation", target_os = "linux"))]
        {
            let processes = ProcessStatus { pid: Some(1), standby_pid: None, replaced: 0, quarantined: Vec::new() };
            let mut isolated = CudaStatus { processes: Some(processes), ..device.clone() };
            status.cuda = CudaState::On { devices: vec![isolated.clone()], missing: Vec::new() };
            assert!(not_ready(&status, &registry).is_some());
            isolated.processes.as_mut().unwrap().replaced = 1;
            status.cuda = CudaState::On { devices: vec![isolated], missing: Vec::new() };
            assert_eq!(not_ready(&status, &registry), None, "a standby has taken over");
        }
        (device.modules_loaded, device.modules_loading) = (3, 0);
        status.cuda = CudaState::On { devices: vec![device], missing: Vec::new() };
        assert_eq!(not_ready(&status, &registry), None);
    }
}
