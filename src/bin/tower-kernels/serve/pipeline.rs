//! What REST and gRPC both call: one service, in one set of layers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower::util::{Either, MapErr};
use tower_kernels::backends::Local;
use tower_kernels::grpc::Pipeline;
use tower_kernels::kernels;
use tower_kernels::layers::metrics::MetricsHandle;
use tower_kernels::layers::rate_limit::RateLimitError;
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};
use tower_layer::Layer;

use crate::config::{Config, RateLimit};
use crate::exit::{Exit, Failure};

/// The kernels of the catalogue that are served.
pub(super) fn registry(config: &Config) -> Result<Arc<KernelRegistry>, Failure> {
    let registry = KernelRegistry::new();
    let wanted = |domain: &str| config.domains.is_empty() || config.domains.iter().any(|one| one.0 == domain);
    kernels::register_where(&registry, |kernel| wanted(kernel.domain()))
        .map_err(|error| Exit::Failed.because(error.to_string()))?;
    Ok(Arc::new(registry))
}

/// The pipeline, and its figures.
pub(super) fn build(
    config: &Config,
    registry: &Arc<KernelRegistry>,
    local: Local,
) -> Result<(impl Pipeline + use<>, MetricsHandle), Failure> {
    let kernels = KernelService::with_backend(Arc::clone(registry), local);
    let timely = TimeoutLayer::new(config.timeout.0).layer(kernels);
    // Without a limit the errors are the same, so that the rest of the program is.
    let limited = match limit(&config.rate_limit)? {
        Some(limit) => Either::Left(limit.per_tenant().layer(timely)),
        None => Either::Right(MapErr::new(timely, RateLimitError::Inner as fn(_) -> _)),
    };
    let metrics = MetricsLayer::new().operations(registry.list().iter().map(|kernel| kernel.info().id.clone()));
    Ok((metrics.layer(TracingLayer::new().layer(limited)), metrics.handle()))
}

fn limit(config: &RateLimit) -> Result<Option<RateLimiterLayer>, Failure> {
    if config.per_second == 0 {
        return Ok(None);
    }
    let limit = RateLimiterLayer::try_new(config.per_second, Duration::from_secs(1));
    let limit = limit.map_err(|error| Exit::Usage.because(format!("rate_limit.per_second: {error}")))?;
    Ok(Some(match NonZeroU32::new(config.burst) {
        Some(burst) => limit.burst(burst),
        None => limit,
    }))
}
