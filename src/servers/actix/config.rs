use std::time::Duration;

/// Configuration of a [`KernelActor`](super::KernelActor).
///
/// ```
/// use tower_kernels::actix::KernelActorConfig;
///
/// let config = KernelActorConfig { name: "pricing".to_owned(), ..Default::default() };
/// assert_eq!(config.mailbox_capacity, 1000);
/// ```
///
/// Fields may be added in a minor version: end a literal with `..Default::default()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KernelActorConfig {
    /// Name of the actor in errors and statistics. Default: `kernel-actor`.
    pub name: String,
    /// Maximum number of unanswered [`ExecuteKernel`](super::ExecuteKernel) and [`PutOperand`](super::PutOperand)
    /// messages, at least 1. Further messages are rejected. Default: 1000.
    pub mailbox_capacity: usize,
    /// Timeout of messages without a [timeout](super::ExecuteMetadata::timeout) of their own. Default: 30 s.
    pub default_timeout: Duration,
    /// Maximum timeout of a message; a longer one is shortened to it. Default: no maximum.
    pub max_timeout: Option<Duration>,
}

impl Default for KernelActorConfig {
    fn default() -> Self {
        Self {
            name: "kernel-actor".to_owned(),
            mailbox_capacity: 1000,
            default_timeout: Duration::from_secs(30),
            max_timeout: None,
        }
    }
}

impl KernelActorConfig {
    /// Timeout of a message that requests `requested`.
    pub(super) fn timeout(&self, requested: Option<Duration>) -> Duration {
        let timeout = requested.unwrap_or(self.default_timeout);
        self.max_timeout.map_or(timeout, |max| timeout.min(max))
    }
}
