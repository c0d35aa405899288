use std::time::Duration;

/// How a [`KernelActor`](super::KernelActor) is set up.
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
    /// What errors and statistics call the actor. Default: `kernel-actor`.
    pub name: String,
    /// How many [`ExecuteKernel`](super::ExecuteKernel) messages may be unanswered at one time, 1 at least. One more is
    /// refused at once. Default: 1000.
    pub mailbox_capacity: usize,
    /// How long messages that ask for no [timeout](super::ExecuteMetadata::timeout) are given. Default: 30 s.
    pub default_timeout: Duration,
    /// The most that a message may ask for; what asks for more is given this. Default: no bound.
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
    /// How long a message that asks for `asked` is given.
    pub(super) fn timeout(&self, asked: Option<Duration>) -> Duration {
        let timeout = asked.unwrap_or(self.default_timeout);
        self.max_timeout.map_or(timeout, |most| timeout.min(most))
    }
}
