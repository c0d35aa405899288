//! Runs kernels in [`actix`](::actix) actors.
//!
//! | message | result |
//! |---|---|
//! | [`ExecuteKernel`] | [`ExecuteResult`]: the kernel's output and how it was run |
//! | [`GetKernelInfo`] | [`RegisteredKernel`](crate::service::RegisteredKernel): its description and JSON Schemas |
//! | [`ListKernels`] | the same of all kernels |
//! | [`GetStats`] | [`ActorStats`]: counts of messages by outcome |
//! | [`PutOperand`] | [`OperandInfo`](crate::service::OperandInfo): the version of the [operand](crate::service::Operands) that was stored |
//! | [`GetOperand`], [`DeleteOperand`] | the same of the operand that there is, or was |
//! | [`ListOperands`] | the same of all operands of a tenant |
//!
//! ```
//! use actix::Actor;
//! use tower_kernels::actix::{ExecuteKernel, KernelActor, KernelActorConfig};
//! use tower_kernels::service::KernelRegistry;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! actix::System::new().block_on(async {
//!     let registry = KernelRegistry::new();
//!     tower_kernels::kernels::register_all(&registry)?;
//!     let addr = KernelActor::new(registry, KernelActorConfig::default()).start();
//!
//!     let result = addr.send(ExecuteKernel {
//!         kernel_id: "linalg/saxpy".to_owned(),
//!         input: serde_json::json!({"a": 2.0, "x": [1.0, 2.0], "y": [10.0, 20.0]}),
//!         metadata: Default::default(),
//!     });
//!     assert_eq!(result.await??.output, serde_json::json!({"y": [12.0, 24.0]}));
//!     Ok(())
//! })
//! # }
//! ```
//!
//! # One service, many messages
//!
//! An actor calls a Tower service: [`KernelService`](crate::service::KernelService), or a pipeline
//! ([`KernelActor::with_service`]) that any number of actors and servers can share. It handles its next message while
//! earlier ones run, so one actor can keep a whole machine busy. Use several to limit kinds of work separately, and to
//! isolate them when one dies.
//!
//! Each message has a deadline, its own or the actor's default, which includes the wait for readiness.
//!
//! # A full mailbox
//!
//! [`mailbox_capacity`](KernelActorConfig::mailbox_capacity) limits the [`ExecuteKernel`] and [`PutOperand`] messages
//! that are unanswered: waiting for readiness, or running. Further ones fail with [`ActorError::MailboxFull`] at once; other messages are
//! always accepted. [`KernelActorSupervisor::dispatch`] rejects a message before it is sent.
//!
//! actix's own mailbox does not limit them: the actor empties it as messages arrive, and `Addr::send` ignores its
//! capacity. It has the same capacity here, so that `Addr::try_send` returns `SendError::Full` while the actor's thread
//! is busy. Messages of `try_send` and `do_send` run without a response.
//!
//! # Cancel safety
//!
//! Dropping the future of `Addr::send` or of [`KernelActorSupervisor::dispatch`] cancels the kernel. Messages that an
//! actor has accepted continue when it ends; when its arbiter ends, they are cancelled.

mod actor;
mod config;
mod error;
mod mailbox;
mod messages;
mod operands;
mod reply;
mod supervisor;

pub use self::actor::KernelActor;
pub use self::config::KernelActorConfig;
pub use self::error::{ActorError, ServiceError};
pub use self::messages::{
    ActorStats, ExecuteKernel, ExecuteMetadata, ExecuteResult, GetKernelInfo, GetStats, ListKernels,
};
pub use self::operands::{DeleteOperand, GetOperand, ListOperands, PutOperand};
pub use self::reply::{OperandReply, Reply};
pub use self::supervisor::{DispatchStrategy, KernelActorSupervisor};
