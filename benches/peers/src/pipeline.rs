//! The ready pipeline: as it is if nothing is said, and with all that it has.

use std::num::NonZeroUsize;

use tower::Layer;
use tower_kernels::kernels::register_all;
use tower_kernels::pipeline::{
    CacheConfig, CoalesceConfig, PipelineConfig, PipelineLayer, RateLimitConfig, RetryConfig,
};
use tower_kernels::service::KernelRegistry;

use crate::inner::{KERNEL, Kernel, kernel_request};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case { name: "ready pipeline, all off", over: Some(KERNEL), build: || around(off()) },
    Case { name: "ready pipeline, as it comes", over: Some(KERNEL), build: || around(PipelineConfig::default()) },
    Case { name: "ready pipeline, all but the cache", over: Some(KERNEL), build: || around(all()) },
    Case { name: "ready pipeline, all, a hit", over: Some(KERNEL), build: hit },
];

fn around(config: PipelineConfig) -> Calls {
    let registry = KernelRegistry::new();
    register_all(&registry).expect("the catalogue");
    in_runtime(|| {
        let layer = PipelineLayer::new(registry, config).expect("a pipeline");
        drive(layer.layer(Kernel), kernel_request)
    })
}

fn off() -> PipelineConfig {
    let mut config = PipelineConfig::default();
    (config.load_shed, config.circuit_breaker, config.queue) = (None, None, None);
    config
}

fn all() -> PipelineConfig {
    PipelineConfig {
        rate_limit: Some(RateLimitConfig::default()),
        coalesce: Some(CoalesceConfig::default()),
        retry: Some(RetryConfig { attempts: 3 }),
        concurrency: NonZeroUsize::new(64),
        ..Default::default()
    }
}

fn hit() -> Calls {
    let mut config = all();
    config.cache = Some(CacheConfig::default());
    around(config)
}
