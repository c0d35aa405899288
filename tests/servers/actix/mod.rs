//! The actors, on a real actix system and real worker threads.

mod actor;
mod kernels;
mod mailbox;
mod operands;
mod supervisor;
