//! `GET /metrics`: metrics of the layer, of domains, responses, memory and backends.

#[cfg(feature = "hyper")]
mod connections;
#[cfg(feature = "cuda")]
mod gpus;
mod inference;
#[cfg(all(feature = "isolation", target_os = "linux"))]
mod processes;
#[cfg(feature = "tls")]
mod tls;

use std::collections::BTreeMap;
use std::fmt::Error;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};
use serde_json::{Value, json};

#[cfg(feature = "cuda")]
pub(super) use self::gpus::read as read_gpus;
#[cfg(feature = "cuda")]
use crate::backends::cuda::{CudaStatus, CudaUsage};
use crate::backends::{CudaState, LocalStatus, PoolStatus};
use crate::middleware::metrics::{Format, MetricsHandle, render, respond};
use crate::request::request_id::RequestId;
use crate::servers::http::openapi::{Schemas, response, without_body};
use crate::servers::http::route::RestRequest;
use crate::servers::http::{Problem, ResponseBody, Rest, RestState};
use crate::service::{BackendKind, CodecLoad, HostMemory, Mode, Operands, RegisteredKernel, codec_load};

pub(super) async fn metrics<S, B>(
    rest: Rest<S>,
    request: RestRequest<'_, B>,
) -> Result<Response<ResponseBody>, Problem> {
    let state = rest.state;
    #[cfg(feature = "cuda")]
    let gpus = gpus::read(state.devices.as_ref()).await;
    let mut page = render(|registry| {
        if let Some(metrics) = &state.metrics {
            metrics.register(registry);
        }
        register(&state, registry.sub_registry_with_prefix("kernel"));
        if state.inference_enabled {
            registry.register_collector(Box::new(inference::Inference(Arc::clone(&state.registry))));
        }
        #[cfg(feature = "cuda")]
        gpus::register(registry, gpus);
    });
    for render in &state.more_metrics {
        page.push_str(&render());
        // The text may lack its last newline. Empty lines are omitted.
        page.push('\n');
    }
    let mut response = respond(&page, &request.head.headers);
    response.headers_mut().insert(RequestId::HEADER, request.request_id.value().clone());
    Ok(response.map(ResponseBody::from))
}

/// Adds all metrics but those of the calls and the GPUs.
fn register(state: &Arc<RestState>, kernel: &mut Registry) {
    if let Some(metrics) = state.metrics.clone() {
        kernel.register_collector(Box::new(ByDomain { metrics, state: Arc::clone(state) }));
    }
    kernel.register_collector(Box::new(Memory(state.limits.memory.clone())));
    kernel.register_collector(Box::new(CodecThreads));
    kernel.register_collector(Box::new(StoredOperands(state.registry.operands().clone())));
    if let Some(pipeline) = &state.pipeline {
        pipeline.register_layers(kernel);
    }
    if let Some(devices) = &state.devices {
        let status = devices.status();
        #[cfg(all(feature = "isolation", target_os = "linux"))]
        processes::register(kernel, &status);
        kernel.register_collector(Box::new(Backends(status)));
    }
    #[cfg(feature = "tls")]
    if let Some(tls) = &state.tls {
        tls::register(kernel, tls);
    }
    #[cfg(feature = "hyper")]
    if !state.connections.is_empty() {
        kernel.register_collector(Box::new(connections::Listeners(state.connections.clone())));
    }
}

/// OpenAPI: the page in each format.
pub(super) fn entry(_: &mut Schemas, _: &[RegisteredKernel]) -> Value {
    let page = |format: Format| (format.content_type().to_owned(), json!({ "schema": { "type": "string" } }));
    let pages: Value = [Format::Text, Format::OpenMetrics].map(page).into_iter().collect();
    without_body(response("In the format that `Accept` prefers, or else the first.", pages), &[500])
}

/// Metrics by domain, computed from those of the layer when the page is requested. Calls by an alias count for the
/// domain of the kernel.
#[derive(Debug)]
struct ByDomain {
    metrics: MetricsHandle,
    state: Arc<RestState>,
}

impl Collector for ByDomain {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self { metrics, state } = self;

        let mut ended: BTreeMap<(String, &str), (u64, Duration)> = BTreeMap::new();
        for calls in metrics.ended() {
            // `unknown` and `other` are not kernels, and are their own domains.
            let kernel = state.registry.get(&calls.operation);
            let domain = kernel.map_or(calls.operation, |kernel| kernel.info().domain().to_owned());
            let (count, duration) = ended.entry((domain, calls.outcome)).or_default();
            *count += calls.count;
            *duration = duration.saturating_add(calls.duration);
        }
        let help = "Calls that ended, by domain of the kernel";
        let mut family = encoder.encode_descriptor("domain_requests", help, None, MetricType::Counter)?;
        for ((domain, outcome), (count, _)) in &ended {
            counter(&mut family, &[("domain", domain.as_str()), ("outcome", outcome)], *count)?;
        }
        let help = "Total duration of calls that ended, by domain of the kernel";
        let unit = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("domain_request_duration", help, unit, MetricType::Counter)?;
        for ((domain, outcome), (_, duration)) in &ended {
            let exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
            let labels = [("domain", domain.as_str()), ("outcome", outcome)];
            family.encode_family(&labels)?.encode_counter(&duration.as_secs_f64(), exemplar)?;
        }

        let mut registered: BTreeMap<(&str, &str), u64> = BTreeMap::new();
        let kernels = state.registry.list();
        for info in kernels.iter().map(|kernel| kernel.info()) {
            let mode = if info.mode == Mode::Ring { "ring" } else { "batch" };
            *registered.entry((info.domain(), mode)).or_default() += 1;
        }
        let mut family = encoder.encode_descriptor("registered", "Registered kernels", None, MetricType::Gauge)?;
        for ((domain, mode), count) in &registered {
            family.encode_family(&[("domain", *domain), ("mode", *mode)])?.encode_gauge(count)?;
        }

        let help = "Panics of kernel code; kernels that never panicked have no series";
        let mut family = encoder.encode_descriptor("panics", help, None, MetricType::Counter)?;
        for kernel in kernels.iter().filter(|kernel| kernel.panics() > 0) {
            counter(&mut family, &[("kernel", &*kernel.info().id)], kernel.panics())?;
        }

        let help = "Responses of execute requests by code, including those rejected before the service was called";
        let mut family = encoder.encode_descriptor("http_responses", help, None, MetricType::Counter)?;
        for (code, count) in state.outcomes.totals() {
            counter(&mut family, &[("code", code)], count)?;
        }
        Ok(())
    }
}

/// Memory of requests. Without a limit there are no metrics.
#[derive(Debug)]
struct Memory(HostMemory);

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(memory) = self;
        if memory.max() == u64::MAX {
            return Ok(());
        }
        let unit = Some(&Unit::Bytes);
        for (name, help, value) in [
            ("memory_max", "Limit on the memory of requests", memory.max()),
            ("memory_used", "Memory used by requests: bodies, inputs, executions and responses", memory.used()),
            ("memory_peak", "Peak of the memory used by requests", memory.peak()),
        ] {
            encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let help = "Requests rejected for lack of memory";
        let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
        let mut family = encoder.encode_descriptor("memory_rejections", help, None, MetricType::Counter)?;
        family.encode_counter(&memory.rejected(), exemplar)
    }
}

/// The threads that decode large inputs and encode large outputs.
#[derive(Debug)]
struct CodecThreads;

impl Collector for CodecThreads {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let CodecLoad { threads, queued } = codec_load();
        for (name, help, value) in [
            ("codec_threads", "Threads that decode large inputs and encode large outputs", threads),
            ("codec_queued", "Large inputs and outputs that wait for one of these threads", queued),
        ] {
            encoder.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&(value as u64))?;
        }
        Ok(())
    }
}

/// Operands and their memory.
#[derive(Debug)]
struct StoredOperands(Operands);

impl Collector for StoredOperands {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(operands) = self;
        let usage = operands.usage();
        for (name, help, unit, value) in [
            ("operands", "Operands that requests can refer to", None, usage.operands),
            ("operand_versions", "Versions in memory, with those that only requests use", None, usage.versions),
            ("operand_memory", "Host memory of all versions", Some(&Unit::Bytes), usage.bytes),
        ] {
            encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?.encode_gauge(&value)?;
        }
        let max = operands.limits().max_bytes;
        if max < u64::MAX {
            let help = "Limit on the host memory of all versions";
            let mut family =
                encoder.encode_descriptor("operand_memory_max", help, Some(&Unit::Bytes), MetricType::Gauge)?;
            family.encode_gauge(&max)?;
        }
        if let Some(directory) = usage.directory {
            let help = "Files of operands on the disk";
            let mut family =
                encoder.encode_descriptor("operand_directory", help, Some(&Unit::Bytes), MetricType::Gauge)?;
            family.encode_gauge(&directory.bytes)?;
            let help = "Files of operands that were skipped, as they are damaged or exceed a limit";
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            let mut family = encoder.encode_descriptor("operand_files_skipped", help, None, MetricType::Counter)?;
            family.encode_counter(&directory.skipped, exemplar)?;
        }
        for (name, help, value) in [
            ("operands_stored", "Versions that were stored", usage.stored),
            ("operands_removed", "Operands that were removed", usage.removed),
            ("operands_rejected", "Versions that exceeded a budget", usage.rejected),
            ("operands_failed", "Values that could not be stored for another reason", usage.failed),
            ("operand_references", "References of requests to operands", usage.references),
        ] {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            encoder.encode_descriptor(name, help, None, MetricType::Counter)?.encode_counter(&value, exemplar)?;
        }
        let help = "Time to decode, check and build uploaded operands";
        let exemplar: Option<&Exemplar<NoLabelSet, f64>> = None;
        let mut family = encoder.encode_descriptor("operand_build", help, Some(&Unit::Seconds), MetricType::Counter)?;
        family.encode_counter(&usage.building.as_secs_f64(), exemplar)
    }
}

/// Running and queued jobs of each backend when the page is requested. A backend that is off has no metrics.
#[derive(Debug)]
struct Backends(LocalStatus);

impl Backends {
    fn pools(&self) -> Vec<(Vec<(&'static str, String)>, PoolStatus)> {
        let Self(LocalStatus { cpu, cuda, .. }) = self;
        let backend = |kind: BackendKind| ("backend", kind.as_str().to_owned());
        #[cfg_attr(not(feature = "cuda"), expect(unused_mut, reason = "only CUDA adds pools"))]
        let mut pools = vec![(vec![backend(BackendKind::Cpu)], cpu.pool)];
        match cuda {
            #[cfg(feature = "cuda")]
            CudaState::On { devices, .. } => pools.extend(devices.iter().map(|cuda| {
                (vec![backend(BackendKind::Cuda), ("device", cuda.device.ordinal.to_string())], cuda.pool)
            })),
            CudaState::Off { .. } => {}
        }
        pools
    }
}

impl Collector for Backends {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let pools = self.pools();
        let mut family = |name, help, value: fn(&PoolStatus) -> usize| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            pools
                .iter()
                .try_for_each(|(labels, pool)| family.encode_family(labels)?.encode_gauge(&(value(pool) as u64)))
        };
        family("backend_up", "1 if the backend accepts jobs, 0 if it is lost", |pool| usize::from(pool.up))?;
        family("backend_workers", "Worker threads, each of which runs one job at a time", |pool| pool.workers)?;
        let help = "Worker threads that take jobs; those restarting after a panic do not";
        family("backend_workers_alive", help, |pool| pool.alive)?;
        family("backend_capacity", "Jobs that the backend accepts at one time, running and queued", |pool| {
            pool.capacity
        })?;
        family("backend_queued", "Jobs that wait in the queue", |pool| pool.queued)?;
        family("backend_running", "Jobs that hold a permit and are not queued", |pool| pool.running)?;
        let help = "Restarts of workers after a panic outside of the kernels";
        let mut restarts = encoder.encode_descriptor("backend_worker_restarts", help, None, MetricType::Counter)?;
        for (labels, pool) in &pools {
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            restarts.encode_family(labels)?.encode_counter(&pool.restarts, exemplar)?;
        }
        #[cfg(feature = "cuda")]
        self.memory(encoder)?;
        Ok(())
    }
}

#[cfg(feature = "cuda")]
impl Backends {
    /// The memory of each CUDA device, including lost ones: it may explain the loss.
    fn memory(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(LocalStatus { cuda: CudaState::On { devices, .. }, .. }) = self else { return Ok(()) };
        let of = |cuda: &CudaStatus| [("device", cuda.device.ordinal.to_string())];
        let mut gauge = |name, help, unit: Option<Unit>, value: fn(&CudaUsage) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            devices.iter().try_for_each(|cuda| family.encode_family(&of(cuda))?.encode_gauge(&value(&cuda.usage)))
        };
        let bytes = || Some(Unit::Bytes);
        let help = "Device memory that requests may use at one time";
        gauge("device_memory_capacity", help, bytes(), |usage| usage.device_capacity)?;
        let help = "Device memory reserved for requests";
        gauge("device_memory_reserved", help, bytes(), |usage| usage.device_reserved)?;
        let help = "Device memory that no request uses, kept for the next";
        gauge("device_memory_idle", help, bytes(), |usage| usage.device_idle)?;
        let help = "Requests that wait for device memory";
        gauge("device_memory_waiting", help, None, |usage| usage.waiting as u64)?;
        gauge("pinned_memory", "Pinned host memory, in use or idle", bytes(), |usage| usage.pinned)?;
        gauge("pinned_memory_in_use", "Pinned host memory in use", bytes(), |usage| usage.pinned_in_use)?;
        let help = "Device memory that copies of operands may take";
        gauge("device_operand_capacity", help, bytes(), |usage| usage.operand_memory)?;
        let help = "Device memory that copies of operands take";
        gauge("device_operand_memory", help, bytes(), |usage| usage.operand_bytes)?;
        let help = "Copies of operands on the device";
        gauge("device_operand_copies", help, None, |usage| usage.operand_copies as u64)?;

        let mut counter = |name, help, value: fn(&CudaUsage) -> u64| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
            devices
                .iter()
                .try_for_each(|cuda| family.encode_family(&of(cuda))?.encode_counter(&value(&cuda.usage), exemplar))
        };
        counter("device_memory_waits", "Requests that have had to wait for device memory", |usage| usage.waits)?;
        let help = "Requests that failed for want of device memory";
        counter("device_memory_rejections", help, |usage| usage.rejections)?;
        let help = "Arrays that were copied through staging because pinned memory was exhausted";
        counter("pinned_memory_fallbacks", help, |usage| usage.pinned_fallbacks)?;
        let help = "Inputs of requests that found a copy of an operand on the device";
        counter("device_operand_hits", help, |usage| usage.operand_hits)?;
        let help = "Copies of operands that were made on the device";
        counter("device_operand_misses", help, |usage| usage.operand_misses)?;
        let help = "Copies of operands that were evicted to make room";
        counter("device_operand_evictions", help, |usage| usage.operand_evictions)?;
        let help = "Inputs uploaded for one request because there was no memory for a copy of the operand";
        counter("device_operand_fallbacks", help, |usage| usage.operand_fallbacks)
    }
}

fn counter<const N: usize>(
    family: &mut MetricEncoder<'_>,
    labels: &[(&str, &str); N],
    count: u64,
) -> Result<(), Error> {
    let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
    family.encode_family(labels)?.encode_counter(&count, exemplar)
}

#[cfg(all(test, feature = "cuda"))]
mod tests {
    use super::*;
    use prometheus_client::encoding::text;

    use crate::backends::Local;
    use crate::cuda::DeviceInfo;

    /// The page of a lost device and one that is up.
    pub(super) fn page_of_devices() -> String {
        let device =
            DeviceInfo { ordinal: 3, name: "GPU".into(), memory: 1, compute_capability: (9, 0), multiprocessors: 1 };
        let mut status = Local::detect().status();
        let pool = PoolStatus { up: false, workers: 4, alive: 0, restarts: 1, capacity: 260, queued: 0, running: 2 };
        let mut usage = CudaUsage::default();
        (usage.device_capacity, usage.device_reserved, usage.pinned_in_use) = (1 << 36, 4096, 1 << 20);
        (usage.waiting, usage.waits, usage.rejections) = (2, 17, 3);
        (usage.operand_memory, usage.operand_bytes, usage.operand_copies) = (1 << 30, 2 << 20, 1);
        (usage.operand_hits, usage.operand_misses, usage.operand_evictions) = (40, 4, 3);
        usage.operand_fallbacks = 5;
        let well = CudaStatus {
            device: DeviceInfo { ordinal: 5, ..device.clone() },
            lost: None,
            pool: PoolStatus { up: true, alive: 4, ..pool },
            usage,
            modules_loaded: 3,
            modules_loading: 0,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
        let lost = CudaStatus {
            device,
            lost: Some("it fell off the bus".into()),
            pool,
            usage,
            modules_loaded: 3,
            modules_loading: 0,
            #[cfg(all(feature = "isolation", target_os = "linux"))]
            processes: None,
        };
        status.cuda = CudaState::On { devices: vec![lost, well], missing: Vec::new() };
        let mut registry = Registry::default();
        registry.sub_registry_with_prefix("kernel").register_collector(Box::new(Backends(status)));
        let mut page = String::new();
        text::encode(&mut page, &registry).unwrap();
        page
    }

    #[test]
    fn a_lost_device_is_down_and_the_rest_is_up() {
        let page = page_of_devices();
        for line in [
            r#"kernel_backend_up{backend="CPU"} 1"#,
            r#"kernel_backend_up{backend="CUDA",device="3"} 0"#,
            r#"kernel_backend_up{backend="CUDA",device="5"} 1"#,
            r#"kernel_backend_workers{backend="CUDA",device="3"} 4"#,
            r#"kernel_backend_workers_alive{backend="CUDA",device="3"} 0"#,
            r#"kernel_backend_workers_alive{backend="CUDA",device="5"} 4"#,
            r#"kernel_backend_worker_restarts_total{backend="CUDA",device="3"} 1"#,
            r#"kernel_backend_capacity{backend="CUDA",device="3"} 260"#,
            r#"kernel_backend_queued{backend="CUDA",device="3"} 0"#,
            r#"kernel_backend_running{backend="CUDA",device="3"} 2"#,
            r#"kernel_device_memory_capacity_bytes{device="3"} 68719476736"#,
            r#"kernel_device_memory_reserved_bytes{device="5"} 4096"#,
            r#"kernel_device_memory_waiting{device="3"} 2"#,
            r#"kernel_device_memory_waits_total{device="3"} 17"#,
            r#"kernel_device_memory_rejections_total{device="5"} 3"#,
            r#"kernel_pinned_memory_in_use_bytes{device="3"} 1048576"#,
            r#"kernel_device_operand_capacity_bytes{device="3"} 1073741824"#,
            r#"kernel_device_operand_memory_bytes{device="5"} 2097152"#,
            r#"kernel_device_operand_copies{device="3"} 1"#,
            r#"kernel_device_operand_hits_total{device="3"} 40"#,
            r#"kernel_device_operand_misses_total{device="3"} 4"#,
            r#"kernel_device_operand_evictions_total{device="5"} 3"#,
            r#"kernel_device_operand_fallbacks_total{device="3"} 5"#,
        ] {
            assert!(page.lines().any(|this| this == line), "{line} is not in\n{page}");
        }
    }
}
