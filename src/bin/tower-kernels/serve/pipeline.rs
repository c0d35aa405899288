//! What REST and gRPC both call: one service, in one set of layers.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use tower::util::{Either, MapErr};
use tower_kernels::backends::Local;
use tower_kernels::grpc::Pipeline;
use tower_kernels::kernels;
use tower_kernels::layers::metrics::MetricsHandle;
use tower_kernels::layers::rate_limit::{ByTenant, PerKey, RateLimitError};
use tower_kernels::layers::{MetricsLayer, RateLimiterLayer, TimeoutLayer, TracingLayer};
use tower_kernels::service::{KernelRegistry, KernelService};
use tower_layer::Layer;

use crate::config::{Config, RateLimit, TenantLimit};
use crate::exit::{Exit, Failure};

/// The kernels of the catalogue that are served.
pub(super) fn registry(config: &Config) -> Result<Arc<KernelRegistry>, Failure> {
    let registry = KernelRegistry::new();
    let wanted = |domain: &str| config.domains.is_empty() || config.domains.iter().any(|one| one.0 == domain);
    kernels::register_where(&registry, |kernel| wanted(kernel.domain()))
        .map_err(|error| Exit::Failed.because(error.to_string()))?;
    #[cfg(feature = "fault-kernel")]
    registry.register(super::fault::Fault).map_err(|error| Exit::Failed.because(error.to_string()))?;
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
        Some(limit) => Either::Left(limit.layer(timely)),
        None => Either::Right(MapErr::new(timely, RateLimitError::Inner as fn(_) -> _)),
    };
    let metrics = MetricsLayer::new().operations(registry.list().iter().map(|kernel| kernel.info().id.clone()));
    Ok((metrics.layer(TracingLayer::new().layer(limited)), metrics.handle()))
}

type TenantLimiterLayer = RateLimiterLayer<PerKey<Arc<str>, ByTenant>>;

fn limit(config: &RateLimit) -> Result<Option<TenantLimiterLayer>, Failure> {
    if !config.is_on() {
        return Ok(None);
    }
    let (calls, period) = quota(TenantLimit { per_second: config.per_second, burst: config.burst });
    let limit = RateLimiterLayer::try_new(calls, period).map(RateLimiterLayer::per_tenant);
    let mut limit = limit.map_err(|error| Exit::Usage.because(format!("rate_limit: {error}")))?;
    for (tenant, &own) in &config.tenants {
        let (calls, period) = quota(own);
        limit = limit
            .try_limit_for(tenant.as_str(), calls, period)
            .map_err(|error| Exit::Usage.because(format!("rate_limit.tenants.{tenant}: {error}")))?;
    }
    Ok(Some(limit))
}

/// So many calls at once, and the time in which as many come back.
fn quota(TenantLimit { per_second, burst }: TenantLimit) -> (u32, Duration) {
    match (NonZeroU32::new(per_second), NonZeroU32::new(burst)) {
        // The most that can be counted, and more than can be called.
        (None, _) => (u32::MAX, Duration::from_secs(1)),
        (Some(rate), None) => (rate.get(), Duration::from_secs(1)),
        (Some(rate), Some(burst)) => (burst.get(), Duration::from_secs(burst.get().into()) / rate.get()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(per_second: u32, burst: u32) -> (u32, Duration) {
        quota(TenantLimit { per_second, burst })
    }

    #[test]
    fn a_burst_comes_back_at_the_rate() {
        assert_eq!(of(100, 0), (100, Duration::from_secs(1)));
        assert_eq!(of(100, 5), (5, Duration::from_millis(50)));
        assert_eq!(of(2, 10), (10, Duration::from_secs(5)));
    }

    #[test]
    fn no_rate_is_no_limit_whatever_the_burst() {
        assert_eq!((of(0, 0), of(0, 3)), (of(u32::MAX, 0), of(u32::MAX, 0)));
    }

    #[test]
    fn there_is_a_limiter_where_anybody_has_a_limit() {
        let own = |per_second| [("acme".to_owned(), TenantLimit { per_second, burst: 0 })].into();
        let config = |per_second, tenants| RateLimit { per_second, burst: 0, tenants };
        for (config, limited) in [
            (RateLimit::default(), false),
            (config(0, own(0)), false),
            (config(1, own(0)), true),
            (config(0, own(1)), true),
        ] {
            assert_eq!(limit(&config).unwrap().is_some(), limited, "{config:?}");
        }
    }
}
