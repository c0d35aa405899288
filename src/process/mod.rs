//! Child processes of this program, and calls into them through shared memory. Linux only.
//!
//! A [`Child`] is this program again. [`Child::spawn`] gives one [`Caller`] for each mailbox, and in the child [`enter`]
//! gives the [`Callee`] at the other end. A call is one message each way: a number (its kind), a head and sections, which
//! lie in memory that both processes have mapped ([`Segment`]). [`Control`] carries everything that is no call.
//!
//! The module knows no kernel and no request.
//!
//! # Trust
//!
//! A process takes nothing for granted that it reads from shared memory or from the control socket: each field is loaded
//! once, checked, and used from the copy, and what cannot be is [`CallError::Corrupt`]. A segment is sealed against
//! shrinking before it is mapped, as reading past its end would raise `SIGBUS`. What the other process can do is to change
//! the bytes of a section while they are read: see [`Received`].

#![allow(unsafe_code)]
#![deny(unsafe_op_in_unsafe_fn)]

mod call;
mod child;
mod control;
mod enter;
mod incoming;
mod limits;
mod mailbox;
mod message;
mod pool;
mod segment;
#[cfg(test)]
mod tests;
mod watcher;

pub(crate) use call::{CallError, Callee, Caller, Closed, SendError, Waiting};
pub(crate) use child::{Child, ChildConfig, Exit, Spawned};
pub(crate) use control::Control;
pub(crate) use enter::{Inherited, enter, exit_now};
pub(crate) use limits::{Limits, reject_sockets};
pub(crate) use message::{Message, Received};
pub(crate) use pool::OutOfSharedMemory;
pub(crate) use segment::Segment;
