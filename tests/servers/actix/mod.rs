//! The actors, on a real actix system and real lanes.

mod actor;
mod kernels;
mod mailbox;
mod supervisor;
