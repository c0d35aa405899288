//! What REST and gRPC both call: one service, in one set of layers.

use std::num::NonZeroU32;
use std::sync::Arc;

use tower_kernels::error::chain;
use tower_kernels::kernels;
use tower_kernels::pipeline::{InvalidPipeline, PipelineLayer, QuotaConfig, RateLimitConfig};
use tower_kernels::service::KernelRegistry;

use crate::config::{Config, InvalidInput, RateLimit, TenantLimit};
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

/// The layers that are asked for.
///
/// `verified` says whether the tenants of requests are who they say, and not whoever a header names.
pub(super) fn layer(
    config: &Config,
    registry: &Arc<KernelRegistry>,
    verified: bool,
) -> Result<PipelineLayer, InvalidInput> {
    let mut pipeline = config.pipeline();
    pipeline.tenants = config.tenants.pipeline(verified);
    pipeline.rate_limit = rate_limit(&config.rate_limit);
    PipelineLayer::new(Arc::clone(registry), pipeline).map_err(|error| invalid(&error))
}

/// Whether the layers can be made, before there is anything that they are made around.
pub(super) fn check(config: &Config) -> Result<(), InvalidInput> {
    layer(config, &Arc::new(KernelRegistry::new()), true).map(drop)
}

/// The settings that a field of the pipeline's configuration is made from.
fn invalid(error: &InvalidPipeline) -> InvalidInput {
    let keys: &[&str] = match error.field() {
        "rate_limit.default" => &["rate_limit.per_second", "rate_limit.burst"],
        field if field.starts_with("rate_limit.tenants.") => &["rate_limit.tenants"],
        "circuit_breaker.failure_rate" => &["circuit_breaker.failure_percent"],
        "cache" => &["cache.max_bytes"],
        "retry.attempts" => &["retry.attempts"],
        // One that is added says itself what it is about.
        _ => &[],
    };
    InvalidInput::new(keys, chain(error))
}

fn rate_limit(config: &RateLimit) -> Option<RateLimitConfig> {
    config.is_on().then(|| RateLimitConfig {
        default: quota(TenantLimit { per_second: config.per_second, burst: config.burst }),
        tenants: config.tenants.iter().map(|(tenant, &own)| (tenant.clone(), quota(own))).collect(),
    })
}

fn quota(TenantLimit { per_second, burst }: TenantLimit) -> QuotaConfig {
    match NonZeroU32::new(per_second) {
        // Whatever the burst.
        None => QuotaConfig::UNLIMITED,
        Some(rate) => QuotaConfig::per_second(rate, NonZeroU32::new(burst)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn of(per_second: u32, burst: u32) -> (u32, Duration) {
        let QuotaConfig { burst, period } = quota(TenantLimit { per_second, burst });
        (burst, period)
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
            assert_eq!(rate_limit(&config).is_some(), limited, "{config:?}");
        }
    }
}
