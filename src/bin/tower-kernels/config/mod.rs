//! The settings of `serve`: flags override environment variables, which override the file.
//!
//! A setting has one name, its key in the file: `drain.limit` there is the flag `--drain-limit` and the variable
//! `TOWER_KERNELS_DRAIN_LIMIT`. [`settings`] lists them; [`file`], [`variables`] and [`sources`] read them; [`values`],
//! [`ranges`] and [`conflicts`] check them, and [`print`] shows the result.

mod auth;
mod conflicts;
mod file;
mod isolation;
mod operands;
mod pipeline;
mod print;
mod ranges;
mod settings;
mod sources;
mod tls;
mod values;
mod variables;

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tower_kernels::axum::RouterConfig;
use tower_kernels::backends::cpu::CpuConfig;
use tower_kernels::backends::cuda::CudaConfig;
use tower_kernels::grpc::GrpcConfig;
use tower_kernels::hyper::ServerConfig;

pub(crate) use self::auth::{Algorithm, Auth, Jwt, KeysFile, TenantKey};
pub(crate) use self::conflicts::InvalidSettings;
pub(crate) use self::isolation::{IsolatedBackends, Isolation};
pub(crate) use self::operands::Operands;
pub(crate) use self::pipeline::{Batch, Cache, CircuitBreaker, Coalesce, Concurrency, LoadShed, Queue, Retry, Tenants};
pub(crate) use self::print::Changed;
pub(crate) use self::settings::Overrides;
pub(crate) use self::sources::Effective;
pub(crate) use self::tls::Tls;
pub(crate) use self::values::{Devices, Domain, Filter, Listen, MemoryLimit, MemoryMax, Span};

/// All settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) timeout: Span,
    pub(crate) domains: Vec<Domain>,
    pub(crate) exit_on_device_loss: bool,
    pub(crate) rest: Rest,
    pub(crate) grpc: Grpc,
    pub(crate) inference: Inference,
    pub(crate) memory: Memory,
    pub(crate) operands: Operands,
    pub(crate) connections: Connections,
    pub(crate) tls: Tls,
    pub(crate) auth: Auth,
    pub(crate) tenants: Tenants,
    pub(crate) rate_limit: RateLimit,
    pub(crate) cache: Cache,
    pub(crate) coalesce: Coalesce,
    pub(crate) load_shed: LoadShed,
    pub(crate) circuit_breaker: CircuitBreaker,
    pub(crate) retry: Retry,
    pub(crate) queue: Queue,
    pub(crate) concurrency: Concurrency,
    pub(crate) batch: Batch,
    pub(crate) drain: Drain,
    pub(crate) cpu: Cpu,
    pub(crate) cuda: Cuda,
    pub(crate) isolation: Isolation,
    pub(crate) log: Log,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Rest {
    pub(crate) listen: Listen,
    #[serde(deserialize_with = "values::prefix")]
    pub(crate) prefix: String,
    pub(crate) cors: bool,
    pub(crate) health: bool,
    pub(crate) metrics: bool,
    pub(crate) max_request_size: usize,
    pub(crate) max_response_size: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Grpc {
    pub(crate) listen: Listen,
    pub(crate) max_request_size: usize,
    pub(crate) max_response_size: usize,
    pub(crate) max_concurrent_per_stream: NonZeroUsize,
    pub(crate) compressed_requests: bool,
    pub(crate) compress_responses: bool,
}

/// Extensions of the Open Inference Protocol.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Inference {
    pub(crate) shared_memory: bool,
    pub(crate) model_control: bool,
}

/// Limits the memory of all requests together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Memory {
    pub(crate) max: MemoryMax,
}

/// Connection limits of each listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Connections {
    pub(crate) max: NonZeroUsize,
    pub(crate) max_per_address: usize,
    pub(crate) health_reserve: usize,
    pub(crate) head_timeout: Span,
    pub(crate) idle_timeout: Span,
    pub(crate) write_timeout: Span,
    pub(crate) max_age: Span,
    pub(crate) max_age_grace: Span,
}

/// The rate limit of each tenant. A rate of 0 is no limit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct RateLimit {
    pub(crate) per_second: u32,
    pub(crate) burst: u32,
    pub(crate) tenants: BTreeMap<String, TenantLimit>,
}

impl RateLimit {
    /// Whether any tenant has a limit.
    pub(crate) fn is_on(&self) -> bool {
        self.per_second > 0 || self.tenants.values().any(|own| own.per_second > 0)
    }
}

/// The rate limit of one tenant, which overrides that of all. Its rate has no default: a table without one would lift the
/// limit.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantLimit {
    pub(crate) per_second: u32,
    #[serde(default)]
    pub(crate) burst: u32,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Drain {
    pub(crate) notice: Span,
    pub(crate) limit: Span,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cpu {
    pub(crate) workers: usize,
    pub(crate) queue: usize,
    pub(crate) inline: Span,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cuda {
    pub(crate) mode: CudaMode,
    pub(crate) devices: Devices,
    pub(crate) workers: usize,
    pub(crate) queue: usize,
    pub(crate) idle_spin: Span,
    pub(crate) copy_threads: usize,
    pub(crate) busy_poll: Span,
    pub(crate) inline: Span,
    pub(crate) hang_timeout: Span,
    /// Device memory for copies of operands.
    pub(crate) operand_memory: MemoryLimit<true>,
    pub(crate) timing_sample_interval: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CudaMode {
    Off,
    #[default]
    On,
    Required,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Log {
    pub(crate) level: Filter,
    pub(crate) max_repeats: u64,
    pub(crate) buffer: usize,
    pub(crate) format: LogFormat,
    pub(crate) access: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    #[default]
    Text,
    Json,
}

impl Default for Log {
    fn default() -> Self {
        let (level, format) = (Filter::default(), LogFormat::default());
        Self { level, max_repeats: 20, buffer: 1 << 20, format, access: false }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            timeout: Span(Duration::from_secs(30)),
            domains: Vec::new(),
            exit_on_device_loss: false,
            rest: Rest::default(),
            grpc: Grpc::default(),
            inference: Inference::default(),
            memory: Memory::default(),
            operands: Operands::default(),
            connections: Connections::default(),
            tls: Tls::default(),
            auth: Auth::default(),
            tenants: Tenants::default(),
            rate_limit: RateLimit::default(),
            cache: Cache::default(),
            coalesce: Coalesce::default(),
            load_shed: LoadShed::default(),
            circuit_breaker: CircuitBreaker::default(),
            retry: Retry::default(),
            queue: Queue::default(),
            concurrency: Concurrency::default(),
            batch: Batch::default(),
            drain: Drain::default(),
            cpu: Cpu::default(),
            cuda: Cuda::default(),
            isolation: Isolation::default(),
            log: Log::default(),
        }
    }
}

impl Default for Rest {
    fn default() -> Self {
        let RouterConfig { prefix, enable_metrics, enable_health, cors_enabled, max_request_size } =
            RouterConfig::default();
        Self {
            listen: Listen::at(([127, 0, 0, 1], 8080)),
            prefix,
            cors: cors_enabled,
            health: enable_health,
            metrics: enable_metrics,
            max_request_size,
            max_response_size: 64 << 20,
        }
    }
}

impl Rest {
    pub(crate) fn router(&self) -> RouterConfig {
        RouterConfig {
            prefix: self.prefix.clone(),
            enable_metrics: self.metrics,
            enable_health: self.health,
            cors_enabled: self.cors,
            max_request_size: self.max_request_size,
        }
    }
}

impl Default for Grpc {
    fn default() -> Self {
        let service = GrpcConfig::default();
        Self {
            listen: Listen::at(([127, 0, 0, 1], 50051)),
            max_request_size: service.max_request_size,
            max_response_size: service.max_response_size,
            max_concurrent_per_stream: positive(service.max_concurrent_per_stream),
            compressed_requests: service.compressed_requests,
            compress_responses: service.compress_responses,
        }
    }
}

impl Grpc {
    pub(crate) fn service(&self, timeout: Duration) -> GrpcConfig {
        GrpcConfig {
            timeout,
            max_request_size: self.max_request_size,
            max_response_size: self.max_response_size,
            max_concurrent_per_stream: self.max_concurrent_per_stream.get(),
            compressed_requests: self.compressed_requests,
            compress_responses: self.compress_responses,
        }
    }
}

/// Converts a limit of the library, none of which is zero.
fn positive(limit: usize) -> NonZeroUsize {
    NonZeroUsize::new(limit).unwrap_or(NonZeroUsize::MIN)
}

impl Default for Connections {
    fn default() -> Self {
        let server = ServerConfig::default();
        Self {
            max: positive(server.max_connections),
            max_per_address: server.max_per_address,
            health_reserve: 16,
            head_timeout: Span(server.head_timeout),
            idle_timeout: Span(server.idle_timeout),
            write_timeout: Span(server.write_timeout),
            max_age: Span(server.max_age),
            max_age_grace: Span(server.max_age_grace),
        }
    }
}

impl Connections {
    pub(crate) fn server(&self) -> ServerConfig {
        ServerConfig {
            head_timeout: self.head_timeout.0,
            idle_timeout: self.idle_timeout.0,
            write_timeout: self.write_timeout.0,
            max_connections: self.max.get(),
            max_per_address: self.max_per_address,
            max_age: self.max_age.0,
            max_age_grace: self.max_age_grace.0,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { notice: Span(Duration::from_secs(2)), limit: Span(Duration::from_secs(30)) }
    }
}

impl Default for Cpu {
    fn default() -> Self {
        let CpuConfig { workers, queue, inline, .. } = CpuConfig::default();
        Self { workers, queue, inline: Span(inline) }
    }
}

impl Cpu {
    pub(crate) fn backend(&self) -> CpuConfig {
        let mut config = CpuConfig::default();
        (config.workers, config.queue, config.inline) = (self.workers, self.queue, self.inline.0);
        config
    }
}

impl Default for Cuda {
    fn default() -> Self {
        let config = CudaConfig::default();
        Self {
            mode: CudaMode::default(),
            devices: Devices::default(),
            workers: config.workers,
            queue: config.queue,
            idle_spin: Span(config.idle_spin),
            copy_threads: config.copy_threads,
            busy_poll: Span(config.busy_poll),
            inline: Span(config.inline),
            hang_timeout: Span(config.hang_timeout),
            operand_memory: MemoryLimit::Auto,
            timing_sample_interval: config.timing_sample_interval,
        }
    }
}

impl Cuda {
    /// The configuration of each device, given their number.
    pub(crate) fn backend(&self, devices: usize) -> CudaConfig {
        CudaConfig {
            workers: self.workers,
            queue: self.queue,
            idle_spin: self.idle_spin.0,
            copy_threads: self.copy_threads,
            busy_poll: self.busy_poll.0,
            inline: self.inline.0,
            hang_timeout: self.hang_timeout.0,
            operand_memory: match self.operand_memory {
                MemoryLimit::Auto => None,
                MemoryLimit::Bytes(bytes) => Some(bytes),
            },
            timing_sample_interval: self.timing_sample_interval,
            ..CudaConfig::for_devices(devices)
        }
    }
}
