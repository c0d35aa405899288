//! Large inputs are decoded, and large outputs encoded, while the device runs other jobs. No GPU is needed: the device's only
//! worker runs the CPU code.

use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use tower::ServiceExt;

use super::*;
use crate::backends::worker_pool::{Profile, Reservation, Worker, WorkerPool};
use crate::service::{Cost, Footprint, InvalidInput, Kernel, KernelInfo, KernelRequest, Payload, RunContext, Typed};

/// Stops a thread until the test lets it go on.
struct Gate {
    state: Mutex<GateState>,
    changed: Condvar,
}

struct GateState {
    is_reached: bool,
    is_open: bool,
}

impl Gate {
    const fn new() -> Self {
        Self { state: Mutex::new(GateState { is_reached: false, is_open: false }), changed: Condvar::new() }
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_reached = true;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).unwrap());
    }

    async fn reached(&'static self) {
        let wait = || drop(self.changed.wait_while(self.state.lock().unwrap(), |state| !state.is_reached).unwrap());
        tokio::task::spawn_blocking(wait).await.unwrap();
    }

    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }
}

static DECODED: Gate = Gate::new();
static ENCODED: Gate = Gate::new();

/// A number that stops at the gate when it is decoded, if it is not zero.
#[derive(Clone, Copy, Debug, Serialize, schemars::JsonSchema)]
struct Decoded(u64);

/// A number that stops at the gate when it is encoded, if it is not zero.
#[derive(Clone, Copy, Debug, Deserialize, schemars::JsonSchema)]
struct Encoded(u64);

impl<'de> Deserialize<'de> for Decoded {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if number > 0 {
            DECODED.pass();
        }
        Ok(Self(number))
    }
}

impl Serialize for Encoded {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0 > 0 {
            ENCODED.pass();
        }
        self.0.serialize(serializer)
    }
}

#[derive(Debug, Serialize, Deserialize, schemars::JsonSchema)]
struct Input {
    decoded: Decoded,
    encoded: u64,
    /// Makes the document large.
    #[serde(default)]
    padding: String,
}

#[derive(Serialize, Deserialize, schemars::JsonSchema)]
struct Output {
    decoded: u64,
    encoded: Encoded,
    padding: usize,
}

struct Passes;

impl Kernel for Passes {
    type Input = Input;
    type Output = Output;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/passes", "1", "A test.").backends([BackendKind::Cpu, BackendKind::Cuda])
    }
    fn validate(&self, _: &Input) -> Result<(), InvalidInput> {
        Ok(())
    }
    /// An operation is a second on the CPU.
    fn cost(&self, _: &Input) -> Cost {
        Cost { operations: 2_000_000_000, ..Cost::default() }
    }
    /// Gated outputs are large.
    fn footprint(&self, input: &Input) -> Option<Footprint> {
        Some(Footprint { output: 1_000_000 * input.encoded, scratch: 0 })
    }
    fn run_cpu(&self, input: &Input, _: &RunContext<'_>) -> Result<Output, KernelError> {
        Ok(Output { decoded: input.decoded.0, encoded: Encoded(input.encoded), padding: input.padding.len() })
    }
}

struct Device;

impl Worker for Device {
    fn run(&mut self, job: &Job, context: &RunContext<'_>, _: Option<Reservation>) -> Result<Typed, KernelError> {
        job.run_kernel_on_cpu(context)
    }

    fn recover(&mut self) {}
}

/// A service over a CPU and a device that has one worker and no queue.
fn service() -> (KernelService<Local>, Arc<WorkerPool>) {
    let profile = Profile {
        backend: BackendKind::Cuda,
        device: Some(0),
        idle_spin: Duration::ZERO,
        inline: Duration::ZERO,
        isolated: false,
        busy_poll: Duration::ZERO,
        shutdown_grace: Duration::from_secs(60),
        launch: Duration::ZERO,
        bytes_per_second: 1e18,
        operations_per_second: 1e18,
        pinned_memory: None,
    };
    let device = Arc::new(WorkerPool::start(profile, 0, None, |_| Ok(vec![Device])).unwrap());
    let registry = KernelRegistry::new();
    registry.register(Passes).unwrap();
    let local = Local::over(DeviceSet::new(vec![Arc::clone(&device), Arc::clone(CpuBackend::new().pool())]));
    (KernelService::with_backend(registry, local), device)
}

/// Returns the output, and how long codec threads had the input and the output.
async fn call(service: KernelService<Local>, input: String) -> (serde_json::Value, [Duration; 2]) {
    let mut request = KernelRequest::new("test/passes", Payload::json(input));
    request.set_backend(BackendKind::Cuda);
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.execution.backend, "CUDA");
    let times = response.execution.codec_times().copied().unwrap_or_default();
    (response.json().unwrap(), [times.decoding, times.encoding])
}

const SMALL: &str = r#"{"decoded": 0, "encoded": 0}"#;

#[tokio::test]
async fn a_large_input_is_decoded_without_a_permit_of_the_device() {
    let (service, device) = service();
    let padding = "x".repeat(100_000);
    let large = format!(r#"{{"decoded": 1, "encoded": 0, "padding": "{padding}"}}"#);
    let large = tokio::spawn(call(service.clone(), large));
    DECODED.reached().await;
    assert_eq!(device.load().jobs, 0);
    let (small, times) = call(service, SMALL.to_owned()).await;
    assert_eq!((&small["padding"], times), (&0.into(), [Duration::ZERO; 2]));
    DECODED.open();
    let (large, [decoding, encoding]) = large.await.unwrap();
    assert_eq!(large, serde_json::json!({"decoded": 1, "encoded": 0, "padding": 100_000}));
    assert!(!decoding.is_zero() && encoding.is_zero());
}

#[tokio::test]
async fn a_large_output_is_encoded_without_the_devices_worker() {
    let (service, device) = service();
    let large = tokio::spawn(call(service.clone(), r#"{"decoded": 0, "encoded": 1}"#.to_owned()));
    ENCODED.reached().await;
    assert_eq!(device.load().jobs, 0);
    assert_eq!(call(service, SMALL.to_owned()).await.0["encoded"], 0);
    ENCODED.open();
    let (large, [decoding, encoding]) = large.await.unwrap();
    assert_eq!(large["encoded"], 1);
    assert!(decoding.is_zero() && !encoding.is_zero());
}
