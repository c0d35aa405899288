//! Answers that are known, and runs that are shared: a call that finds its answer, and one that finds nobody to share with.

use std::time::Duration;

use tower::{Layer, Service};
use tower_kernels::kernels::register_all;
use tower_kernels::layers::{CacheLayer, CoalesceLayer};
use tower_kernels::service::{KernelCacheKey, KernelRegistry};

use crate::inner::{Done, Job, KERNEL, Kernel, PLAIN, Plain, job, kernel_request};
use crate::{Calls, Case, drive, in_runtime};

pub(crate) const CASES: &[Case] = &[
    Case { name: "CacheLayer hit, kernel request", over: Some(KERNEL), build: hit_of_kernel },
    Case { name: "CacheLayer hit with TTL, kernel request", over: Some(KERNEL), build: hit_in_time },
    Case { name: "CacheLayer hit, plain request", over: Some(PLAIN), build: hit },
    Case { name: "CacheLayer, no key, plain request", over: Some(PLAIN), build: no_key },
    Case { name: "CoalesceLayer leader, kernel request", over: Some(KERNEL), build: leader_of_kernel },
    Case { name: "CoalesceLayer leader, plain request", over: Some(PLAIN), build: leader },
    Case { name: "moka get alone, found", over: None, build: moka },
    Case { name: "tower-resilience cache hit, plain request", over: Some(PLAIN), build: peer_hit },
    Case { name: "tower-resilience coalesce leader, plain request", over: Some(PLAIN), build: peer_leader },
];

const MIB: u64 = 1 << 20;

type Key = (&'static str, u64);

fn key(job: &Job) -> Key {
    (job.kernel, job.size)
}

fn pure() -> KernelCacheKey {
    let registry = KernelRegistry::new();
    register_all(&registry).expect("the catalogue");
    assert!(registry.is_pure("linalg/saxpy"), "what is not pure is not cached");
    KernelCacheKey::new(registry)
}

fn hit_of_kernel() -> Calls {
    drive(CacheLayer::new(64 * MIB, pure()).layer(Kernel), kernel_request)
}

fn hit_in_time() -> Calls {
    drive(CacheLayer::new(64 * MIB, pure()).ttl(Duration::from_secs(3600)).layer(Kernel), kernel_request)
}

fn hit() -> Calls {
    drive(CacheLayer::new(64 * MIB, |job: &Job| Some(key(job))).layer(Plain), job)
}

fn no_key() -> Calls {
    drive(CacheLayer::new(64 * MIB, |_: &Job| None::<Key>).layer(Plain), job)
}

fn leader_of_kernel() -> Calls {
    drive(CoalesceLayer::new(pure()).layer(Kernel), kernel_request)
}

fn leader() -> Calls {
    drive(CoalesceLayer::new(|job: &Job| Some(key(job))).layer(Plain), job)
}

/// What a cache of moka's costs before there is a layer: a number as the key and its default hasher.
fn moka() -> Calls {
    let cache = moka::sync::Cache::builder().max_capacity(64 * MIB).weigher(|_: &u128, _: &u64| 8).build();
    cache.insert(77, 1);
    Box::new(move |calls| {
        for _ in 0..calls {
            std::hint::black_box(cache.get(std::hint::black_box(&77))).expect("it was inserted");
        }
    })
}

fn peer_hit() -> Calls {
    let cache = tower_resilience_cache::CacheLayer::builder().max_size(1024).key_extractor(key).build();
    drive(cache.expect("a cache").layer(Plain), job)
}

fn peer_leader() -> Calls {
    fn plain() -> impl Service<Job, Response = Done, Error = std::convert::Infallible, Future = impl Send> + Clone + Send
    {
        Plain
    }
    in_runtime(|| drive(tower_resilience_coalesce::CoalesceLayer::new(key).layer(plain()), job))
}
