//! The process's limit on open files, against the connections that there may be.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::config::Config;

/// Files that are no connections: the listeners, the log, the runtime's own, and those of the CUDA driver.
const OTHER_FILES: u64 = 256;

/// Raises the limit to what the settings need, as far as the system lets a process do so, and warns where that is too
/// little: past it no connection is accepted, those of health probes included.
pub(super) fn raise_limit(config: &Config) {
    let needed = needed(config);
    let limit = getrlimit(Resource::Nofile);
    // No limit, or more than it takes.
    let Some(current) = limit.current.filter(|current| *current < needed) else { return };
    let raised = limit.maximum.map_or(needed, |maximum| maximum.min(needed)).max(current);
    let now = match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum: limit.maximum }) {
        Ok(()) => raised,
        Err(error) => {
            tracing::debug!(%error, "the limit on open files cannot be raised");
            current
        }
    };
    if now < needed {
        tracing::warn!(
            limit = now,
            needed,
            "connections.max is more than the limit on open files allows: raise the limit (ulimit -n, LimitNOFILE in \
             systemd) or lower connections.max"
        );
    }
}

/// What both listeners may have open at one time, and the rest of the process.
fn needed(config: &Config) -> u64 {
    let listeners =
        [&config.rest.listen, &config.grpc.listen].iter().filter(|listen| listen.0.is_some()).count() as u64;
    let connections = &config.connections;
    let each = (connections.max.get() as u64).saturating_add(connections.health_reserve as u64);
    listeners.saturating_mul(each).saturating_add(OTHER_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Listen;

    #[test]
    fn each_listener_needs_its_connections_and_its_reserve() {
        let mut config = Config::default();
        assert_eq!(needed(&config), 2 * (10_000 + 16) + OTHER_FILES);
        config.grpc.listen = Listen(None);
        assert_eq!(needed(&config), 10_000 + 16 + OTHER_FILES);
        config.connections.max = std::num::NonZeroUsize::MAX;
        assert_eq!(needed(&config), u64::MAX);
    }
}
