//! State of the REST API's handlers, and its setters.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::header::ORIGIN;
use http::request::Parts;

use super::openapi::OpenApi;
use super::outcomes::Outcomes;
use super::{DrainHandle, Limits, RouterConfig};
use crate::backends::Local;
#[cfg(feature = "hyper")]
use crate::hyper::Connections;
use crate::middleware::metrics::MetricsHandle;
use crate::pipeline::{KernelSource, PipelineHandle};
use crate::servers::inference::{InferenceExtensions, NoSharedMemory, RegionAccess};
use crate::service::KernelRegistry;

/// Default timeout of a request, including the wait for readiness.
const TIMEOUT: Duration = Duration::from_secs(30);

#[cfg(feature = "tls")]
pub(crate) type OptionalTls = Option<crate::servers::hyper::Tls>;
#[cfg(not(feature = "tls"))]
pub(crate) type OptionalTls = ();

/// Returns further metrics as OpenMetrics text.
pub(crate) type MoreMetrics = Arc<dyn Fn() -> String + Send + Sync>;

/// What the handlers of the REST API need besides the service. Clones share what changes while requests are served.
#[derive(Clone)]
pub(crate) struct RestState {
    pub(crate) registry: Arc<KernelRegistry>,
    pub(crate) config: RouterConfig,
    pub(crate) devices: Option<Local>,
    pub(crate) drain: DrainHandle,
    pub(crate) pipeline: Option<PipelineHandle>,
    /// Without it there is no `/metrics`.
    pub(crate) metrics: Option<MetricsHandle>,
    pub(crate) tls: OptionalTls,
    pub(crate) limits: Limits,
    #[cfg(feature = "hyper")]
    pub(crate) connections: Vec<(&'static str, Connections)>,
    pub(crate) outcomes: Arc<Outcomes>,
    /// Whether the OpenAPI document and its page are served.
    pub(crate) openapi_enabled: bool,
    /// Whether the Open Inference Protocol is served.
    pub(crate) inference_enabled: bool,
    pub(crate) inference: InferenceExtensions,
    pub(crate) openapi: Arc<OpenApi>,
    pub(crate) more_metrics: Vec<MoreMetrics>,
}

impl RestState {
    pub(crate) fn new(kernels: &impl KernelSource, config: RouterConfig) -> Self {
        let pipeline = kernels.pipeline();
        let timeout = pipeline.as_ref().map_or(TIMEOUT, |pipeline| pipeline.config().timeout);
        Self {
            registry: Arc::clone(kernels.registry()),
            limits: Limits::new(timeout, config.max_request_size),
            config,
            devices: kernels.devices().cloned(),
            drain: DrainHandle::default(),
            metrics: pipeline.as_ref().map(PipelineHandle::metrics),
            pipeline,
            tls: OptionalTls::default(),
            #[cfg(feature = "hyper")]
            connections: Vec::new(),
            outcomes: Arc::new(Outcomes::new()),
            openapi_enabled: true,
            inference_enabled: true,
            inference: InferenceExtensions::new(),
            openapi: Arc::default(),
            more_metrics: Vec::new(),
        }
    }
}

impl RestState {
    /// Returns the regions of shared memory that the client of a request can use.
    pub(crate) fn regions_for(&self, head: &Parts) -> RegionAccess {
        let access = self.inference.regions_for(&head.extensions)?;
        // A browser on this machine has a loopback address, and sends what any page asks for. It may not show the page the
        // response, but an output would have been written.
        if head.headers.contains_key(ORIGIN) { Err(NoSharedMemory::Browser) } else { Ok(access) }
    }
}

impl fmt::Debug for RestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { registry, config, devices, drain, pipeline, metrics, tls, limits, openapi_enabled, .. } = self;
        f.debug_struct("RestState")
            .field("registry", registry)
            .field("config", config)
            .field("devices", devices)
            .field("drain", drain)
            .field("pipeline", pipeline)
            .field("metrics", metrics)
            .field("tls", tls)
            .field("limits", limits)
            .field("openapi_enabled", openapi_enabled)
            .finish_non_exhaustive()
    }
}

/// Setters of a server with a method `state_mut(&mut self) -> &mut RestState`.
macro_rules! rest_setters {
    () => {
        /// Sets the maximum time of a request, from its arrival to its response. Default: the timeout of the pipeline,
        /// or 30 s without a pipeline. Clients can set a shorter one.
        #[must_use]
        pub fn timeout(mut self, timeout: std::time::Duration) -> Self {
            self.state_mut().limits.timeout = timeout;
            self
        }

        /// Sets the maximum size of an encoded output, in bytes. Default: 64 MiB. A larger output is rejected before
        /// the kernel runs if its [footprint](crate::service::Kernel::footprint) is known, and otherwise as soon as it
        /// is too long.
        #[must_use]
        pub fn max_response_size(mut self, bytes: u64) -> Self {
            self.state_mut().limits.max_response_size = bytes;
            self
        }

        /// Sets the maximum size of the body that uploads an [operand](crate::service::Operands), in bytes. Default: 16 GiB.
        #[must_use]
        pub fn max_operand_size(mut self, bytes: usize) -> Self {
            self.state_mut().limits.max_operand_size = bytes;
            self
        }

        /// Sets the maximum time of the upload of an [operand](crate::service::Operands). Default: 10 minutes. Clients can
        /// set a shorter one.
        #[must_use]
        pub fn operand_timeout(mut self, timeout: std::time::Duration) -> Self {
            self.state_mut().limits.operand_timeout = timeout;
            self
        }

        /// Limits the memory of all requests together. Clones are one limit, which several servers can share. The tensors of
        /// uploaded operands count to their [limits](crate::service::OperandLimits) instead. Default: no limit.
        #[must_use]
        pub fn memory(mut self, memory: $crate::service::HostMemory) -> Self {
            self.state_mut().limits.memory = memory;
            self
        }

        /// Adds metrics of TLS: expiry and reloads of the certificate, and failed handshakes.
        #[cfg(feature = "tls")]
        #[must_use]
        pub fn tls(mut self, tls: $crate::hyper::Tls) -> Self {
            self.state_mut().tls = Some(tls);
            self
        }

        /// Adds metrics of the connections of a [`Server`](crate::hyper::Server), with this value of the label
        /// `listener`, which must be unique.
        #[cfg(feature = "hyper")]
        #[must_use]
        pub fn connections(mut self, listener: &'static str, connections: $crate::hyper::Connections) -> Self {
            self.state_mut().connections.push((listener, connections));
            self
        }

        /// Adds further metrics to `/metrics`: `render` is called for each request to it, and returns OpenMetrics text.
        #[must_use]
        pub fn more_metrics(mut self, render: impl Fn() -> String + Send + Sync + 'static) -> Self {
            self.state_mut().more_metrics.push(std::sync::Arc::new(render));
            self
        }

        /// Enables `/openapi.json`, and `/docs` with the feature `docs`. Enabled by default. Disable them if the
        /// program has routes of its own at these paths.
        #[must_use]
        pub fn openapi(mut self, enabled: bool) -> Self {
            self.state_mut().openapi_enabled = enabled;
            self
        }

        /// Enables the Open Inference Protocol at `/v2`, in which kernels are models. Enabled by default. Disable it if the
        /// program has routes of its own there.
        #[must_use]
        pub fn inference_protocol(mut self, enabled: bool) -> Self {
            self.state_mut().inference_enabled = enabled;
            self
        }

        /// Enables extensions of the Open Inference Protocol that are off by default, such as shared memory.
        #[must_use]
        pub fn inference_extensions(mut self, extensions: $crate::inference::InferenceExtensions) -> Self {
            self.state_mut().inference = extensions;
            self
        }

        /// Describes authentication in the OpenAPI document, so that Swagger UI has a button for credentials. Clients
        /// use one of `schemes`. `exempt` returns whether a request needs none, as for
        /// [`AuthenticateLayer::exempt`](crate::layers::AuthenticateLayer::exempt).
        ///
        /// This changes the document only, and does not authenticate.
        #[must_use]
        pub fn security(
            mut self,
            schemes: impl IntoIterator<Item = $crate::servers::http::SecurityScheme>,
            exempt: impl Fn(&http::Method, &http::Uri) -> bool + Send + Sync + 'static,
        ) -> Self {
            let openapi = $crate::servers::http::OpenApi::with_security(schemes, exempt);
            self.state_mut().openapi = std::sync::Arc::new(openapi);
            self
        }

        /// Returns the handle that makes `/health/ready` say that the server is draining.
        #[must_use]
        pub fn drain_handle(&self) -> $crate::servers::http::DrainHandle {
            self.state().drain.clone()
        }
    };
}
pub(crate) use rest_setters;
