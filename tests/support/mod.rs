//! What the test binaries share: a probe service, the contract's checks, clients, kernels, and processes of the program.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod checks;
pub(crate) mod core_goldens;
pub(crate) mod custom_backends;
pub(crate) mod gnn_goldens;
pub(crate) mod http_client;
pub(crate) mod kernels;
pub(crate) mod kmeans_goldens;
pub(crate) mod logs;
pub(crate) mod probe;
#[cfg(all(unix, feature = "server"))]
pub(crate) mod process;
pub(crate) mod random;
pub(crate) mod similarity_inputs;
pub(crate) mod wakes;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use tower_kernels::service::KernelRegistry;

/// A registry of the whole catalogue.
pub(crate) fn catalogue() -> Arc<KernelRegistry> {
    let registry = KernelRegistry::new();
    tower_kernels::kernels::register_all(&registry).unwrap();
    Arc::new(registry)
}

/// An address on the loopback interface at which nobody listens.
///
/// Its port lies below those that the system gives to others (from 32 768 on Linux): it would hand out one of its own
/// again, to another test, as soon as it is closed.
pub(crate) fn unused_address() -> SocketAddr {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 10_000;
    static USED: AtomicU16 = AtomicU16::new(0);
    // Test binaries that run at the same time begin at different ports.
    let offset = (std::process::id() % u32::from(COUNT)) as u16;
    loop {
        let used = USED.fetch_add(1, Ordering::Relaxed);
        assert!(used < COUNT, "no port is free");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, FIRST + (offset + used) % COUNT));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}
