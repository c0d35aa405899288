//! Raises the limit on open files to what the allowed connections need.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files other than connections: the listeners, the log, those of the runtime and of the CUDA driver.
const OTHER_FILES: u64 = 256;

/// Files of registered regions of shared memory, at most.
const SHARED_MEMORY_FILES: u64 = 256;

/// Raises the soft limit to what the settings need, and warns if the hard limit is lower: beyond it no connection is
/// accepted, not even of health probes.
pub(super) fn raise_limit(config: &Config) {
    let needed = needed(config);
    let limit = getrlimit(Resource::Nofile);
    // Unlimited, or enough.
    let Some(current) = limit.current.filter(|current| *current < needed) else { return };
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed)).max(current);
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::debug!(%error, "cannot raise the limit on open files");
            current
        }
    };
    if now < needed {
        tracing::warn!(
            limit = now,
            needed,
            "connections.max needs more open files than the limit allows: raise the limit (ulimit -n, LimitNOFILE in \
             systemd) or lower connections.max"
        );
    }
}

/// The number of files that both listeners and the rest of the process may have open.
fn needed(config: &Config) -> u64 {
    let listeners =
        [&config.rest.listen, &config.grpc.listen].iter().filter(|listen| listen.0.is_some()).count() as u64;
    let connections = &config.connections;
    let each = (connections.max.get() as u64).saturating_add(connections.health_reserve as u64);
    let regions = if config.inference.shared_memory { SHARED_MEMORY_FILES } else { 0 };
    listeners.saturating_mul(each).saturating_add(OTHER_FILES).saturating_add(regions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    #[test]
    fn each_listener_needs_its_connections_and_its_reserve() {
        let mut config = Config::default();
        assert_eq!(needed(&config), 2 * (10_000 + 16) + OTHER_FILES);
        config.inference.shared_memory = true;
        assert_eq!(needed(&config), 2 * (10_000 + 16) + OTHER_FILES + SHARED_MEMORY_FILES);
        config.inference.shared_memory = false;
        config.grpc.listen = Listen(None);
        assert_eq!(needed(&config), 10_000 + 16 + OTHER_FILES);
        config.connections.max = std::num::NonZeroUsize::MAX;
        assert_eq!(needed(&config), u64::MAX);
    }
}
