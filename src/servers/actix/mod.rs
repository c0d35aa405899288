//! Actors that run kernels, for programs built on [`actix`](::actix).
//!
//! | message | answer |
//! |---|---|
//! | [`ExecuteKernel`] | [`ExecuteResult`]: the kernel's output and how it was run |
//! | [`GetKernelInfo`] | [`RegisteredKernel`](crate::service::RegisteredKernel): its description and JSON Schemas |
//! | [`ListKernels`] | the same of all kernels |
//! | [`GetStats`] | [`ActorStats`]: what became of the messages so far |
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
//! An actor runs nothing itself: it is a client of a Tower service, [`KernelService`](crate::service::KernelService) or a
//! pipeline of yours ([`KernelActor::with_service`]), and clones of that may stand behind any number of actors and
//! servers. It takes its next message while earlier ones run, so one actor keeps a whole machine busy. What several are
//! for is to bound one kind of work against another, and to leave the others when one dies.
//!
//! Each message has a deadline, its own or the actor's default, and the wait for a place to run counts.
//!
//! # A full mailbox
//!
//! [`mailbox_capacity`](KernelActorConfig::mailbox_capacity) is how many [`ExecuteKernel`] messages may be unanswered:
//! waiting for a place to run, or running. The next one is answered with [`ActorError::MailboxFull`] without waiting for
//! room; the other messages always pass. [`KernelActorSupervisor::dispatch`] refuses before it sends anything.
//!
//! actix's own mailbox is no such bound: the actor empties it as messages come, and `Addr::send` puts a message in
//! however many there are. It has the same capacity here, so that `Addr::try_send` gives `SendError::Full` while the
//! actor's thread is held up by something else; such messages, like those of `do_send`, run without an answer.
//!
//! # Cancel safety
//!
//! Dropping the future of `Addr::send` or of [`KernelActorSupervisor::dispatch`] cancels the kernel. An actor that ends
//! still answers what it has taken in; when its arbiter ends, all that runs for it is cancelled.

mod actor;
mod config;
mod error;
mod mailbox;
mod messages;
mod reply;
mod supervisor;

pub use self::actor::KernelActor;
pub use self::config::KernelActorConfig;
pub use self::error::{ActorError, ServiceError};
pub use self::messages::{
    ActorStats, ExecuteKernel, ExecuteMetadata, ExecuteResult, GetKernelInfo, GetStats, ListKernels,
};
pub use self::reply::Reply;
pub use self::supervisor::{DispatchStrategy, KernelActorSupervisor};
