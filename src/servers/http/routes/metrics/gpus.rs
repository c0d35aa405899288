//! Sensor readings of GPUs, for `/metrics` and `/health`.

use std::fmt::Error;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::exemplar::Exemplar;
use prometheus_client::registry::{Registry, Unit};

use crate::backends::Local;
use crate::cuda::{Gpu, GpuReading, ThrottleReason};

/// Timeout of the readings. They take milliseconds, or hang if the device is lost, when the other metrics matter most.
const TIMEOUT: Duration = Duration::from_millis(500);

/// Reads the sensors. Devices that do not respond in time are missing.
pub(in super::super) async fn read(devices: Option<&Local>) -> Vec<GpuReading> {
    let gpus: Vec<Gpu> = devices.into_iter().flat_map(Local::gpus).collect();
    if gpus.is_empty() {
        return Vec::new();
    }
    // At most one thread per device can hang: further readings skip a device that is being read.
    let read = tokio::task::spawn_blocking(move || gpus.iter().filter_map(Gpu::read).collect());
    match tokio::time::timeout(TIMEOUT, read).await {
        Ok(Ok(readings)) => readings,
        Ok(Err(error)) => {
            tracing::warn!(%error, "the sensors of the GPUs could not be read");
            Vec::new()
        }
        Err(_) => {
            tracing::warn!("reading the sensors of the GPUs timed out after {TIMEOUT:?}");
            Vec::new()
        }
    }
}

/// Registers the readings. Registers no metrics if there are none.
pub(super) fn register(registry: &mut Registry, readings: Vec<GpuReading>) {
    if !readings.is_empty() {
        registry.sub_registry_with_prefix("gpu").register_collector(Box::new(Gpus(readings)));
    }
}

/// Names are those of NVIDIA's DCGM exporter, such as `DCGM_FI_DEV_FB_USED`, with Prometheus units.
#[derive(Debug)]
struct Gpus(Vec<GpuReading>);

impl Collector for Gpus {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Self(readings) = self;
        let mut gauge = |(name, help, unit): (&str, &str, Unit), value: fn(&GpuReading) -> Option<f64>| {
            let mut family = encoder.encode_descriptor(name, help, Some(&unit), MetricType::Gauge)?;
            readings.iter().try_for_each(|reading| match value(reading) {
                Some(value) => family.encode_family(&labels(reading))?.encode_gauge(&value),
                None => Ok(()),
            })
        };
        let watts = || Unit::Other("watts".to_owned());
        let help = "GPU utilization: share of recent time in which a kernel ran";
        gauge(("util", help, Unit::Ratios), |gpu| gpu.utilization)?;
        let help = "Memory utilization: share of recent time in which memory was read or written";
        gauge(("mem_copy_util", help, Unit::Ratios), |gpu| gpu.memory_utilization)?;
        let help = "Device memory used by all processes";
        gauge(("fb_used", help, Unit::Bytes), |gpu| gpu.memory_used.map(|bytes| bytes as f64))?;
        gauge(("fb_total", "Total device memory", Unit::Bytes), |gpu| gpu.memory_total.map(|bytes| bytes as f64))?;
        gauge(("temp", "Temperature", Unit::Celsius), |gpu| gpu.temperature.map(f64::from))?;
        gauge(("power_usage", "Power drawn", watts()), |gpu| gpu.power)?;
        gauge(("power_mgmt_limit", "Power limit", watts()), |gpu| gpu.power_limit)?;

        let mut counter = |name, help, value: fn(&GpuReading) -> Option<u64>| {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            readings.iter().try_for_each(|reading| match value(reading) {
                Some(value) => {
                    let exemplar: Option<&Exemplar<NoLabelSet, u64>> = None;
                    family.encode_family(&labels(reading))?.encode_counter(&value, exemplar)
                }
                None => Ok(()),
            })
        };
        let help = "Corrected ECC errors since the driver was loaded";
        counter("ecc_sbe_vol", help, |gpu| gpu.ecc_corrected)?;
        let help = "Uncorrected ECC errors since the driver was loaded";
        counter("ecc_dbe_vol", help, |gpu| gpu.ecc_uncorrected)?;

        let help = "1 if the clocks are reduced for this reason";
        let mut family = encoder.encode_descriptor("clock_throttle_reasons", help, None, MetricType::Gauge)?;
        for (gpu, throttled) in readings.iter().filter_map(|gpu| Some((gpu, gpu.throttled.as_ref()?))) {
            for reason in ThrottleReason::ALL {
                let [device, uuid] = labels(gpu);
                let labels = [device, uuid, ("reason", reason.as_str().to_owned())];
                family.encode_family(&labels)?.encode_gauge(&u64::from(throttled.contains(&reason)))?;
            }
        }
        Ok(())
    }
}

fn labels(reading: &GpuReading) -> [(&'static str, String); 2] {
    [("device", reading.device.to_string()), ("uuid", reading.uuid.clone())]
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use prometheus_client::encoding::text;
    use tower::{Layer, ServiceExt, service_fn};

    use super::*;
    use crate::layers::MetricsLayer;
    use crate::request::{DeviceTimes, Execution};
    use crate::service::{KernelRequest, KernelResponse, Payload};

    fn reading() -> GpuReading {
        let mut reading = GpuReading { uuid: "GPU-5f1b".to_owned(), ..GpuReading::default() };
        (reading.utilization, reading.memory_utilization) = (Some(0.97), Some(0.5));
        (reading.memory_used, reading.memory_total) = (Some(1 << 30), Some(150_754_820_096));
        (reading.temperature, reading.power, reading.power_limit) = (Some(41), Some(312.5), Some(700.0));
        (reading.ecc_corrected, reading.ecc_uncorrected) = (Some(3), Some(0));
        reading.throttled = Some(vec![ThrottleReason::SwPowerCap]);
        reading
    }

    fn page(readings: Vec<GpuReading>) -> String {
        let (mut registry, mut page) = (Registry::default(), String::new());
        register(&mut registry, readings);
        text::encode(&mut page, &registry).unwrap();
        page
    }

    /// `tests/goldens/gpu_metrics.txt` is what a server with a GPU has on its page and no other: what may be asked of it is
    /// checked against that where there is no GPU. `TOWER_KERNELS_BLESS=1` writes it anew.
    #[tokio::test]
    async fn the_metrics_of_a_gpu_are_those_that_dashboards_are_checked_against() {
        let metrics = MetricsLayer::new();
        let timed = service_fn(|_: KernelRequest| async {
            let mut execution = Execution::new("CUDA");
            let bound = Some(Duration::from_micros(3));
            let [upload, kernel, download] = [40, 4, 20].map(Duration::from_micros);
            execution.set_device_times(DeviceTimes { upload, kernel, download, bound });
            Ok::<_, crate::service::KernelError>(KernelResponse::new(Payload::json("{}"), execution))
        });
        let request = KernelRequest::new("linalg/saxpy", Payload::json("{}"));
        metrics.layer(timed).oneshot(request).await.unwrap();
        let all = metrics.render() + &super::super::tests::page_of_devices();
        let of_devices = all.lines().filter(|line| line.contains("kernel_device_"));
        let mut now: String = of_devices.map(|line| format!("{line}\n")).collect();
        now.push_str(&page(vec![reading()]));
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/goldens/gpu_metrics.txt");
        if std::env::var_os("TOWER_KERNELS_BLESS").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        assert_eq!(now, std::fs::read_to_string(path).unwrap(), "see this test's comment");
    }

    #[test]
    fn what_a_device_does_not_tell_has_no_line() {
        let silent = GpuReading { device: 1, uuid: "MIG-7".to_owned(), ..GpuReading::default() };
        let page = page(vec![reading(), silent]);
        assert!(page.contains(r#"gpu_fb_used_bytes{device="0",uuid="GPU-5f1b"} 1073741824"#), "{page}");
        assert!(page.contains(r#"gpu_clock_throttle_reasons{device="0",uuid="GPU-5f1b",reason="sw_power_cap"} 1"#));
        assert!(page.contains(r#"gpu_clock_throttle_reasons{device="0",uuid="GPU-5f1b",reason="hw_thermal"} 0"#));
        assert!(!page.contains("MIG-7"), "{page}");
    }

    #[tokio::test]
    async fn without_sensors_a_page_says_nothing_of_them() {
        assert_eq!(page(Vec::new()), "# EOF\n");
        assert_eq!(read(None).await, []);
        let plain = service_fn(|_: http::Request<()>| async { Ok::<_, Infallible>(http::Response::new(())) });
        let metrics = MetricsLayer::new();
        metrics.layer(plain).oneshot(http::Request::new(())).await.unwrap();
        assert!(!metrics.render().contains("device"), "{}", metrics.render());
    }
}
