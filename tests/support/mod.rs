//! What the test binaries share: a probe service, the contract's checks, clients, kernels, and processes of the program.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod checks;
pub(crate) mod core_goldens;
pub(crate) mod custom_backends;
pub(crate) mod http_client;
pub(crate) mod kernels;
pub(crate) mod kmeans_goldens;
pub(crate) mod logs;
pub(crate) mod probe;
#[cfg(all(unix, feature = "server"))]
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod wakes;

use std::sync::Arc;

use tower_kernels::service::KernelRegistry;

/// A registry of the whole catalogue.
pub(crate) fn catalogue() -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    Arc::new(registry)
}
