//! Messages of a [`KernelActor`](super::KernelActor) and their results.

use std::sync::Arc;
use std::time::Duration;

use ::actix::Message;

use super::ActorError;
use super::mailbox::MailboxPermit;
use crate::request::{BackendKind, Execution, Priority, TraceContext};
use crate::service::RegisteredKernel;

/// Runs a kernel. Dropping the future of the response cancels it.
///
/// The input is serialized to JSON and the output parsed from JSON. For large arrays, call the service itself, which
/// takes typed values without a codec.
#[derive(Clone, Debug)]
pub struct ExecuteKernel {
    /// Id of the kernel, or one of its aliases.
    pub kernel_id: String,
    /// Input of the kernel, which must match its JSON Schema.
    pub input: serde_json::Value,
    /// Deadline, priority, tenant, backend and trace.
    pub metadata: ExecuteMetadata,
}

/// Deadline, priority, tenant, backend and trace of a request, all optional.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecuteMetadata {
    /// Time until the deadline, from when the actor accepts the message or its supervisor sends it. It includes the
    /// wait for readiness. `None` for the actor's [default](super::KernelActorConfig::default_timeout).
    pub timeout: Option<Duration>,
    /// Scheduling priority.
    pub priority: Priority,
    /// Tenant that the request belongs to.
    pub tenant: Option<Arc<str>>,
    /// Backend to run it on. By default it runs where the response is predicted to come first.
    pub backend: Option<BackendKind>,
    /// Trace that the request belongs to.
    pub trace: Option<TraceContext>,
}

/// Output of a kernel.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExecuteResult {
    /// `kernel_id` of the message.
    pub kernel_id: String,
    /// Output of the kernel, which matches its JSON Schema.
    pub output: serde_json::Value,
    /// How it was run.
    pub execution: Execution,
}

impl Message for ExecuteKernel {
    type Result = Result<ExecuteResult, ActorError>;
}

/// A message with the permit that its supervisor has acquired, so that messages on their way to an actor count as load.
#[derive(Debug)]
pub(super) struct AcceptedMessage {
    pub(super) message: ExecuteKernel,
    pub(super) permit: MailboxPermit,
}

impl Message for AcceptedMessage {
    type Result = Result<ExecuteResult, ActorError>;
}

/// Returns the description of a kernel and its JSON Schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetKernelInfo {
    /// Id of the kernel, or one of its aliases.
    pub kernel_id: String,
}

impl Message for GetKernelInfo {
    type Result = Result<RegisteredKernel, ActorError>;
}

/// Lists all kernels by id, including ring kernels: see [`mode`](crate::service::KernelInfo::mode).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListKernels;

impl Message for ListKernels {
    type Result = Vec<RegisteredKernel>;
}

/// Returns statistics of the [`ExecuteKernel`] and [`PutOperand`](super::PutOperand) messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetStats;

impl Message for GetStats {
    type Result = ActorStats;
}

/// Statistics of the [`ExecuteKernel`] and [`PutOperand`](super::PutOperand) messages that an actor has received.
///
/// `received` is always the sum of `in_flight`, `completed`, `failed`, `cancelled` and `rejected`. They continue when the
/// supervisor restarts the actor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorStats {
    /// Name of the actor.
    pub name: String,
    /// Messages received.
    pub received: u64,
    /// Messages without a response yet.
    pub in_flight: u64,
    /// Messages whose kernel completed, or whose operand was stored.
    pub completed: u64,
    /// Messages that failed: the service returned an error or panicked, or the deadline was exceeded.
    pub failed: u64,
    /// Messages cancelled by their sender or by the end of the actor's thread.
    pub cancelled: u64,
    /// Messages rejected because the mailbox was full.
    pub rejected: u64,
    /// Total execution time of the kernels of completed messages.
    pub executed: Duration,
    /// Restarts by the supervisor.
    pub restarts: u64,
}
