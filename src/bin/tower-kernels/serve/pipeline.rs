//! The registry and the layers that REST and gRPC share.

use std::num::NonZeroU32;
use std::sync::Arc;

use tower_kernels::error::chain;
use tower_kernels::kernels;
use tower_kernels::pipeline::{InvalidPipeline, PipelineLayer, QuotaConfig, RateLimitConfig};
use tower_kernels::service::{KernelRegistry, Operands};

use crate::config::{self, Config, Domain, InvalidSettings, RateLimit, TenantLimit};
use crate::exit::{Exit, Failure};

/// The registry of the kernels to serve.
pub(super) fn registry(config: &Config) -> Result<Arc<KernelRegistry>, Failure> {
    let operands = operands(&config.operands)?;
    let registry = KernelRegistry::with_operands(operands);
    register_kernels(&registry, &config.domains)?;
    Ok(Arc::new(registry))
}

/// Registers the kernels of these domains, or of all if there are none.
pub(super) fn register_kernels(registry: &KernelRegistry, domains: &[Domain]) -> Result<(), Failure> {
    let wanted = |domain: &str| domains.is_empty() || domains.iter().any(|one| one.0 == domain);
    kernels::register_where(registry, |kernel| wanted(kernel.domain()))
        .map_err(|error| Exit::Failed.failure(error.to_string()))?;
    #[cfg(feature = "fault-kernel")]
    registry.register(super::fault::Fault).map_err(|error| Exit::Failed.failure(error.to_string()))?;
    Ok(())
}

/// The operands, which are loaded later if they are in a directory.
fn operands(config: &config::Operands) -> Result<Operands, Failure> {
    let limits = super::memory::operand_limits(config);
    if config.dir.as_os_str().is_empty() {
        return Ok(Operands::new(limits));
    }
    Operands::open(limits, &config.dir)
        .map_err(|error| Exit::Failed.failure(format!("operands.dir: {}", chain(&error))))
}

/// The layers that the settings ask for.
///
/// `verified` is whether requests are authenticated, so that their tenant is not just what a header claims.
pub(super) fn layer(
    config: &Config,
    registry: &Arc<KernelRegistry>,
    verified: bool,
) -> Result<PipelineLayer, InvalidSettings> {
    let mut pipeline = config.pipeline();
    pipeline.tenants = config.tenants.pipeline(verified);
    pipeline.rate_limit = rate_limit(&config.rate_limit);
    PipelineLayer::new(Arc::clone(registry), pipeline).map_err(|error| invalid(&error))
}

/// Checks that the layers can be built, before anything is opened.
pub(super) fn check(config: &Config) -> Result<(), InvalidSettings> {
    layer(config, &Arc::new(KernelRegistry::new()), true).map(drop)
}

/// Names the settings behind a field of the pipeline's configuration.
fn invalid(error: &InvalidPipeline) -> InvalidSettings {
    let keys: &[&str] = match error.field() {
        "rate_limit.default" => &["rate_limit.per_second", "rate_limit.burst"],
        field if field.starts_with("rate_limit.tenants.") => &["rate_limit.tenants"],
        "circuit_breaker.failure_rate" => &["circuit_breaker.failure_percent"],
        "cache" => &["cache.max_bytes"],
        "retry.attempts" => &["retry.attempts"],
        // The message names the field.
        _ => &[],
    };
    InvalidSettings::new(keys, chain(error))
}

fn rate_limit(config: &RateLimit) -> Option<RateLimitConfig> {
    config.is_on().then(|| RateLimitConfig {
        default: quota(TenantLimit { per_second: config.per_second, burst: config.burst }),
        tenants: config.tenants.iter().map(|(tenant, &own)| (tenant.clone(), quota(own))).collect(),
    })
}

fn quota(TenantLimit { per_second, burst }: TenantLimit) -> QuotaConfig {
    match NonZeroU32::new(per_second) {
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
