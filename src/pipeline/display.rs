//! Prints a [`PipelineLayer`] as the list of its layers.

use std::fmt::{self, Display, Formatter};

use super::config::{PipelineConfig, QuotaConfig, TenantsConfig};
use super::layer::PipelineLayer;

impl Display for PipelineLayer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (name, text) in rows(&self.config) {
            writeln!(f, "{name:<17}{}", text.as_deref().unwrap_or("off"))?;
        }
        f.write_str("kernels")
    }
}

/// Returns the layers from the outside in, each with its settings, or `None` if it is off.
fn rows(config: &PipelineConfig) -> [(&'static str, Option<String>); 13] {
    let on = || Some("on".to_owned());
    let sharing = |across: bool| if across { "shared across tenants" } else { "per tenant" };
    let cache = config.cache.as_ref().map(|cache| {
        let ttl = cache.ttl.map_or("no time to live".to_owned(), |ttl| format!("time to live {ttl:?}"));
        format!("{} bytes, {ttl}, {}", cache.max_bytes, sharing(cache.share_across_tenants))
    });
    let rate_limit = config.rate_limit.as_ref().map(|limit| {
        let QuotaConfig { burst, period } = limit.default;
        let default = match limit.default {
            QuotaConfig::UNLIMITED => "none".to_owned(),
            _ => format!("{burst} calls per {period:?} and tenant"),
        };
        format!("{default}, {} overrides", limit.tenants.len())
    });
    let breaker = config.circuit_breaker.as_ref().map(|breaker| {
        format!(
            "per kernel and tenant, opens at {} consecutive failures or a rate of {}; for all once {} tenants agree",
            breaker.consecutive_failures, breaker.failure_rate, breaker.agreeing_tenants
        )
    });
    let batch = config.batch.as_ref().map(|batch| {
        let delay = if batch.max_delay.is_zero() { String::new() } else { format!(", delay {:?}", batch.max_delay) };
        let devices = if batch.on_cpu { "on CUDA devices and the CPU" } else { "on CUDA devices" };
        format!("up to {} requests or {} bytes{delay}, {devices}", batch.max_requests, batch.max_bytes)
    });
    let shed = config.load_shed.as_ref();
    let queue = config.queue.as_ref();
    [
        ("metrics", on()),
        ("tracing", on()),
        ("tenants", Some(tenants(&config.tenants))),
        ("rate limit", rate_limit),
        ("cache", cache),
        ("coalesce", config.coalesce.as_ref().map(|coalesce| sharing(coalesce.share_across_tenants).to_owned())),
        ("load shed", shed.map(|shed| format!("expected wait over {:?} or past the deadline", shed.max_wait))),
        ("circuit breaker", breaker),
        ("timeout", Some(format!("{:?}", config.timeout))),
        ("retry", config.retry.as_ref().map(|retry| format!("{} attempts, pure kernels only", retry.attempts))),
        ("priority queue", queue.map(|queue| format!("{} calls, {} bytes", queue.capacity, queue.max_bytes))),
        ("concurrency", config.concurrency.map(|limit| format!("{limit} calls at a time"))),
        ("batch", batch),
    ]
}

fn tenants(config: &TenantsConfig) -> String {
    let others = if config.verified { "a share each" } else { "one share, as their names are not verified" };
    let (named, max_priority) = (config.named.len(), config.max_priority);
    format!("{named} named; others: {others}, priority up to {max_priority}")
}
