//! The adapters, each behind the same server, with limits that a test can wait for.

use std::io;
use std::ops::Deref;
use std::time::{Duration, Instant};

use hyper_util::service::TowerToHyperService;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tower_kernels::axum::{KernelRouter, RouterConfig};
use tower_kernels::backends::cpu::{CpuBackend, CpuConfig};
use tower_kernels::hyper::{self, Connections, KernelHttpService, ServerConfig, listen};
use tower_kernels::pipeline::RegistryOnly;
use tower_kernels::service::{Cost, InvalidInput, Kernel, KernelError, KernelInfo, KernelService, RunContext};

use crate::support::http_client::Wire;
use crate::support::kernels::{Naps, registry};

pub(crate) const SAXPY: &str = r#"{"a": 2.0, "x": [1.0], "y": [1.0]}"#;
pub(crate) const RUN_SAXPY: &str = "/kernels/linalg/saxpy/execute";
pub(crate) const RUN_NAP: &str = "/kernels/test/nap/execute";
/// Longer than any test waits.
pub(crate) const LONG: Duration = Duration::from_secs(600);

/// What a test wants otherwise than usual.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) limits: ServerConfig,
    pub(crate) timeout: Duration,
    pub(crate) max_request_size: usize,
    pub(crate) workers: usize,
    pub(crate) queue: usize,
    pub(crate) drain: Duration,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            limits: ServerConfig::default(),
            timeout: Duration::from_secs(30),
            max_request_size: 1 << 20,
            workers: 4,
            queue: 4096,
            drain: Duration::from_secs(30),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Adapter {
    Axum,
    Hyper,
}

pub(crate) struct Server {
    adapter: Adapter,
    wire: Wire,
    pub(crate) naps: Naps,
    pub(crate) connections: Connections,
    pub(crate) stop: oneshot::Sender<()>,
    pub(crate) ended: JoinHandle<io::Result<()>>,
}

impl Server {
    /// One of each.
    pub(crate) fn all(setup: &Setup) -> impl Iterator<Item = Self> {
        [Adapter::Axum, Adapter::Hyper].map(|adapter| Self::start(adapter, setup.clone())).into_iter()
    }

    fn start(adapter: Adapter, setup: Setup) -> Self {
        let (registry, naps) = registry();
        registry.register(Fill).unwrap();
        let mut cpu = CpuConfig::default();
        (cpu.workers, cpu.queue) = (setup.workers, setup.queue);
        let backend = CpuBackend::with_config(cpu).unwrap();
        let service = KernelService::with_backend(registry.clone(), backend);

        let server = hyper::Server::new(setup.limits);
        let connections = server.connections();
        let listener = listen("127.0.0.1:0".parse().unwrap()).unwrap();
        let wire = Wire { address: listener.local_addr().unwrap() };
        let (stop, stopped) = oneshot::channel();
        let stopped = async move { stopped.await.map_err(io::Error::other) };
        let ended = match adapter {
            Adapter::Axum => {
                let config = RouterConfig { max_request_size: setup.max_request_size, ..RouterConfig::default() };
                let router =
                    KernelRouter::with_service(service, &RegistryOnly::new(registry), config).timeout(setup.timeout);
                let service = TowerToHyperService::new(router.into_router());
                tokio::spawn(server.serve(listener, service, stopped, setup.drain))
            }
            Adapter::Hyper => {
                let service = KernelHttpService::with_service(service, &RegistryOnly::new(registry))
                    .timeout(setup.timeout)
                    .max_request_size(setup.max_request_size);
                tokio::spawn(server.serve(listener, service, stopped, setup.drain))
            }
        };
        Self { adapter, wire, naps, connections, stop, ended }
    }

    /// That it is none the worse.
    pub(crate) async fn assert_serves(&self) {
        let response = self.request("POST", RUN_SAXPY, &[crate::support::http_client::JSON], SAXPY.as_bytes()).await;
        assert_eq!(response.status, 200, "{:?}: {response:?}", self.adapter);
    }

    /// Waits until as many connections are open.
    pub(crate) async fn until_open(&self, connections: usize) {
        let begun = Instant::now();
        while self.connections.open() != connections {
            assert!(begun.elapsed() < Duration::from_secs(60), "{:?}: {:?}", self.adapter, self.connections);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

impl Deref for Server {
    type Target = Wire;

    fn deref(&self) -> &Wire {
        &self.wire
    }
}

/// Answers with a text of so many bytes.
struct Fill;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Length {
    bytes: usize,
}

#[derive(Serialize, Deserialize, JsonSchema)]
struct Text {
    text: String,
}

impl Kernel for Fill {
    type Input = Length;
    type Output = Text;

    fn info(&self) -> KernelInfo {
        KernelInfo::new("test/fill", "1.0.0", "Says a lot.")
    }

    fn validate(&self, _: &Length) -> Result<(), InvalidInput> {
        Ok(())
    }

    fn cost(&self, input: &Length) -> Cost {
        Cost { bytes: input.bytes as u64, ..Cost::default() }
    }

    fn run_cpu(&self, input: &Length, _: &RunContext<'_>) -> Result<Text, KernelError> {
        Ok(Text { text: "x".repeat(input.bytes) })
    }
}
