//! Metrics of device processes, and of the kernels that are quarantined for their faults.

use std::collections::BTreeSet;
use std::fmt::Error;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::Registry;

use crate::backends::process::ProcessStatus;
use crate::backends::{CudaState, LocalStatus};
use crate::service::BackendKind;

/// Registers the metrics of the isolated backends. Registers none if there are none.
pub(super) fn register(registry: &mut Registry, status: &LocalStatus) {
    let processes = Processes::of(status);
    if !processes.0.is_empty() {
        registry.register_collector(Box::new(processes));
    }
}

type Labels = Vec<(&'static str, String)>;

/// The processes of each isolated backend, with its labels.
#[derive(Debug)]
struct Processes(Vec<(Labels, ProcessStatus)>);

impl Processes {
    fn of(LocalStatus { cpu, cuda }: &LocalStatus) -> Self {
        let backend = |kind: BackendKind| ("backend", kind.as_str().to_owned());
        let cpu = cpu.processes.iter().map(|processes| (vec![backend(BackendKind::Cpu)], processes.clone()));
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "only CUDA adds processes"))]
        let mut all: Vec<_> = cpu.collect();
        match cuda {
            #[cfg(feature = "cuda")]
            CudaState::On { devices, .. } => all.extend(devices.iter().filter_map(|cuda| {
                let labels = vec![backend(BackendKind::Cuda), ("device", cuda.device.ordinal.to_string())];
                Some((labels, cuda.processes.clone()?))
            })),
            CudaState::Off { .. } => {}
        }
        Self(all)
    }
}

impl Collector for Processes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(all) = self;
        let mut gauge = |name, help, holds: fn(&ProcessStatus) -> bool| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            all.iter().try_for_each(|(labels, processes)| {
                family.encode_family(labels)?.encode_gauge(&u64::from(holds(processes)))
            })
        };
        let help = "1 if a device process runs jobs, 0 while one is started";
        gauge("device_process_up", help, |processes| processes.pid.is_some())?;
        let help = "1 if a standby is ready to take over, 0 while one is started or if there is none by configuration";
        gauge("device_process_standby_ready", help, |processes| processes.standby_pid.is_some())?;

        let help = "Device processes that ran jobs and were replaced: after a fault, or by SIGUSR2";
        let mut family = encoder.encode_descriptor("device_process_replacements", help, None, MetricType::Counter)?;
        for (labels, processes) in all {
            let exemplar: Option<&Exemplar<Labels, u64>> = None;
            family.encode_family(labels)?.encode_counter(&processes.replaced, exemplar)?;
        }

        let help =
            "1 for a kernel that is rejected for its faults, for a tenant or for all; other kernels have no series";
        let mut family = encoder.encode_descriptor("quarantined", help, None, MetricType::Gauge)?;
        for (labels, processes) in all {
            let kernels: BTreeSet<_> = processes.quarantined.iter().map(|quarantined| &quarantined.kernel).collect();
            for kernel in kernels {
                let labels: Labels = labels.iter().cloned().chain([("kernel", kernel.clone())]).collect();
                family.encode_family(&labels)?.encode_gauge(&1_u64)?;
            }
        }
        Ok(())
    }
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use prometheus_client::encoding::text;

    use super::*;
    use crate::backends::cuda::{CudaStatus, CudaUsage};
    use crate::backends::process::QuarantinedKernel;
    use crate::backends::{Local, PoolStatus};
    use crate::cuda::DeviceInfo;

    fn page(status: &LocalStatus) -> String {
        let mut registry = Registry::default();
        register(registry.sub_registry_with_prefix("kernel"), status);
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn each_isolated_device_has_its_series_and_a_kernel_one_for_all_of_its_tenants() {
        let quarantined = |tenant: Option<&str>| QuarantinedKernel {
            kernel: "graph/pagerank".into(),
            all_tenants: tenant.is_none(),
            tenant: tenant.map(str::to_owned),
            remaining_ms: 1000,
        };
        let starting = ProcessStatus {
            pid: None,
            standby_pid: Some(7),
            replaced: 3,
            quarantined: vec![quarantined(Some("acme")), quarantined(None)],
        };
        let device = |ordinal, processes| CudaStatus {
            device: DeviceInfo {
                ordinal,
                name: "GPU".into(),
                memory: 1,
                compute_capability: (9, 0),
                multiprocessors: 1,
            },
            lost: None,
            pool: PoolStatus { up: true, workers: 1, alive: 1, restarts: 0, capacity: 1, queued: 0, running: 0 },
            usage: CudaUsage::default(),
            modules_loaded: 1,
            modules_loading: 0,
            processes,
        };
        let mut status = Local::detect().status();
        status.cuda = CudaState::On { devices: vec![device(0, None), device(1, Some(starting))], missing: Vec::new() };
        let page = page(&status);
        // Alerts are checked against the same file, which `scripts/check_deploy.py` reads.
        assert_eq!(page, include_str!("../../../../../tests/goldens/process_metrics.txt"));
        assert_eq!(
            status.cuda.problems(),
            [
                "the device process of CUDA device 1 is being started",
                "the kernel `graph/pagerank` is quarantined on CUDA device 1 for a tenant",
                "the kernel `graph/pagerank` is quarantined on CUDA device 1 for all tenants",
            ]
        );
        let json = serde_json::to_string(&status.cuda).unwrap();
        assert!(!json.contains("acme"), "health checks need no credentials: {json}");
    }

    #[test]
    fn without_isolation_there_are_no_series() {
        assert_eq!(page(&Local::detect().status()), "# EOF\n");
    }
}
