//! What a [`KernelActor`](super::KernelActor) is sent, and what it answers.

use std::sync::Arc;
use std::time::Duration;

use ::actix::Message;

use super::ActorError;
use super::mailbox::Admission;
use crate::request::{Execution, Priority, TraceContext};
use crate::service::RegisteredKernel;

/// Runs a kernel. Dropping the future of the answer cancels it.
///
/// The input is written as JSON once for the kernel's own type to be read from, and the output read back. Callers with
/// large arrays are better served by the service itself, which takes typed values with no codec at all.
#[derive(Clone, Debug)]
pub struct ExecuteKernel {
    /// The kernel's id or one of its aliases.
    pub kernel_id: String,
    /// The kernel's input, as its JSON Schema has it.
    pub input: serde_json::Value,
    /// What is known of the request besides.
    pub metadata: ExecuteMetadata,
}

/// What is known of a request besides kernel and input; all of it may be left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExecuteMetadata {
    /// How long the answer is of use, counted from when the actor takes the message or its supervisor sends it; the wait
    /// for a place to run counts. Without it the actor's [default](super::KernelActorConfig::default_timeout) holds.
    pub timeout: Option<Duration>,
    /// How much it matters beside others.
    pub priority: Priority,
    /// On whose behalf it is made.
    pub tenant: Option<Arc<str>>,
    /// The trace that it belongs to.
    pub trace: Option<TraceContext>,
}

/// A kernel's answer.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ExecuteResult {
    /// The kernel, as the message named it.
    pub kernel_id: String,
    /// The kernel's output, as its JSON Schema has it.
    pub output: serde_json::Value,
    /// How it was run.
    pub execution: Execution,
}

impl Message for ExecuteKernel {
    type Result = Result<ExecuteResult, ActorError>;
}

/// A message that its supervisor has counted already, so that what is on its way to an actor is part of its load.
#[derive(Debug)]
pub(super) struct Admitted {
    pub(super) message: ExecuteKernel,
    pub(super) admission: Admission,
}

impl Message for Admitted {
    type Result = Result<ExecuteResult, ActorError>;
}

/// Asks for a kernel's description and its JSON Schemas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetKernelInfo {
    /// The kernel's id or one of its aliases.
    pub kernel_id: String,
}

impl Message for GetKernelInfo {
    type Result = Result<RegisteredKernel, ActorError>;
}

/// Asks for all kernels, by id. Ring kernels are among them; their [`mode`](crate::service::KernelInfo::mode) tells.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListKernels;

impl Message for ListKernels {
    type Result = Vec<RegisteredKernel>;
}

/// Asks what became of the [`ExecuteKernel`] messages so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GetStats;

impl Message for GetStats {
    type Result = ActorStats;
}

/// What became of the [`ExecuteKernel`] messages that an actor has received.
///
/// Each is counted in exactly one place: `received` is at any time the sum of `in_flight`, `completed`, `failed`,
/// `cancelled` and `refused`. An actor that its supervisor has started again goes on counting.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ActorStats {
    /// The actor's name.
    pub name: String,
    /// All of them.
    pub received: u64,
    /// Not answered yet.
    pub in_flight: u64,
    /// Answered with an output.
    pub completed: u64,
    /// Answered with an error of the service, past their deadline, or with the panic of the service.
    pub failed: u64,
    /// Given up before the answer, because the caller or the actor's thread had gone.
    pub cancelled: u64,
    /// Refused because the mailbox was full.
    pub refused: u64,
    /// The time that kernels took for those that were completed.
    pub executed: Duration,
    /// How often the supervisor has started it again.
    pub restarts: u64,
}
